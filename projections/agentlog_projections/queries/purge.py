"""Threads whose time is over: those to sweep, and the purge of deleted ones after the retention of their streams.

After its purge only the log has a thread.
"""

from datetime import datetime, timedelta

from agentlog_facts.ids import ThreadId
from agentlog_postgres.connection import Pool, reading

ERASED = frozenset({"threads", "thread_copies", "runs", "checkpoints", "channels", "writes"})
"""The tables whose rows go with their thread; items of the store stay, since they only name it."""
_PURGE = """
WITH gone AS (
    DELETE FROM read_v1.threads WHERE thread_id IN (
        SELECT thread_id FROM read_v1.threads WHERE deleted_at < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED)
    RETURNING thread_id
), runs AS (DELETE FROM read_v1.runs USING gone WHERE runs.thread_id = gone.thread_id),
copies AS (DELETE FROM read_v1.thread_copies c USING gone WHERE c.thread_id = gone.thread_id),
checkpoints AS (DELETE FROM read_v1.checkpoints USING gone WHERE checkpoints.thread_id = gone.thread_id),
channels AS (DELETE FROM read_v1.channels USING gone WHERE channels.thread_id = gone.thread_id),
writes AS (DELETE FROM read_v1.writes USING gone WHERE writes.thread_id = gone.thread_id)
SELECT count(*) FROM gone
"""

_EXPIRED = """
SELECT t.thread_id FROM read_v1.threads t JOIN ledger.positions p USING (partition)
 WHERE t.deleted_at IS NULL AND t.expires_at <= $1 AND t.status <> 'busy' AND p.present AND p.stopped IS NULL
   AND NOT EXISTS (SELECT FROM ledger.quarantine q WHERE q.key = t.thread_id)
 ORDER BY t.expires_at LIMIT $2
"""


async def purge_deleted(pool: Pool, after: timedelta, limit: int = 1_000) -> int:
    """Erase the rows of threads deleted longer ago than `after` (the retention of `outputs`) and return how many.

    A rebuild brings them back, hidden, until the next purge. Raises: Unavailable.
    """
    async with reading(pool, "purge") as connection:
        found: int = await connection.fetchval(_PURGE, after, limit)
    return found


async def expired_threads(pool: Pool, now: datetime, limit: int) -> list[ThreadId]:
    """Return threads that expired before `now`, the oldest first, without busy ones. Raises: Unavailable."""
    async with reading(pool, "threads.expired") as connection:
        rows = await connection.fetch(_EXPIRED, now, limit)
    return [ThreadId(row["thread_id"]) for row in rows]
