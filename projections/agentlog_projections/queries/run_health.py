"""Runs that have not ended: their numbers and waiting times, suspects, and runs of graphs that no worker serves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from agentlog_commands.claims import not_served
from agentlog_postgres.connection import Pool, reading

_SUSPECTS = """
SELECT count(*) FROM read_v1.runs r
 WHERE r.status IN ('pending', 'running') AND NOT r.deleted AND r.deaths > 0
"""
_WAITING = """
SELECT r.graph_id, count(*) AS runs, clock_timestamp() - min(coalesce(r.due_at, r.created_at)) AS longest
  FROM read_v1.runs r
 WHERE r.status = 'pending' AND NOT r.deleted AND r.cancel IS NULL
   AND (r.due_at IS NULL OR r.due_at <= clock_timestamp())
 GROUP BY r.graph_id ORDER BY r.graph_id
"""

# The first run of a thread, in the order of claims, is not blocked by another one.
_FIGURES = """
WITH active AS (
    SELECT r.graph_id, r.status, extract(epoch FROM clock_timestamp() - coalesce(r.due_at, r.created_at)) AS waited_s,
           row_number() OVER (PARTITION BY r.thread_id ORDER BY r.status = 'running' DESC, r.seq) = 1 AS is_first
      FROM read_v1.runs r WHERE r.status IN ('pending', 'running') AND NOT r.deleted)
SELECT graph_id, count(*) FILTER (WHERE status = 'pending') AS pending,
       count(*) FILTER (WHERE status = 'running') AS running,
       max(waited_s) FILTER (WHERE status = 'pending' AND waited_s >= 0)::float8 AS longest_s,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY waited_s)
           FILTER (WHERE status = 'pending' AND waited_s >= 0) AS median_s,
       max(waited_s) FILTER (WHERE status = 'pending' AND waited_s >= 0 AND is_first)::float8 AS longest_first_s
  FROM active GROUP BY GROUPING SETS ((graph_id), ()) ORDER BY graph_id NULLS LAST
"""


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """Runs that have not ended: numbers, and the seconds that those which are due have waited, None without any.

    `longest_first_s` counts only runs that wait for no other run of their thread.
    """

    pending: int
    running: int
    longest_s: float | None
    median_s: float | None
    longest_first_s: float | None


@dataclass(frozen=True, slots=True)
class WaitingRuns:
    """Pending runs of a graph that are due: their number, and how long the oldest one has waited."""

    graph_id: str
    runs: int
    longest: timedelta

    @property
    def reason(self) -> str:
        """Return the reason for which they wait, if the graph is not served."""
        return unserved_reason(self.graph_id)


@dataclass(frozen=True, slots=True)
class RunHealth:
    """Number of active suspects, and the pending runs by graph."""

    suspects: int
    waiting: Sequence[WaitingRuns]

    def unserved(self, graph_ids: Sequence[str]) -> list[WaitingRuns]:
        """Return the pending runs whose graph is none of these: nobody can take them."""
        return [one for one in self.waiting if one.graph_id not in graph_ids]


def unserved_reason(graph_id: str) -> str:
    """Return the reason for which a run of a graph that is not served waits."""
    return f"{not_served(graph_id)}: nobody can take this run until it is back"


async def run_health(pool: Pool) -> RunHealth:
    """Return suspects and pending runs. Raises: Unavailable."""
    async with reading(pool, "run_health") as connection:
        suspects: int = await connection.fetchval(_SUSPECTS)
        rows = await connection.fetch(_WAITING)
    return RunHealth(suspects, [WaitingRuns(row["graph_id"], row["runs"], row["longest"]) for row in rows])


async def queue_figures(pool: Pool) -> tuple[QueueFigures, Mapping[str, QueueFigures]]:
    """Return the figures of all runs that have not ended, and those of each graph that has any. Raises: Unavailable."""
    async with reading(pool, "queue_figures") as connection:
        rows = await connection.fetch(_FIGURES)
    found = [
        QueueFigures(row["pending"], row["running"], row["longest_s"], row["median_s"], row["longest_first_s"])
        for row in rows
    ]
    return found[-1], {row["graph_id"]: one for row, one in zip(rows[:-1], found[:-1], strict=True)}
