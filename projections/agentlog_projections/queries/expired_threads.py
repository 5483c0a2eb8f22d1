"""Threads whose time to live is over."""

from datetime import datetime

from agentlog_facts.ids import ThreadId
from agentlog_postgres.connection import Pool, reading

_EXPIRED = """
SELECT t.thread_id FROM read_v1.threads t JOIN ledger.positions p USING (partition)
 WHERE t.deleted_at IS NULL AND t.expires_at <= $1 AND t.status <> 'busy' AND p.present AND p.stopped IS NULL
   AND NOT EXISTS (SELECT FROM ledger.quarantine q WHERE q.key = t.thread_id)
 ORDER BY t.expires_at LIMIT $2
"""


async def expired_threads(pool: Pool, now: datetime, limit: int) -> list[ThreadId]:
    """Return threads that expired before `now`, the oldest first, without busy ones. Raises: Unavailable."""
    async with reading(pool, "threads.expired") as connection:
        rows = await connection.fetch(_EXPIRED, now, limit)
    return [ThreadId(row["thread_id"]) for row in rows]
