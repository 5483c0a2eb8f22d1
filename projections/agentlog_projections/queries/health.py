"""Health of the projection: partitions that are folded, being built or stopped, and quarantined aggregates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

from agentlog_facts.decoding import key_text
from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import Corrupt
from agentlog_facts.ids import Key
from agentlog_facts.ports import EventRecords
from agentlog_facts.topics import EVENTS
from agentlog_postgres.connection import Pool, reading
from agentlog_projections import timeouts
from agentlog_projections.sql.caught_up import NEWER_RELEASE

MOST_PARKED = 1_000
"""The most aggregates that `parked` returns; `health` counts all."""

_PARTITIONS = """
SELECT partition, next_offset, present, stopped, clock_timestamp() AS now, moved_at
  FROM ledger.positions ORDER BY partition
"""
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

    `parked` counts the aggregates in quarantine by read model. `behind` counts the records that wait, by partition, for
    partitions with any. `stalled` has the partitions that make no progress although nothing has stopped them.
    `positions` has the offset of the next record of each partition.
    """

    present: int
    building: Sequence[int]
    stopped: Mapping[int, str]
    parked: Mapping[str, int]
    behind: Mapping[int, int] = field(default_factory=dict[int, int])
    stalled: Mapping[int, str] = field(default_factory=dict[int, str])
    positions: Mapping[int, int] = field(default_factory=dict[int, int])

    @property
    def without_progress(self) -> Mapping[int, str]:
        """Return the partitions that need an operator, with the reasons.

        A record of a newer release is no such reason: in a rolling upgrade, a projector of that release continues.
        """
        stopped = {number: why for number, why in self.stopped.items() if not why.startswith(NEWER_RELEASE)}
        return {**stopped, **self.stalled}


@dataclass(frozen=True, slots=True)
class StuckRecord:
    """The record at which a partition without progress stands. `key` is the key of its aggregate."""

    topic: str
    partition: int
    offset: int
    key: str
    error: str


async def health(pool: Pool, log: EventRecords | None = None) -> ProjectionHealth:
    """Return the state of all partitions and of the quarantine. Raises: Unavailable.

    Without the log, `behind` and `stalled` are empty: nobody knows how many records wait.
    """
    async with reading(pool, "health") as connection:
        rows = await connection.fetch(_PARTITIONS)
        counts = await connection.fetch(_COUNTS)
    stopped = {row["partition"]: str(row["stopped"]) for row in rows if row["stopped"] is not None}
    building = [row["partition"] for row in rows if row["stopped"] is None and not row["present"]]
    ends: Mapping[int, int] = {} if log is None else await log.ends()
    positions = {row["partition"]: int(row["next_offset"]) for row in rows}
    behind = {number: end - positions.get(number, 0) for number, end in ends.items() if end > positions.get(number, 0)}
    waiting = [row for row in rows if log is not None and row["partition"] in behind and row["stopped"] is None]
    reasons = {row["partition"]: await _stalled(row, behind[row["partition"]], log) for row in waiting if log}
    return ProjectionHealth(
        len(rows) - len(stopped) - len(building),
        building,
        stopped,
        {row["model"]: row["keys"] for row in counts},
        behind,
        {number: why for number, why in reasons.items() if why is not None},
        positions,
    )


async def _stalled(row: asyncpg.Record, behind: int, log: EventRecords) -> str | None:
    """Return why a partition makes no progress, None if it makes some. Raises: Unavailable."""
    now, idle = row["now"], row["now"] - row["moved_at"]
    if idle.total_seconds() < timeouts.STALLED_S:
        return None
    try:  # the partition may have been idle, and the record may have come just now
        waiting = now - (await log.raw(LogPosition(row["partition"], row["next_offset"]))).timestamp
    except Corrupt:
        waiting = idle
    if waiting.total_seconds() < timeouts.STALLED_S:
        return None
    since_s = min(idle, waiting).total_seconds()
    return f"no progress for {since_s:.0f} s at offset {row['next_offset']}, {behind} records behind"


async def stuck(pool: Pool, log: EventRecords) -> list[StuckRecord]:
    """Return the records at which partitions without progress stand. Raises: Unavailable."""
    found = await health(pool, log)
    errors = {**found.stalled, **found.stopped}
    async with reading(pool, "positions") as connection:
        rows = await connection.fetch(_PARTITIONS)
    offsets = {row["partition"]: int(row["next_offset"]) for row in rows}
    return [await _stuck(log, number, offsets[number], errors[number]) for number in sorted(errors)]


async def _stuck(log: EventRecords, partition: int, offset: int, error: str) -> StuckRecord:
    try:
        key = key_text((await log.raw(LogPosition(partition, offset))).key)
    except Corrupt:  # the log is another one
        key = ""
    return StuckRecord(EVENTS, partition, offset, key, error)


async def parked(pool: Pool) -> list[Parked]:
    """Return the aggregates in quarantine. Raises: Unavailable."""
    async with reading(pool, "quarantine") as connection:
        rows = await connection.fetch(_PARKED, MOST_PARKED)
    return [
        Parked(row["model"], Key(row["key"]), row["partition"], row["commits"], row["attempts"], row["error"])
        for row in rows
    ]
