"""Decides who folds which partition, from where, and whether it is still the same log.

A projector folds the partitions whose advisory lock it holds; a lock goes with its connection, so a dead projector
never keeps one. `positions.owner` fences what a paused one may still send.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from agentlog_facts.errors import Unavailable
from agentlog_facts.ports import RawRecord
from agentlog_projections.database import Connection
from agentlog_projections.ledger import digest

log = logging.getLogger(__name__)

LOCK_SECS = 60.0
"""How long a projector that runs may take to let go of its partitions."""
LOCKS = 0x61676C70
"""First half of the advisory lock keys, the second is the partition."""
RESUMABLE = 1_000
"""A partition that was present, and is at most so many records behind at a restart, stays present: nothing of it is
folded anew. More than that is a restored or long forgotten database."""

_LOCK = "SELECT p FROM unnest($1::int[]) AS p WHERE pg_try_advisory_lock($2, p) ORDER BY p"
_WAIT_FOR_LOCK = "SELECT pg_advisory_lock($2, p) FROM unnest($1::int[]) AS p"
_TAKE = """
INSERT INTO ledger.positions AS p (partition, owner) SELECT n, $2 FROM unnest($1::int[]) AS n
ON CONFLICT (partition) DO UPDATE SET owner = excluded.owner, stopped = NULL
RETURNING partition, next_offset, digest, present
"""
_SAY = """
UPDATE ledger.positions p SET present = n.present, stopped = n.stopped
  FROM unnest($1::int[], $2::bool[], $3::text[]) AS n(partition, present, stopped)
 WHERE p.partition = n.partition AND p.owner = $4
"""
_LOOK = "SELECT partition, next_offset FROM ledger.positions WHERE owner = $1"


class Fenced(Unavailable):
    """Somebody else folds these partitions now, or their positions were reset: what is remembered counts no more."""

    code = "fenced"


@dataclass(slots=True)
class Partition:
    """A partition that this projector folds; `target` is the log's end as seen at the start.

    `reading` is the offset of the next record to take from the tail; `verifying` while that one was folded before and
    is read again to see whether it is still the same.
    """

    number: int
    next_offset: int
    digest: str | None
    present: bool
    target: int = 0
    reading: int = 0
    verifying: bool = False
    stopped: str | None = None

    def begin(self, end: int) -> None:
        """Place the partition before a log that ends at `end` now."""
        self.target, self.verifying = end, self.next_offset > 0 and self.digest is not None
        self.reading = self.next_offset - self.verifying
        behind = end - self.next_offset
        self.present = behind <= 0 or (self.present and behind <= RESUMABLE)
        if behind < 0:
            self.stopped = f"log diverged: expected a record at {self.next_offset - 1}, the log ends at {end}"

    def take(self, raw: RawRecord) -> bool:
        """Tell whether the record is the next one to fold; a record that should not be there stops the partition."""
        offset = raw.place.offset
        if self.stopped is not None or offset < self.reading:
            return False
        if offset > self.reading:
            self.stopped = f"log diverged: expected a record at {self.reading}, found {offset}"
            return False
        self.reading = offset + 1
        if self.verifying:
            self.verifying = False
            if digest(raw) != self.digest:
                self.stopped = f"log diverged: the record at {offset} is not the one that was folded"
            return False
        return True


async def lock(connection: Connection, partitions: Collection[int]) -> list[int]:
    """Lock the partitions that are free and return them."""
    return [row["p"] for row in await connection.fetch(_LOCK, sorted(partitions), LOCKS)]


async def take(connection: Connection, partitions: Sequence[int], owner: str) -> dict[int, Partition]:
    """Become the owner of locked partitions and return how far they are folded."""
    rows = await connection.fetch(_TAKE, partitions, owner)
    return {row["partition"]: _partition(row) for row in sorted(rows, key=lambda row: int(row["partition"]))}


def _partition(row: asyncpg.Record) -> Partition:
    return Partition(row["partition"], row["next_offset"], row["digest"], row["present"])


async def say(connection: Connection, partitions: Collection[Partition], owner: str) -> None:
    """Store which partitions are present and which are stopped, and why."""
    numbers, present = [one.number for one in partitions], [one.present for one in partitions]
    await connection.execute(_SAY, numbers, present, [one.stopped for one in partitions], owner)
    for one in partitions:
        if one.stopped is not None:
            log.error("projector.partition_stopped", extra={"partition": one.number, "reason": one.stopped})


async def look(connection: Connection, partitions: Mapping[int, Partition], owner: str) -> None:
    """See whether the positions are still as we left them. Raises: Fenced."""
    found = {row["partition"]: row["next_offset"] for row in await connection.fetch(_LOOK, owner)}
    for number, one in partitions.items():
        if found.get(number) != one.next_offset:
            raise Fenced(f"partition {number}: expected position {one.next_offset} as mine, found {found.get(number)}")


async def fence_off(connection: Connection, partitions: Collection[int], owner: str) -> None:
    """Make whoever folds these partitions let go, and lock them; waits until it has. Its next transaction fails."""
    if await connection.fetchval("SELECT to_regclass('ledger.positions')") is not None:
        sql = "UPDATE ledger.positions SET owner = $2 WHERE partition = ANY($1::int[])"
        await connection.execute(sql, sorted(partitions), owner)
    await connection.execute(_WAIT_FOR_LOCK, sorted(partitions), LOCKS, timeout=LOCK_SECS)
