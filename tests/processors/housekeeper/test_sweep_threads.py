"""Tests of the sweep: a log in memory under the real guard, rows folded from it, and a clock that a test moves."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from tests.fakes.memory_command_contexts import MemoryCommandContexts
from tests.fakes.memory_log import MemoryLog
from tests.fakes.memory_rows import at_once, folded
from tests.fakes.ports import CountedIds, TestClock
from tests.stack_fixtures import until

from agentlog_commands.command import Accepted
from agentlog_commands.submit import Intent, Submitter
from agentlog_facts import guard
from agentlog_facts.checkpoint import CheckpointKey, CheckpointsHidden
from agentlog_facts.envelope import ANONYMOUS, Actor, Cause, Fact
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import Key, ThreadId, stream
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import ThreadCreated, ThreadDeleted, ThreadMetadataPatched, ThreadPruned
from agentlog_processors.housekeeper.sweep_threads import SweepQueries, SweepThreads
from agentlog_processors.runs.dependencies import CommitWriter

DELETE: JsonObject = {"strategy": "delete", "ttl_minutes": 1}
KEEP: JsonObject = {"strategy": "keep_latest", "ttl_minutes": 1}
EVERY = timedelta(hours=1)


@dataclass
class World:
    """A log with threads, and housekeepers on it. `before_decision` runs once, between query and decision."""

    log: MemoryLog = field(default_factory=MemoryLog)
    clock: TestClock = field(default_factory=TestClock)
    ids: CountedIds = field(default_factory=CountedIds)
    away: int = 0
    looks: int = 0

    async def write(self, thread: str, fact: Fact, *, on: str = "thread") -> None:
        submitter = Submitter(self.log, self.log, self.log, self.clock, self.ids)
        name = stream("meta" if on == "meta" else "thread", thread)
        intent = Intent(Key(thread), self.ids.uuid7(), "0" * 64, Cause(ANONYMOUS, "c"))
        await self.log.append(submitter.draft(intent, Accepted(name, (fact,))))

    @property
    def writer(self) -> CommitWriter:
        submitter = Submitter(self.log, self.log, self.log, self.clock, self.ids)
        return CommitWriter(submitter, self.log, self.clock, self.ids, Actor("system", "housekeeper"))

    @property
    def queries(self) -> SweepQueries:
        contexts = MemoryCommandContexts(at_once(lambda: folded(self.log)))
        return SweepQueries(self.expired, contexts, self.earlier)

    def housekeeper(self, limit: int = 10, every: timedelta = EVERY) -> SweepThreads:
        return SweepThreads(self.queries, self.writer, every, limit)

    async def expired(self, now: datetime, limit: int) -> Sequence[ThreadId]:
        self.looks += 1
        if self.away:
            self.away -= 1
            raise Unavailable("the rows are away")
        rows = folded(self.log).threads.values()
        due = [row for row in rows if row.deleted_at is None and row.expires_at is not None and row.expires_at <= now]
        return [ThreadId(row.thread_id) for row in due][:limit]

    async def earlier(self, thread_id: ThreadId) -> Sequence[CheckpointKey]:
        return [CheckpointKey(thread_id, "", "c1")]

    def swept(self, kind: type[Fact]) -> list[str]:
        """Return the threads with an accepted fact of this type by the housekeeper."""
        return [
            draft.key
            for draft, verdict in self.log.rows
            if isinstance(verdict, guard.Accepted)
            and draft.cause.actor == Actor("system", "housekeeper")
            and any(type(fact) is kind for fact in draft.facts)
        ]


async def with_threads(**ttls: JsonObject | None) -> World:
    world = World()
    for name, ttl in ttls.items():
        await world.write(name, ThreadCreated(ThreadId(name), {}, ttl=ttl))
    return world


async def test_threads_go_by_their_strategy_once_their_time_is_over() -> None:
    world = await with_threads(a=DELETE, b=KEEP, c=None)
    duty = world.housekeeper()
    world.clock.seconds = 59
    assert await duty.sweep() == 0
    world.clock.seconds = 61
    assert await duty.sweep() == 2
    assert (world.swept(ThreadDeleted), world.swept(ThreadPruned), world.swept(CheckpointsHidden)) == (
        ["a"],
        ["b"],
        ["b"],
    )
    world.clock.seconds = 1000
    assert await duty.sweep() == 0


async def test_an_update_begins_the_time_again() -> None:
    world = await with_threads(a=DELETE)
    world.clock.seconds = 50
    await world.write("a", ThreadMetadataPatched(ThreadId("a"), {"x": 1}), on="meta")
    world.clock.seconds = 70
    assert await world.housekeeper().sweep() == 0
    world.clock.seconds = 111
    assert await world.housekeeper().sweep() == 1


async def test_two_housekeepers_sweep_each_thread_once() -> None:
    world = await with_threads(**{f"t{number}": DELETE if number % 2 else KEEP for number in range(20)})
    world.clock.seconds = 61
    done = await asyncio.gather(*(world.housekeeper(limit=100).sweep() for _ in range(3)))
    assert sum(done) == 20
    assert sorted([*world.swept(ThreadDeleted), *world.swept(ThreadPruned)]) == sorted(f"t{n}" for n in range(20))


async def test_a_thread_that_is_updated_behind_the_query_stays() -> None:
    world = await with_threads(a=DELETE)
    world.clock.seconds = 61
    stale = await world.expired(world.clock.now(), 10)
    await world.write("a", ThreadMetadataPatched(ThreadId("a"), {"x": 1}), on="meta")

    async def found_before(now: datetime, limit: int) -> Sequence[ThreadId]:
        return stale

    late = SweepThreads(replace(world.queries, expired=found_before), world.writer, EVERY, 10)
    assert (stale, await late.sweep()) == (["a"], 0)


async def test_one_sweep_takes_no_more_than_its_limit() -> None:
    world = await with_threads(**{f"t{number}": DELETE for number in range(5)})
    world.clock.seconds = 61
    assert [await world.housekeeper(limit=2).sweep() for _ in range(4)] == [2, 2, 1, 0]


async def test_the_duty_goes_on_after_an_outage_and_stops_at_once() -> None:
    world = await with_threads(a=DELETE)
    world.clock.seconds, world.away = 61, 1
    stop = asyncio.Event()
    running = asyncio.create_task(world.housekeeper(every=timedelta(milliseconds=1)).run(stop))
    await until(lambda: bool(world.swept(ThreadDeleted)), within_secs=10)
    stop.set()
    async with asyncio.timeout(10):
        await running
    assert world.looks >= 2
