"""Fixture environment of a reaper: a log in memory under the real guard, rows folded from it, and no leases."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from tests.contracts.memory_frames import MemoryFrames
from tests.facts.commits import commit
from tests.fakes.memory_log import MemoryLog
from tests.fakes.memory_rows import at_once, folded
from tests.fakes.memory_worker_queries import MemoryWorkerQueries
from tests.fakes.ports import CountedIds, TestClock

from agentlog_commands.claims import Claim, ClaimLimits
from agentlog_commands.submit import Submitter
from agentlog_facts.checkpoint import CheckpointSaved
from agentlog_facts.envelope import Actor, Fact
from agentlog_facts.errors import DependencyRefused, Unavailable
from agentlog_facts.frame import FrameRecord
from agentlog_facts.graph_ports import ThreadView
from agentlog_facts.guard import Accepted, Verdict
from agentlog_facts.ids import Key, RunId, Stream, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import RunCreated, ThreadCreated
from agentlog_processors.housekeeper.finish_runs import RunFinisher
from agentlog_processors.housekeeper.reap_runs import ReapRuns
from agentlog_processors.runs.dependencies import CommitWriter, WorkerTimeouts
from agentlog_projections.queries.worker import ExecutableRun, UnfinishedRun

SECOND = timedelta(seconds=1)
LIMITS = ClaimLimits(lost_after=30 * SECOND, run_time=60 * SECOND, retries=3, cancel_grace=15 * SECOND)
TIMING = WorkerTimeouts(1, SECOND, SECOND, SECOND, SECOND, SECOND, LIMITS)


class LoggedQueries(MemoryWorkerQueries):
    """Rows of runs as the projection folds them from the log; `looks` counts the reaper's checks.

    `away`: no query of claims is answered.
    """

    def __init__(self, log: MemoryLog, clock: TestClock) -> None:
        super().__init__(at_once(lambda: replace(folded(log), now=clock.now)))
        self.looks = 0
        self.away = False

    async def claims(self, limit: int) -> Sequence[Claim]:
        if self.away:
            raise Unavailable("the rows are away")
        return await super().claims(limit)

    async def leftovers(self, retries: int) -> Sequence[UnfinishedRun]:
        self.looks += 1
        return await super().leftovers(retries)


class NoQueue:
    """Implements `ports.RunQueue`: a Redis without leases that is never emptied.

    `dead` announces dead workers; `refuses`: Redis refuses to read leases.
    """

    def __init__(self) -> None:
        self.dead: asyncio.Queue[str] = asyncio.Queue()
        self.refuses = False

    async def push(self, queue: str, run_ids: Sequence[RunId]) -> None:
        raise Unavailable("nothing is pushed here")

    async def pop(self, queues: Sequence[str], patience: timedelta) -> RunId | None:
        return None

    async def queued(self, queue: str) -> frozenset[RunId]:
        return frozenset()

    async def renew_lease(self, run_id: RunId, epoch: int, worker: str, ttl: timedelta) -> None:
        raise Unavailable("no lease is kept here")

    async def leased(self, claims: Sequence[tuple[RunId, int]]) -> Sequence[bool]:
        if self.refuses:
            raise DependencyRefused("leases: Redis refuses it: NoPermissionError")
        return [False] * len(claims)

    async def instance(self) -> str:
        return "one"

    def dead_workers(self) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        return _each(self.dead)


@asynccontextmanager
async def _each(workers: asyncio.Queue[str]) -> AsyncGenerator[AsyncIterator[str]]:
    async def announced() -> AsyncIterator[str]:
        while True:
            yield await workers.get()

    yield announced()


@dataclass
class FixedFinalStates:
    """Implements `dependencies.FinalState`: the state of every thread is `values`.

    `broken`: the exceptions for some threads; `hanging`: threads without an answer, whose call sets `called`.
    """

    broken: dict[ThreadId, Exception] = field(default_factory=dict[ThreadId, Exception])
    hanging: set[ThreadId] = field(default_factory=set[ThreadId])
    called: asyncio.Event = field(default_factory=asyncio.Event)
    values: JsonObject = field(default_factory=lambda: {"x": 1})

    async def view(self, work: ExecutableRun) -> ThreadView:
        if work.thread_id in self.hanging:
            self.called.set()
            await asyncio.get_running_loop().create_future()
        if work.thread_id in self.broken:
            raise self.broken[work.thread_id]
        return ThreadView(self.values, ("left",), {}, "c1")

    async def view_without_run(self, work: ExecutableRun) -> ThreadView:
        return ThreadView()


class Outputs(MemoryFrames):
    """Outputs in memory. `fences`: (release, length of the log then); `away` and `silent` make appends fail or hang."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__()
        self.log = log
        self.fences: list[tuple[str, int]] = []
        self.away = self.silent = False

    async def append(self, thread_id: ThreadId, record: FrameRecord) -> int:
        """Append one flush. Raises: Unavailable."""
        if self.away:
            raise Unavailable("outputs are away")
        if self.silent:
            await asyncio.get_running_loop().create_future()
        if record.release is not None:
            self.fences.append((record.release, len(self.log.rows)))
        return await super().append(thread_id, record)


