"""Runs that wait for more than their turn: suspects, and runs of graphs that no worker serves."""

from collections.abc import Sequence
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
