"""Purge of deleted threads once the retention of their streams is over; afterwards only the log has them."""

from datetime import timedelta

from agentlog_postgres.connection import Pool, reading

ERASED = frozenset({"threads", "runs", "checkpoints", "channels", "writes"})
"""The tables whose rows go with their thread; items of the store stay, since they only name it."""
_PURGE = """
WITH gone AS (
    DELETE FROM read_v1.threads WHERE thread_id IN (
        SELECT thread_id FROM read_v1.threads WHERE deleted_at < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING thread_id
), runs AS (DELETE FROM read_v1.runs USING gone WHERE runs.thread_id = gone.thread_id),
checkpoints AS (DELETE FROM read_v1.checkpoints USING gone WHERE checkpoints.thread_id = gone.thread_id),
channels AS (DELETE FROM read_v1.channels USING gone WHERE channels.thread_id = gone.thread_id),
writes AS (DELETE FROM read_v1.writes USING gone WHERE writes.thread_id = gone.thread_id)
SELECT count(*) FROM gone
"""


async def purge_deleted(pool: Pool, after: timedelta, limit: int = 1_000) -> int:
    """Erase the rows of threads deleted longer ago than `after` (the retention of `outputs`) and return how many.

    A rebuild brings them back, hidden, until the next purge. Raises: Unavailable.
    """
    async with reading(pool, "purge") as connection:
        found: int = await connection.fetchval(_PURGE, after, limit)
    return found
