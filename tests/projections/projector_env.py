"""Environment of the tests of projections: a log in memory, a database per test, and a projector over both."""

import asyncio
import hashlib
import time
import zlib
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count

import asyncpg

from agentlog_facts.envelope import Actor, Cause, Demand, Draft, Fact, LogPosition
from agentlog_facts.errors import AgentlogError, Corrupt, Unavailable, UnknownSchema
from agentlog_facts.guard import Verdict
from agentlog_facts.ids import Key, RunId, Stream
from agentlog_facts.notification import Hint
from agentlog_facts.ports import RawRecord
from agentlog_facts.vocabulary import decode_commit, encode_commit, encode_facts, parse_commit
from agentlog_infra.postgres.migrate import Tables, upgrade
from agentlog_postgres.connection import Pool, open_pool
from agentlog_projections.models.registry import TYPES, read_models
from agentlog_projections.models.runs import RunsModel
from agentlog_projections.projector.announcer import Announcer
from agentlog_projections.projector.ledger import Ledger
from agentlog_projections.projector.projector import Projector
from agentlog_projections.projector.session import FoldPorts, FoldSettings
from agentlog_projections.queries.health import parked
from agentlog_projections.sql.caught_up import PartitionCatchUp
from agentlog_projections.sql.read_model import ReadModel

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
DEADLINE_S = 20.0
_numbers = count()

TABLES = [Tables(model.name, model.version, model.ddl) for model in TYPES]


def draft(
    key: str,
    *facts: Fact,
    stream: str | None = None,
    demands: Mapping[Stream, Demand] | None = None,
    epoch: int | None = None,
    event_id: str | None = None,
    body: str = "body",
) -> Draft:
    """Return a commit, dated one second after the previous one."""
    number = next(_numbers)
    return Draft(
        key=Key(key),
        stream=Stream(stream or f"thread-{key}"),
        event_id=event_id or f"event-{number}",
        append_id=f"append-{number}",
        body_sha256=body,
        facts=facts,
        occurred_at=START + timedelta(seconds=number),
        cause=Cause(Actor("user", "ana"), correlation_id="request-1"),
        demands=demands or {},
        epoch=epoch,
    )


@dataclass(repr=False)
class MemoryTail:
    """Implements `ports.EventTail` over lists of records."""

    partitions: int = 2
    records: dict[int, list[tuple[bytes | None, bytes | None]]] = field(
        default_factory=lambda: defaultdict[int, list[tuple[bytes | None, bytes | None]]](list)
    )
    positions: dict[int, int] = field(default_factory=dict[int, int])
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    unknown: set[str] = field(default_factory=set[str])
    faults: dict[str, AgentlogError] = field(default_factory=dict[str, AgentlogError])
    readers: "list[MemoryTail]" = field(default_factory=lambda: list[MemoryTail]())
    away: bool = False

    def reader(self, unknown: set[str] | None = None) -> "MemoryTail":
        """Return another tail of the same records, one per projector; it cannot decode the event ids in `unknown`."""
        made = MemoryTail(
            self.partitions, self.records, unknown=self.unknown if unknown is None else unknown, faults=self.faults
        )
        self.readers.append(made)
        return made

    def partition_of(self, key: Key) -> int:
        return zlib.crc32(key.encode()) % self.partitions

    def append(self, commit: Draft, partition: int | None = None) -> LogPosition:
        return self.put(commit.key.encode(), encode_commit(commit, encode_facts(commit)), partition)

    def put(self, key: bytes, value: bytes | None, partition: int | None = None) -> LogPosition:
        number = self.partition_of(Key(key.decode(errors="replace"))) if partition is None else partition
        self.records[number].append((key, value))
        for tail in self.readers:
            tail.arrived.set()
        return LogPosition(number, len(self.records[number]) - 1)

    def seek(self, partition: int, offset: int) -> None:
        self.positions[partition] = offset
        self.arrived.set()

    def drop(self, partition: int) -> None:
        self.positions.pop(partition, None)

    async def poll(self, max_records: int, patience: timedelta) -> Sequence[RawRecord]:
        found = self._take(max_records)
        if not found:
            self.arrived.clear()
            try:
                await asyncio.wait_for(self.arrived.wait(), patience.total_seconds())
            except TimeoutError:
                return []
            found = self._take(max_records)
        return found

    def _take(self, most: int) -> list[RawRecord]:
        found: list[RawRecord] = []
        for partition, position in self.positions.items():
            records = self.records[partition][position : position + most - len(found)]
            for offset, (key, value) in enumerate(records, position):
                found.append(
                    RawRecord(LogPosition(partition, offset), key, value, START + timedelta(milliseconds=offset))
                )
            self.positions[partition] = position + len(records)
        return found

    async def ends(self) -> Mapping[int, int]:
        self._require()
        return {number: len(self.records[number]) for number in range(self.partitions)}

    async def resolve(self, raw: RawRecord) -> Draft:
        if raw.key is None or raw.value is None:
            raise Corrupt("record without key or value")
        try:
            commit = decode_commit(raw.key.decode(), parse_commit(raw.value))
        except UnicodeDecodeError as error:
            raise Corrupt("key is not UTF-8") from error
        if commit.event_id in self.unknown:
            raise UnknownSchema(f"{commit.event_id}: from the future")
        if commit.event_id in self.faults:
            raise self.faults[commit.event_id]
        return commit

    def _require(self) -> None:
        if self.away:
            raise Unavailable("the log does not answer")

    async def raw(self, place: LogPosition) -> RawRecord:
        self._require()
        key, value = self.records[place.partition][place.offset]
        return RawRecord(place, key, value, START)


