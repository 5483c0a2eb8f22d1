"""Places of a thread's runs on `outputs`, for the start of a stream of the thread."""

from agentlog_facts.ids import RunId, ThreadId
from agentlog_postgres.connection import Pool, reading

_FIRST = "SELECT min(outputs_from) FROM read_v1.runs WHERE thread_id = $1"
_CLAIM = """
SELECT coalesce(r.epoch, t.version, -1) AS epoch, r.run_id
  FROM read_v1.threads t
  LEFT JOIN LATERAL (
       SELECT run_id, epoch FROM read_v1.runs
        WHERE thread_id = t.thread_id AND status IN ('pending', 'running') AND epoch IS NOT NULL LIMIT 1
  ) r ON true
 WHERE t.thread_id = $1
"""


class PostgresThreadPlaces:
    """Implements `thread_streams.ThreadPlaces`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def first_output(self, thread_id: ThreadId) -> int | None:
        """Return the position at which the output of the thread's first run begins. Raises: Unavailable."""
        async with reading(self._pool, "thread_places.first_output") as connection:
            found: int | None = await connection.fetchval(_FIRST, thread_id)
        return found

    async def last_claim(self, thread_id: ThreadId) -> tuple[int, RunId | None]:
        """Return the epoch of the claimed run with its id, or else the version of the thread. Raises: Unavailable."""
        async with reading(self._pool, "thread_places.last_claim") as connection:
            row = await connection.fetchrow(_CLAIM, thread_id)
        if row is None:
            return -1, None
        return row["epoch"], None if row["run_id"] is None else RunId(row["run_id"])