class Reaping:
    """A reaper over a log: `given` appends facts, `check_once` runs one check, `facts` returns accepted facts."""

    def __init__(self, look: timedelta = TIMING.look) -> None:
        self.log, self.clock, self.states = MemoryLog(), TestClock(), FixedFinalStates()
        self.rows = LoggedQueries(self.log, self.clock)
        submitter = Submitter(self.log, self.log, self.log, self.clock, CountedIds())
        writer = CommitWriter(submitter, self.log, self.clock, CountedIds(), Actor("system", "housekeeper"))
        queue = self.queue = NoQueue()
        self.outputs = Outputs(self.log)
        self.finisher = RunFinisher(writer, self.rows, self.outputs, self.states)
        self.reaper = ReapRuns(self.finisher, queue, queue, replace(TIMING, look=look))

    async def saved(self, thread: str, run: str, epoch: int) -> None:
        """Append a checkpoint of a claimed run."""
        fact = CheckpointSaved(ThreadId(thread), RunId(run), "", "c1", None, {}, {}, ())
        name = Stream(f"run-{run}")
        draft = commit(fact, stream=name, demands={name: "absent"}, epoch=epoch)
        await self.log.append(replace(draft, key=Key(thread), occurred_at=self.clock.now()))
        assert isinstance(self.log.rows[-1][1], Accepted)

    async def check_once(self) -> None:
        """Check all claims once and wait for the actions."""
        await self.reaper.look()
        await self.reaper.idle()

    async def append(self, thread: str, *facts: Fact, **how: int) -> Verdict:
        name = Stream(f"thread-{thread}")
        demands = {name: how["version"]} if "version" in how else {}
        made = commit(*facts, stream=name, demands=demands)
        draft = replace(made, key=Key(thread), occurred_at=self.clock.now(), epoch=how.get("epoch"))
        await self.log.append(draft)
        return self.log.rows[-1][1]

    async def given(self, thread: str, *facts: Fact) -> None:
        """Append each fact as its own commit, as the housekeeper would; all must be accepted."""
        for fact in facts:
            versions = self.log.heads[thread].versions
            free = isinstance(fact, ThreadCreated | RunCreated)
            how = {} if free else {"version": versions[Stream(f"thread-{thread}")]}
            assert isinstance(await self.append(thread, fact, **how), Accepted), fact

    def facts(self, thread: str) -> list[Fact]:
        """Return the accepted facts of the thread, in order."""
        found = [draft for draft, verdict in self.log.rows if isinstance(verdict, Accepted)]
        return [fact for draft in found if draft.key == thread for fact in draft.facts]


async def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds; the caller sets the deadline."""
    never = asyncio.get_running_loop().create_future()
    while not holds():
        await asyncio.wait({never}, timeout=0.005)
