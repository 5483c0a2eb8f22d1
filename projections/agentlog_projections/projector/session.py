"""Session of a projector: read, judge, fold, commit, announce; one transaction a batch, fenced by position.

Guard and folds are pure (`verdicts`, `thread_fold`, `run_fold`); this module owns the order of effects. A crash
costs nothing: every step before the commit is done again, and everything after it is a hint.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from agentlog_facts.decoding import key_text
from agentlog_facts.errors import BlobMissing, Unavailable, UnknownSchema
from agentlog_facts.ids import Key
from agentlog_facts.ports import Clock, EventTail, RawRecord
from agentlog_facts.system import PartitionOpened
from agentlog_postgres.connection import TRANSIENT, Connection, is_transient
from agentlog_projections.models.runs import RunsModel
from agentlog_projections.projector import ownership
from agentlog_projections.projector.announcer import Announcer, has_receiver, hint_of
from agentlog_projections.projector.assignment import rebalance
from agentlog_projections.projector.heartbeat import ProjectorHeartbeat
from agentlog_projections.projector.isolated_fold import IsolatedFold
from agentlog_projections.projector.ledger import Advance, LedgerFold, fence
from agentlog_projections.projector.ownership import Fenced, FoldedPartition
from agentlog_projections.projector.quarantine import DETERMINISTIC, LEDGER, Quarantine, execute
from agentlog_projections.projector.ready_runs import ReadyRunNotifier
from agentlog_projections.projector.repeated_faults import BATCH_TRIES, RECORD_TRIES, RepeatedFaults, takes_writes
from agentlog_projections.projector.verdicts import Judged, Known, Read, judge, read_record, size_bytes
from agentlog_projections.sql.batch import Composer, Transaction, Write
from agentlog_projections.sql.cache_shares import CACHE_BYTES, cache_shares
from agentlog_projections.sql.caught_up import NEWER_RELEASE
from agentlog_projections.sql.read_model import ReadModel

log = logging.getLogger(__name__)

MOST_BYTES = 32 * 1024 * 1024
"""A batch ends once its values have this size, blobs included."""
MOST_REASON = 500
READ_AHEAD = 200
"""A poll with at least this many records means that the fold is behind the log."""
_SQLSTATE_FENCED = "AL001"
_NO_FOLD = "its fold fails again and again, although PostgreSQL takes other writes"
_FENCED = """
SELECT CASE WHEN (SELECT count(*) FROM w0) = $1 THEN clock_timestamp() ELSE ledger.fenced() END
"""


@dataclass(frozen=True, slots=True)
class FoldSettings:
    """Settings of a projector. `owner` is unique per process; `partitions` None means a share of all.

    A projector writes a heartbeat every `look_every`; the others take it for dead when the last one is `lease` ago.
    """

    database_uri: str
    owner: str
    partitions: frozenset[int] | None = None
    max_records: int = 1_000
    patience: timedelta = timedelta(seconds=1)
    look_every: timedelta = timedelta(seconds=1)
    lease: timedelta = timedelta(seconds=4)
    first_pause: timedelta = timedelta(milliseconds=50)
    longest_pause: timedelta = timedelta(seconds=2)
    cache_bytes: int = CACHE_BYTES


@dataclass(frozen=True, slots=True)
class FoldPorts:
    """Ports of a fold. `partition_of` is the partitioner of the log."""

    tail: EventTail
    partition_of: Callable[[Key], int]
    clock: Clock
    announcer: Announcer


class ProjectorSession:
    """One session, from taking partitions to the first fault. Its caches are its own and end with it."""

    def __init__(
        self,
        connection: Connection,
        settings: FoldSettings,
        ports: FoldPorts,
        models: Sequence[ReadModel],
        runs: RunsModel,
        member: ProjectorHeartbeat | None = None,
        faults: RepeatedFaults | None = None,
    ) -> None:
        """`member` signals changes of the group; without it the group is read only every `look_every`.

        `faults` counts the faults of earlier sessions too.
        """
        self._faults = RepeatedFaults() if faults is None else faults
        self._member = member
        self._connection = connection
        self._settings = settings
        self._ports = ports
        self._models = models
        self._ledger = LedgerFold(cache_shares(settings.cache_bytes).ledger)
        self._quarantine = Quarantine()
        self._ready_runs = ReadyRunNotifier(connection, ports.announcer, runs, self._quarantine)
        self._composer = Composer()
        self._isolated = IsolatedFold(connection, models, self._quarantine, self._composer)
        self._all: frozenset[int] = frozenset()
        self._next_check_s = 0.0
        self._ahead: asyncio.Task[list[Read]] | None = None
        self._polled: deque[RawRecord] = deque()
        self._reads_ahead = False
        self.partitions: dict[int, FoldedPartition] = {}

    @property
    def behind(self) -> int:
        """Return how many records are left before every folding partition is present."""
        return sum(max(0, one.target - one.next_offset) for one in self._folding())

    async def begin(self) -> None:
        """Take our share of the partitions and seek the tail to their next records."""
        await self.end()
        self._forget()
        tail, owner = self._ports.tail, self._settings.owner
        if not self._all:
            self._all = self._settings.partitions or frozenset(await tail.ends())
        seen = await ownership.read_cluster_state(self._connection, self._settings.lease)
        todo = rebalance(owner, self._all, seen)
        if todo.give_up:
            await ownership.give_up(self._connection, todo.give_up, owner)
        before = self.partitions.keys()
        wanted = (set(seen.of(owner)) & self._all - set(todo.give_up)) | set(todo.take)
        self.partitions = await ownership.take(self._connection, sorted(wanted), owner, seen)
        await self._quarantine.load(self._connection)
        ends = await tail.ends()
        for number in self._all:
            if number in self.partitions:
                self.partitions[number].begin(ends.get(number, 0))
        await ownership.store_status(self._connection, self.partitions.values(), owner)
        for number in ends:
            one = self.partitions.get(number)
            if one is None or one.stopped is not None:
                tail.drop(number)
            else:
                tail.seek(number, one.reading)
        fields = {"owner": owner, "partitions": sorted(self.partitions), "projectors": len(seen.alive)}
        log.info("projector.took", extra={**fields, "behind": self.behind})
        usable = [one.number for one in self._folding() if one.present and one.before is None]
        await self._ready_runs.all_of([number for number in usable if number not in before])

    async def cycle(self) -> None:
        """Fold the records that have arrived; at intervals, check that the share is still ours and still fair.

        Raises: Fenced, Unavailable, TRANSIENT; then the session is over.
        """
        await self._check_share()
        await self._commit(await self._arrived())
        await self._store_stops()

    async def end(self) -> None:
        """Stop reading ahead."""
        self._polled.clear()
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def _arrived(self) -> list[Read]:
        """Return the next batch, empty if the group changes first; while the fold is behind, read one batch ahead."""
        if self._ahead is None:
            self._ahead = asyncio.create_task(self._next(), name="read ahead")
        if self._member is not None:
            either: set[asyncio.Future[list[Read]] | asyncio.Future[None]]
            either = {self._ahead, self._member.changed}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not self._ahead.done():
                return []
        reads = await self._ahead
        self._ahead = asyncio.create_task(self._next(), name="read ahead") if self._reads_ahead else None
        return reads

    async def _next(self) -> list[Read]:
        """Read the next batch; what else was polled stays undecoded until then, since values take far more memory."""
        if not self.partitions:  # other projectors fold all of them
            await asyncio.sleep(self._settings.look_every.total_seconds())
            return []
        if not self._polled:
            found = await self._ports.tail.poll(self._settings.max_records, self._settings.patience)
            self._reads_ahead, self._polled = len(found) >= READ_AHEAD, deque(found)
        return await self._read()

    def _folding(self) -> list[FoldedPartition]:
        return [one for one in self.partitions.values() if one.stopped is None]

    def _forget(self) -> None:
        self._ledger.forget()
        for model in self._models:
            model.forget()

    async def _check_share(self) -> None:
        """Check at intervals, and when the group changes, that positions were not reset and our share is fair."""
        now = self._ports.clock.monotonic()
        changed = self._member is not None and self._member.changed_since()
        if not changed and now < self._next_check_s:
            return
        self._next_check_s = now + self._settings.look_every.total_seconds()
        for one in self.partitions.values():
            if one.resume(now):
                self._polled = deque(raw for raw in self._polled if raw.place.partition != one.number)
                self._ports.tail.seek(one.number, one.reading)
        seen = await ownership.read_cluster_state(self._connection, self._settings.lease)
        ownership.check(self.partitions, self._settings.owner, seen)
        if rebalance(self._settings.owner, self._all, seen):
            await self.begin()

    async def _read(self) -> list[Read]:
        """Decode polled records that are next on their partitions, up to a batch of bounded size."""
        reads: list[Read] = []
        size = 0
        while self._polled and size < MOST_BYTES:
            raw = self._polled.popleft()
            one = self.partitions.get(raw.place.partition)
            read = await self._decode(raw, one) if one is not None and one.take(raw) else None
            if read is not None:
                reads.append(read)
                size += size_bytes(raw)
        self._reads_ahead = self._reads_ahead or bool(self._polled)
        return reads

    async def _decode(self, raw: RawRecord, one: FoldedPartition) -> Read | None:
        """Decode a record; None if its partition stops before it."""
        if self._quarantine.holds(LEDGER, key_text(raw.key)):
            return Read(raw, None, parked=True)
        offset = raw.place.offset
        try:
            return await read_record(self._ports.tail, raw, self._ports.partition_of)
        except UnknownSchema as error:
            one.stop(f"{NEWER_RELEASE} at {offset}: {error}", offset, unknown=True)
        except Unavailable as error:
            if not isinstance(error, BlobMissing) and not self._faults.read_failed(raw.place):
                raise
            one.stop_for_now(f"cannot be read at {offset}: {error}", offset, self._ports.clock.monotonic())
        return None

    async def _store_stops(self) -> None:
        """Store which partitions have stopped, and which have got past an earlier stop."""
        found = [one for one in self.partitions.values() if one.status_changed()]
        if found:
            await ownership.store_status(self._connection, found, self._settings.owner)
        for one in found:
            if one.stopped is not None:
                self._ports.tail.drop(one.number)
        await self._ready_runs.all_of([one.number for one in found if one.stopped is None and one.present])
        unknown = [one.number for one in found if one.unknown]
        if unknown and self._member is not None:  # a rebuild has no other projector
            await ownership.refuse(self._connection, unknown, self._settings.owner)
            self.partitions = {n: one for n, one in self.partitions.items() if n not in unknown}

    async def _commit(self, reads: Sequence[Read]) -> None:
        reads = [self._as_parked(one) for one in reads if self.partitions[one.raw.place.partition].folds(one.raw)]
        if not reads:
            return
        steps = self._steps(reads)
        starts = {step.partition: step.previous for step in steps}
        tries = self._faults.tries(starts)
        if tries >= BATCH_TRIES and len(reads) > 1:
            for read in reads:
                await self._commit([read])
            return
        if tries >= RECORD_TRIES:
            self._quarantine.add(reads[0].raw, _NO_FOLD)
            reads = [self._as_parked(reads[0])]
        try:
            judged, known = await self._folded(reads, steps)
        except (*DETERMINISTIC, *TRANSIENT) as error:
            if getattr(error, "sqlstate", None) == _SQLSTATE_FENCED:
                raise Fenced(str(error)) from error
            if is_transient(error):
                outage = tries >= BATCH_TRIES and not await takes_writes(
                    self._settings.database_uri, size_bytes(reads[0].raw)
                )
                self._faults.fold_failed(starts, outage=outage)
                raise
            await self._commit_around(reads, error)
            return
        self._ledger.settle(known)
        self._faults.folded(starts)
        await self._committed(steps, judged, known)

    def _as_parked(self, read: Read) -> Read:
        """Return the record without its commit if its aggregate has come into quarantine of the ledger meanwhile."""
        held = not read.parked and self._quarantine.holds(LEDGER, key_text(read.raw.key))
        return Read(read.raw, None, parked=True) if held else read

    async def _commit_around(self, reads: Sequence[Read], error: Exception) -> None:
        """Find by bisection the record that the ledger cannot hold: its partition stops, the others continue."""
        self._forget()
        if len(reads) == 1:
            place = reads[0].raw.place
            why = f"cannot be folded at {place.offset}: {type(error).__name__}: {error}"[:MOST_REASON]
            now_s = self._ports.clock.monotonic()
            self.partitions[place.partition].stop_for_now(why.replace("\x00", ""), place.offset, now_s)
            return
        half = len(reads) // 2
        await self._commit(reads[:half])
        await self._commit(reads[half:])

    async def _folded(
        self, reads: Sequence[Read], steps: Sequence[Advance]
    ) -> tuple[list[Judged], Mapping[Key, Known]]:
        try:
            return await self._fold(reads, steps)
        except DETERMINISTIC as error:
            if is_transient(error):
                raise
            return await self._fold_isolated(reads, steps, error)

    async def _fold(self, reads: Sequence[Read], steps: Sequence[Advance]) -> tuple[list[Judged], Mapping[Key, Known]]:
        """Judge and fold in memory, then write everything at once."""
        tx = Transaction(self._connection)
        known = await self._ledger.known(tx, reads)
        judged = judge(reads, known)
        tx.together.extend(fence(steps, self._settings.owner))
        self._ledger.write(tx, judged, known)
        self._quarantine.park_unjudged(tx, [read.raw for read in reads if read.parked])
        commits = [one.commit for one in judged if one.commit is not None]
        for model in self._models:
            folded, waiting = self._quarantine.split(model.name, commits)
            await model.apply(tx, folded)
            self._quarantine.park(tx, model.name, waiting)
        tx.together.append(Write(_FENCED, (len(steps),)))
        if tx.first:
            async with self._connection.transaction():
                await execute(self._connection, tx, self._composer)
        else:
            await execute(self._connection, tx, self._composer)
        return judged, known

    async def _fold_isolated(
        self, reads: Sequence[Read], steps: Sequence[Advance], error: Exception
    ) -> tuple[list[Judged], Mapping[Key, Known]]:
        """Fold again, each read model in isolation, so that only failing aggregates go to quarantine."""
        if getattr(error, "sqlstate", None) == _SQLSTATE_FENCED:
            raise error
        reason = f"{type(error).__name__}: {error}"
        log.warning("projector.fold_isolated", extra={"records": len(reads), "reason": reason})
        self._forget()
        async with self._connection.transaction():
            tx = Transaction(self._connection)
            known = await self._ledger.known(tx, reads)
            judged = judge(reads, known)
            tx.together.extend(fence(steps, self._settings.owner))
            self._ledger.write(tx, judged, known)
            self._quarantine.park_unjudged(tx, [read.raw for read in reads if read.parked])
            tx.together.append(Write(_FENCED, (len(steps),)))
            await execute(self._connection, tx, self._composer)
            await self._isolated.apply([one.commit for one in judged if one.commit is not None])
        return judged, known

    def _steps(self, reads: Sequence[Read]) -> list[Advance]:
        last: dict[int, RawRecord] = {}
        opened: dict[int, PartitionOpened] = {}
        for read in reads:
            last[read.raw.place.partition] = read.raw
            fact = None if read.draft is None or read.void is not None else read.draft.facts[0]
            if isinstance(fact, PartitionOpened):
                opened[read.raw.place.partition] = fact
        steps: list[Advance] = []
        for number, raw in last.items():
            steps.append(self.partitions[number].step(raw, opened.get(number)))
        return steps

    async def _committed(self, steps: Sequence[Advance], judged: Sequence[Judged], known: Mapping[Key, Known]) -> None:
        """Keep the new positions and announce the batch, for partitions that are present."""
        arrived: list[int] = []
        again: list[int] = []
        for step in steps:
            one = self.partitions[step.partition]
            one.advance(step)
            if step.present and not one.present:
                one.present = True
                arrived.append(step.partition)
                log.info("projector.present", extra={"partition": step.partition, "position": step.next_offset})
            elif step.present and one.before is not None:
                again.append(step.partition)
            one.before = None
        announced = [step for step in steps if step.present and step.partition not in arrived]
        if announced:
            groups: dict[int, list[Judged]] = {step.partition: [] for step in announced}
            for record in judged:
                if record.read.raw.place.partition in groups:
                    groups[record.read.raw.place.partition].append(record)
            useful = [step for step in announced if has_receiver(groups[step.partition])]
            hints = [hint_of(step.partition, step.previous - 1, groups[step.partition]) for step in useful]
            self._ports.announcer.announce(hints, [])
            commits = [one.commit for group in groups.values() for one in group if one.commit is not None]
            await self._ready_runs.after(commits, known)
        await self._ready_runs.all_of(arrived + again)
