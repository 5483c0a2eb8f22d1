"""Ownership of partitions: which projector folds which one, from where, and whether it is still the same log.

`positions.owner` names the projector that folds a partition, and every transaction demands it together with the
position: a projector that was replaced writes nothing, also if it has not noticed. Heartbeats (`heartbeat`) affect only
which projector takes which partition.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

import asyncpg

from agentlog_facts.back_off import back_off
from agentlog_facts.errors import Unavailable
from agentlog_facts.ports import RawRecord
from agentlog_facts.system import PartitionOpened
from agentlog_postgres.connection import Connection
from agentlog_projections import timeouts
from agentlog_projections.projector.assignment import ClusterState, PartitionOwner, Rebuild
from agentlog_projections.projector.heartbeat import NOTIFY
from agentlog_projections.projector.ledger import MARK, Advance, digest
from agentlog_projections.sql.caught_up import DIVERGED

log = logging.getLogger(__name__)

LOCKS = 0x61676C70
REBUILD = 1
"""The two halves of the advisory lock of a rebuild in place; while it is held, no projector folds."""
RESUMABLE = 1_000
"""A present partition that is at most this many records behind at a restart stays present. A larger distance means a
restored or long unused database."""

NOWHERE = -1
"""Offset of the next record of a partition that is no longer read."""

_ALIVE = """
SELECT array(SELECT m.owner
               FROM ledger.projectors m
               JOIN pg_stat_activity a ON a.pid = m.backend AND a.backend_start = m.backend_start
              WHERE m.seen_at > clock_timestamp() - $1::interval
              ORDER BY m.owner) AS alive,
       (SELECT pid = pg_backend_pid()
          FROM pg_locks
         WHERE locktype = 'advisory' AND granted
           AND classid = $2::bigint::oid AND objid = $3::bigint::oid AND objsubid = 2
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS rebuild_is_mine
"""
_OWNED = """
SELECT partition, owner, next_offset, stopped IS NOT NULL AS stopped,
       array(SELECT m.owner FROM ledger.projectors m WHERE p.partition = ANY(m.refused)) AS refused_by
  FROM ledger.positions p
"""
_TAKE = """
INSERT INTO ledger.positions AS p (partition, owner) SELECT n, $2 FROM unnest($1::int[]) AS n
ON CONFLICT (partition) DO UPDATE SET owner = excluded.owner
 WHERE $4 OR p.owner IS NULL OR p.owner = excluded.owner OR p.owner = ANY($3::text[])
RETURNING partition, next_offset, digest, present, stopped,
          EXISTS (SELECT FROM ledger.crash_marks m WHERE m.partition = p.partition) AS marked
"""
_GIVE_UP = "UPDATE ledger.positions SET owner = NULL WHERE partition = ANY($1::int[]) AND owner = $2"
_REFUSE = """
WITH refused AS (UPDATE ledger.projectors SET refused = ARRAY(SELECT DISTINCT unnest(refused || $1::int[]))
                  WHERE owner = $2)
UPDATE ledger.positions SET owner = NULL WHERE partition = ANY($1::int[]) AND owner = $2
"""
_LOCK = "SELECT pg_advisory_lock($1, $2)"
_REBUILDS: Mapping[bool | None, Rebuild] = {None: "none", True: "mine", False: "other"}
_SAY = """
UPDATE ledger.positions p SET present = n.present, stopped = n.stopped
  FROM unnest($1::int[], $2::bool[], $3::text[]) AS n(partition, present, stopped)
 WHERE p.partition = n.partition AND p.owner = $4
"""


class Fenced(Unavailable):
    """Another process folds these partitions now, or their positions were reset: caches are invalid."""

    code = "fenced"


@dataclass(slots=True)
class FoldedPartition:
    """A partition that this projector folds; `target` is the log's end as seen at the start.

    `reading` is the offset of the next record to take from the tail. `verifying`: that record was folded before and is
    read again, to check that it is the same. `stopped` is the reason why no more records are folded; `unknown`: a newer
    release may continue; `again_at_s`: when this projector reads the record again, after `tries` earlier ones. `before`
    is the reason of an earlier stop: the row still shows it, and the partition is not usable, until the next record is
    folded or the partition is known to be at the end of the log. `marked`: no crash of PostgreSQL has taken rows back
    since they were complete. `reverted`: one may have; the row stays present, so that no connection for reads is opened
    (`caught_up.require_no_reverted_rows`), until everything up to `target` is folded.
    """

    number: int
    next_offset: int
    digest: str | None
    present: bool
    target: int = 0
    reading: int = 0
    verifying: bool = False
    stopped: str | None = None
    unknown: bool = False
    before: str | None = None
    tries: int = 0
    again_at_s: float | None = None
    marked: bool = False
    reverted: bool = False

    def begin(self, end: int) -> None:
        """Set the offsets to read from, for a log that ends at `end` now."""
        self.target, self.verifying = end, self.next_offset > 0 and self.digest is not None
        self.reading = self.next_offset - self.verifying
        behind = end - self.next_offset
        was_present = self.present
        self.present = behind <= 0 or (was_present and self.marked and behind <= RESUMABLE)
        self.reverted = was_present and not self.marked and not self.present
        if behind < 0:
            self.reading = NOWHERE
            self.stopped = f"{DIVERGED}: expected a record at {self.next_offset - 1}, the log ends at {end}"

    def stop(self, why: str, at: int, *, unknown: bool = False) -> None:
        """Stop folding at offset `at`; records that were read before it are still folded."""
        self.stopped, self.unknown, self.reading = why, unknown, max(at, self.next_offset)

    def stop_for_now(self, why: str, at: int, now_s: float) -> None:
        """Stop at offset `at`, and try its record again later, after a pause that grows with every try."""
        self.stop(why, at)
        pauses = back_off(timeouts.STOP_FIRST_PAUSE_S, timeouts.STOP_LONGEST_PAUSE_S)
        self.again_at_s = now_s + next(islice(pauses, self.tries, None))
        self.tries += 1

    def resume(self, now_s: float) -> bool:
        """Tell whether it is time to read the record of a stop again; if so, the partition continues there."""
        if self.again_at_s is None or now_s < self.again_at_s or self.reading != NOWHERE:
            return False
        self.before, self.stopped, self.again_at_s = self.stopped, None, None
        self.reading = self.next_offset
        return True

    def step(self, last: RawRecord, opened: PartitionOpened | None) -> Advance:
        """Return the progress by a batch that ends with the record `last`."""
        end = last.place.offset + 1
        present = self.present or end >= self.target
        usable = present and not (self.present and self.marked and self.before is None)
        return Advance(self.number, self.next_offset, end, last, present, usable, opened)

    def advance(self, step: Advance) -> None:
        """Note that a batch is folded."""
        self.next_offset, self.tries, self.marked = step.next_offset, 0, self.marked or step.usable

    def status_changed(self) -> bool:
        """Tell, once, whether the row must change: the records before a stop are folded, or an earlier stop is over."""
        if self.reading != self.next_offset:
            return False
        if self.stopped is not None:
            self.reading = NOWHERE
        elif self.before is None or self.next_offset < self.target:
            return False
        self.before = None
        return True

    def take(self, raw: RawRecord) -> bool:
        """Tell whether the record is the next one to fold; a record that should not be there stops the partition."""
        offset = raw.place.offset
        if self.stopped is not None or offset < self.reading:
            return False
        if offset > self.reading:
            self.stop(f"{DIVERGED}: expected a record at {self.reading}, found {offset}", self.reading)
            return False
        self.reading = offset + 1
        if self.verifying:
            self.verifying = False
            if digest(raw) != self.digest:
                self.stopped = f"{DIVERGED}: the record at {offset} is not the one that was folded"
            return False
        return True

    def folds(self, raw: RawRecord) -> bool:
        """Tell whether a taken record comes before the offset at which the partition has stopped since."""
        return self.stopped is None or raw.place.offset < self.reading


async def read_cluster_state(connection: Connection, lease: timedelta) -> ClusterState:
    """Return the projectors with a heartbeat within `lease`, and the owners of partitions."""
    found = await connection.fetchrow(_ALIVE, lease, LOCKS, REBUILD)
    if found is None:
        raise TypeError("expected one row from a query without FROM, found none")
    owned = {row["partition"]: _owned(row) for row in await connection.fetch(_OWNED)}
    return ClusterState(tuple(found["alive"]), owned, _REBUILDS[found["rebuild_is_mine"]])


def _owned(row: asyncpg.Record) -> PartitionOwner:
    return PartitionOwner(row["owner"], row["next_offset"], row["stopped"], frozenset(row["refused_by"]))


async def take(
    connection: Connection, partitions: Sequence[int], owner: str, seen: ClusterState
) -> dict[int, FoldedPartition]:
    """Take ownership of partitions and return their state, without those that another live projector owns now."""
    force = seen.rebuild == "mine"
    rows = await connection.fetch(_TAKE, sorted(partitions), owner, seen.dead(), force)
    return {row["partition"]: _partition(row) for row in sorted(rows, key=lambda row: int(row["partition"]))}


async def give_up(connection: Connection, partitions: Sequence[int], owner: str) -> None:
    """Release partitions and notify the other projectors."""
    await connection.execute(_GIVE_UP, partitions, owner)
    await connection.execute(NOTIFY, owner)


async def refuse(connection: Connection, partitions: Sequence[int], owner: str) -> None:
    """Release partitions with an unknown schema, for as long as this projector lives; notify the others."""
    await connection.execute(_REFUSE, partitions, owner)
    await connection.execute(NOTIFY, owner)


def _partition(row: asyncpg.Record) -> FoldedPartition:
    position = row["next_offset"], row["digest"], row["present"]
    return FoldedPartition(row["partition"], *position, before=row["stopped"], marked=row["marked"])


async def store_status(connection: Connection, partitions: Collection[FoldedPartition], owner: str) -> None:
    """Store which partitions are present and which are stopped, and why; mark those that are usable."""
    numbers, present = [one.number for one in partitions], [one.present or one.reverted for one in partitions]
    usable = [one for one in partitions if one.present and one.stopped is None and one.before is None]
    async with connection.transaction():
        await connection.execute(_SAY, numbers, present, [one.stopped or one.before for one in partitions], owner)
        if usable:
            await connection.execute(MARK, [one.number for one in usable])
    for one in usable:
        one.marked = True
    for one in partitions:
        if one.stopped is not None:
            log.error("projector.partition_stopped", extra={"partition": one.number, "reason": one.stopped})


def check(partitions: Mapping[int, FoldedPartition], owner: str, seen: ClusterState) -> None:
    """Check that owner and position of each partition are unchanged. Raises: Fenced."""
    for number, one in partitions.items():
        found = seen.owned.get(number)
        if found is None or (found.owner, found.next_offset) != (owner, one.next_offset):
            raise Fenced(f"partition {number}: expected position {one.next_offset} as {owner}, found {found}")


async def fence_off(connection: Connection, partitions: Collection[int], owner: str) -> None:
    """Lock projectors out for as long as the connection lives, and take these partitions from their owners.

    Transactions in progress commit or fail; their projectors write nothing afterwards. A second rebuild waits.
    """
    await connection.execute(_LOCK, LOCKS, REBUILD, timeout=timeouts.REBUILD_LOCK_S)
    if await connection.fetchval("SELECT to_regclass('ledger.positions')") is not None:
        sql = "UPDATE ledger.positions SET owner = $2 WHERE partition = ANY($1::int[])"
        await connection.execute(sql, sorted(partitions), owner)