@dataclass
class MemoryFeed:
    """Implements the methods of `HintFeed` and `RunQueue` that a projector calls, and records the calls."""

    hints: list[Hint] = field(default_factory=list[Hint])
    pushed: list[tuple[str, RunId]] = field(default_factory=list[tuple[str, RunId]])
    on_hint: Callable[[Hint], None] | None = None
    away: bool = False

    async def publish(self, hints: Sequence[Hint]) -> None:
        for hint in hints:
            self.hints.append(hint)
            if self.on_hint is not None:
                self.on_hint(hint)

    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        raise NotImplementedError

    async def push(self, queue: str, run_ids: Sequence[RunId]) -> None:
        if self.away:
            raise Unavailable("the queue is away")
        self.pushed.extend((queue, run_id) for run_id in run_ids)

    async def pop(self, queues: Sequence[str], patience: timedelta) -> RunId | None:
        raise NotImplementedError

    async def queued(self, queue: str) -> frozenset[RunId]:
        raise NotImplementedError

    async def renew_lease(self, run_id: RunId, epoch: int, worker: str, ttl: timedelta) -> None:
        raise NotImplementedError

    async def leased(self, claims: Sequence[tuple[RunId, int]]) -> Sequence[bool]:
        raise NotImplementedError

    async def instance(self) -> str:
        raise NotImplementedError


