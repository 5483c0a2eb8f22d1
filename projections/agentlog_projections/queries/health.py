"""Health of the projection: partitions that are folded, being built or stopped, and quarantined aggregates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentlog_facts.ids import Key
from agentlog_postgres.connection import Pool, reading

MOST_PARKED = 1_000
"""The most aggregates that `parked` returns; `health` counts all."""

_PARTITIONS = "SELECT partition, present, stopped FROM ledger.positions ORDER BY partition"
_COUNTS = "SELECT model, count(DISTINCT key) AS keys FROM ledger.quarantine GROUP BY model ORDER BY model"
_PARKED = """
SELECT model, key, min(partition) AS partition, count(*) AS commits, max(attempts) AS attempts,
       (array_agg(error ORDER BY "offset"))[1] AS error
  FROM ledger.quarantine GROUP BY model, key ORDER BY model, key LIMIT $1
"""


@dataclass(frozen=True, slots=True)
class Parked:
    """An aggregate in quarantine of a read model: number of waiting commits, number of retries, and the first error."""

    model: str
    key: Key
    partition: int
    commits: int
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class ProjectionHealth:
    """Partitions: number of present ones, those that are being built, and those that stopped, with the reasons.

    `parked` counts the aggregates in quarantine by read model.
    """

    present: int
    building: Sequence[int]
    stopped: Mapping[int, str]
    parked: Mapping[str, int]


async def health(pool: Pool) -> ProjectionHealth:
    """Return the state of all partitions and of the quarantine. Raises: Unavailable."""
    async with reading(pool, "health") as connection:
        rows = await connection.fetch(_PARTITIONS)
        counts = await connection.fetch(_COUNTS)
    stopped = {row["partition"]: str(row["stopped"]) for row in rows if row["stopped"] is not None}
    building = [row["partition"] for row in rows if row["stopped"] is None and not row["present"]]
    parked = {row["model"]: row["keys"] for row in counts}
    return ProjectionHealth(len(rows) - len(stopped) - len(building), building, stopped, parked)


async def parked(pool: Pool) -> list[Parked]:
    """Return the aggregates in quarantine. Raises: Unavailable."""
    async with reading(pool, "quarantine") as connection:
        rows = await connection.fetch(_PARKED, MOST_PARKED)
    return [
        Parked(row["model"], Key(row["key"]), row["partition"], row["commits"], row["attempts"], row["error"])
        for row in rows
    ]
