"""Health of the projection: partitions that are folded, being built or stopped, and quarantined aggregates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentlog_facts.ids import Key
from agentlog_postgres.connection import Pool, reading

MOST_PARKED = 1_000
"""Parked aggregates that are named; `health` counts all."""

_PARTITIONS = "SELECT partition, present, stopped FROM ledger.positions ORDER BY partition"
_COUNTS = "SELECT model, count(DISTINCT key) AS keys FROM ledger.quarantine GROUP BY model ORDER BY model"
_PARKED = """
SELECT model, key, min(partition) AS partition, count(*) AS commits, max(attempts) AS attempts,
       (array_agg(error ORDER BY "offset"))[1] AS error
  FROM ledger.quarantine GROUP BY model, key ORDER BY model, key LIMIT $1
"""


@dataclass(frozen=True, slots=True)
class Parked:
    """An aggregate that a read model cannot hold: how many of its commits wait, how often that was tried, and why."""

    model: str
    key: Key
    partition: int
    commits: int
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class ProjectionHealth:
    """`building`: not folded to the log's end yet; `stopped` says why; `parked` counts aggregates by read model."""

    present: int
    building: Sequence[int]
    stopped: Mapping[int, str]
    parked: Mapping[str, int]


async def health(pool: Pool) -> ProjectionHealth:
    """Look at positions and quarantine. Raises: Unavailable."""
    async with reading(pool, "health") as connection:
        rows = await connection.fetch(_PARTITIONS)
        counts = await connection.fetch(_COUNTS)
    stopped = {row["partition"]: str(row["stopped"]) for row in rows if row["stopped"] is not None}
    building = [row["partition"] for row in rows if row["stopped"] is None and not row["present"]]
    parked = {row["model"]: row["keys"] for row in counts}
    return ProjectionHealth(len(rows) - len(stopped) - len(building), building, stopped, parked)


async def parked(pool: Pool) -> list[Parked]:
    """Return what is parked. Raises: Unavailable."""
    async with reading(pool, "quarantine") as connection:
        rows = await connection.fetch(_PARKED, MOST_PARKED)
    return [
        Parked(row["model"], Key(row["key"]), row["partition"], row["commits"], row["attempts"], row["error"])
        for row in rows
    ]