class WallClock:
    """The real clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(repr=False)
class ProjectorEnv:
    """One test's database, log and feed. `fold` starts a projector and stops it once everything is folded."""

    uri: str
    pool: Pool
    log: MemoryTail = field(default_factory=MemoryTail)
    feed: MemoryFeed = field(default_factory=MemoryFeed)
    settings: FoldSettings = field(init=False)

    def __post_init__(self) -> None:
        self.settings = FoldSettings(
            self.uri,
            "projector-1",
            patience=timedelta(milliseconds=50),
            look_every=timedelta(milliseconds=50),
            first_pause=timedelta(milliseconds=10),
        )

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.pool)

    def append(self, *drafts: Draft) -> list[LogPosition]:
        return [self.log.append(one) for one in drafts]

    @asynccontextmanager
    async def projector(
        self,
        models: tuple[Sequence[ReadModel], RunsModel] | None = None,
        tail: MemoryTail | None = None,
        **changed: object,
    ) -> "AsyncGenerator[Projector]":
        """Run a projector for the length of the block; its own errors fail the test."""
        announcer = Announcer(self.feed, self.feed)
        ports = FoldPorts(tail or self.log.reader(), self.log.partition_of, WallClock(), announcer)
        chosen, runs = models or read_models()
        projector = Projector(replace(self.settings, **changed), ports, chosen, runs)  # type: ignore[arg-type]  # names of settings
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(projector.run()), group.create_task(announcer.run())]
            yield projector
            for task in tasks:
                task.cancel()

    async def folded(self) -> None:
        """Wait until everything on the log is folded."""
        await self.until(self._is_folded)

    async def _is_folded(self) -> bool:
        try:
            rows = await self.pool.fetch("SELECT partition, next_offset, stopped FROM ledger.positions")
        except asyncpg.PostgresError:
            return False
        found = {row["partition"]: row["next_offset"] for row in rows if row["stopped"] is None}
        return all(found.get(number) == end for number, end in (await self.log.ends()).items())

    async def until(self, condition: "Callable[[], object]", what: str = "") -> None:
        """Poll a condition until it holds; fail at the deadline."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            result = condition()
            if await result if asyncio.iscoroutine(result) else result:
                return
            await asyncio.sleep(0.002)
        raise AssertionError(f"not within {DEADLINE_S} s: {what or condition}")

    async def given(self, *drafts: Draft) -> list[Verdict]:
        """Append, fold, and return the verdicts."""
        places = self.append(*drafts)
        async with self.projector():
            await self.folded()
        return [await self.verdict(place) for place in places]

    async def verdict(self, place: LogPosition) -> Verdict:
        found = await self.ledger.at([place])
        assert found, f"{place} is not projected"
        return found[0].verdict

    async def caught_up(self, partition: int) -> bool:
        """Tell whether the rows of a partition are authoritative."""
        return (await PartitionCatchUp(self.pool).caught_up()).get(partition, False)

    async def parked(self) -> list[tuple[str, str]]:
        """Return the aggregates in quarantine, with their read models."""
        return [(one.model, one.key) for one in await parked(self.pool)]

    async def dump(self) -> dict[str, str]:
        """Return a digest of the rows of every table, in order of their text, without owners and presence."""
        tables = [f"read_v1.{table}" for model in TYPES for table in model.tables]
        asked = {table: f"SELECT t::text FROM {table} t ORDER BY 1" for table in (*tables, "ledger.log_index")}
        asked["ledger.heads"] = "SELECT h::text FROM ledger.heads h ORDER BY 1"
        asked["ledger.positions"] = (
            "SELECT (partition, next_offset, digest, log_id)::text FROM ledger.positions ORDER BY 1"
        )
        found = {table: "\n".join(row[0] for row in await self.pool.fetch(sql)) for table, sql in asked.items()}
        return {table: f"{len(text)} {hashlib.sha256(text.encode()).hexdigest()}" for table, text in found.items()}

    async def reset(self) -> None:
        """Empty every table, so that the next projector folds from the first record."""
        tables = [f"read_v1.{table}" for model in TYPES for table in model.tables]
        ledger = ("positions", "heads", "log_index", "quarantine", "projectors", "crash_marks")
        await self.pool.execute(";".join(f"DELETE FROM {t}" for t in [*tables, *(f"ledger.{one}" for one in ledger)]))


async def ask(server: str, sql: str) -> None:
    """Execute one statement in the database `postgres` of a server."""
    admin = await asyncpg.connect(server)
    try:
        await admin.execute(sql)
    finally:
        await admin.close()


def database_uri(server: str, name: str) -> str:
    return server.replace("/postgres?", f"/{name}?")


def migrated_database(server: str, name: str) -> str:
    """Create a database with all tables and return its address; call it outside of an event loop."""
    uri = database_uri(server, name)
    asyncio.run(upgrade(uri, TABLES))
    return uri


@asynccontextmanager
async def env_in(uri: str) -> "AsyncGenerator[ProjectorEnv]":
    """Yield an environment over a migrated database, emptied first."""
    pool = await open_pool(uri, 4)
    try:
        env = ProjectorEnv(uri, pool)
        await env.reset()
        yield env
    finally:
        await pool.close()
