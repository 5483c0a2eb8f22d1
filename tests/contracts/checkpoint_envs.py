"""Implementations of `CheckpointReads`: a fold in memory, tables of a real projector, and each decorator."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.fakes.standalone_saver import Commit
from tests.infra.langgraph.memory_checkpoints import MemoryCheckpoints, MemoryLog, MemoryThreads, carried
from tests.projections.projector_env import ProjectorEnv, draft, env_in

from agentlog_facts.checkpoint import CheckpointSaved, WritesSaved
from agentlog_facts.checkpoint_ports import CheckpointQuery, CheckpointReads
from agentlog_facts.envelope import Actor, Cause, Fact
from agentlog_facts.guard import Accepted, Void
from agentlog_facts.ids import RunId, ThreadId, stream
from agentlog_facts.thread import RunClaimed, RunCreated, ThreadCreated, ThreadDeleted
from agentlog_infra.langgraph.checkpoints.filters import ExcludeRun
from agentlog_infra.langgraph.checkpoints.journal import RunJournal, WriteClaim
from agentlog_infra.langgraph.checkpoints.overlay import OverlaidReads, OverlayRoom
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_processors.runs.retrying_reads import RetryingReads
from agentlog_processors.runs.timed_reads import TimedReads
from agentlog_processors.runtime.loop_bridge import BridgedCheckpointReads, LoopBridge
from agentlog_projections.models.checkpoints import Checkpoints

ByRun = Callable[[ThreadId, RunId, Sequence[Fact]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class CheckpointEnv:
    """Checkpoints to read, and functions that commit facts to the thread's stream or to that of a claimed run."""

    reads: CheckpointReads
    commit: Commit
    commit_by_run: ByRun


@asynccontextmanager
async def memory(database: str) -> AsyncGenerator[CheckpointEnv]:
    """Yield a fold in memory."""
    yield _in_memory(lambda reads: reads)


def _in_memory(decorated: Callable[[CheckpointReads], CheckpointReads]) -> CheckpointEnv:
    reads = MemoryCheckpoints()

    async def by_run(thread_id: ThreadId, run_id: RunId, facts: Sequence[Fact]) -> None:
        reads.fold(stream("run", run_id), facts)

    return CheckpointEnv(decorated(reads), MemoryThreads(reads).commit, by_run)


@asynccontextmanager
async def retrying(database: str) -> AsyncGenerator[CheckpointEnv]:
    """Yield reads with retries."""
    yield _in_memory(lambda reads: RetryingReads(reads, SystemClock()))


@asynccontextmanager
async def timed(database: str) -> AsyncGenerator[CheckpointEnv]:
    """Yield reads that are measured."""
    yield _in_memory(lambda reads: TimedReads(reads, SystemClock()))


@asynccontextmanager
async def without_another_run(database: str) -> AsyncGenerator[CheckpointEnv]:
    """Yield reads without a run that wrote nothing."""
    yield _in_memory(lambda reads: ExcludeRun(reads, RunId("another")))


@asynccontextmanager
async def bridged(database: str) -> AsyncGenerator[CheckpointEnv]:
    """Yield reads that live on the event loop of another thread."""
    home = asyncio.new_event_loop()
    thread = threading.Thread(target=home.run_forever)
    thread.start()
    try:
        yield _in_memory(lambda reads: BridgedCheckpointReads(LoopBridge(home), reads))
    finally:
        home.call_soon_threadsafe(home.stop)
        thread.join()
        home.close()


@asynccontextmanager
async def overlaid(database: str) -> AsyncGenerator[CheckpointEnv]:
    """Yield reads of a fold in memory, with a saver's writes of runs on top."""
    rows = MemoryCheckpoints()
    reads = OverlaidReads(rows)

    async def by_run(thread_id: ThreadId, run_id: RunId, facts: Sequence[Fact]) -> None:
        await reads.find(CheckpointQuery(thread_id))  # a saver builds on what it has read
        own = [fact for fact in map(carried, facts) if isinstance(fact, CheckpointSaved | WritesSaved)]
        assert len(own) == len(facts)
        reads.add(stream("run", run_id), own)

    yield CheckpointEnv(reads, MemoryThreads(rows).commit, by_run)


@asynccontextmanager
async def overlaid_in_part(database: str) -> AsyncGenerator[CheckpointEnv]:
    """Yield reads of a fold in memory, with only the newest checkpoint of a run on top; the others are in the fold."""
    rows = MemoryCheckpoints()
    log, reads = MemoryLog(rows), OverlaidReads(rows)
    journals: dict[RunId, RunJournal] = {}

    async def by_run(thread_id: ThreadId, run_id: RunId, facts: Sequence[Fact]) -> None:
        if run_id not in journals:
            claim = WriteClaim(thread_id, run_id, 1, Cause(Actor("worker", "w"), "c"))
            journals[run_id] = RunJournal(log, claim, SystemClock(), SystemIds(), acknowledged=True)
            reads.limit(OverlayRoom(0, journals[run_id], lambda: log.run_version(thread_id, run_id)))
        await reads.find(CheckpointQuery(thread_id, limit=1))  # a saver builds on what it has read
        for fact in map(carried, facts):
            assert isinstance(fact, CheckpointSaved | WritesSaved)
            reads.add(stream("run", run_id), (fact,))
            await journals[run_id].write(thread_id, (fact,))
            await reads.make_room(wait=True)

    yield CheckpointEnv(reads, MemoryThreads(rows).commit, by_run)


@asynccontextmanager
async def postgres(database: str) -> AsyncGenerator[CheckpointEnv]:
    """Yield the tables of a projector that folds a log in memory; `database` is the address of a migrated one."""
    async with env_in(database) as env, env.projector():
        await env.until(lambda: env.caught_up(0))
        await env.until(lambda: env.caught_up(1))
        log = _ProjectedLog(env)
        yield CheckpointEnv(Checkpoints(env.pool), log.commit, log.commit_by_run)


class _ProjectedLog:
    """Commits and waits until they are projected."""

    def __init__(self, env: ProjectorEnv) -> None:
        self._env = env
        self._runs: dict[RunId, int] = {}

    async def commit(self, thread_id: ThreadId, facts: Sequence[Fact]) -> None:
        name = stream("thread", thread_id)
        [place] = self._env.append(draft(thread_id, *facts, demands={name: "exists"}))
        await self._env.folded()
        verdict = await self._env.verdict(place)
        if isinstance(verdict, Void) and not isinstance(facts[0], ThreadDeleted):
            await self._accepted(thread_id, ThreadCreated(thread_id, {}), *facts)

    async def commit_by_run(self, thread_id: ThreadId, run_id: RunId, facts: Sequence[Fact]) -> None:
        if run_id not in self._runs:
            created = RunCreated(run_id, thread_id, {"graph_id": "g"}, {}, {}, "enqueue")
            await self.commit(thread_id, (created,))
            self._runs[run_id] = await self._accepted(thread_id, RunClaimed(run_id, "w", 1, 0))
        await self._accepted(thread_id, *facts, on=f"run-{run_id}", epoch=self._runs[run_id])

    async def _accepted(
        self, thread_id: ThreadId, *facts: Fact, on: str | None = None, epoch: int | None = None
    ) -> int:
        [place] = self._env.append(draft(thread_id, *facts, stream=on, epoch=epoch))
        await self._env.folded()
        verdict = await self._env.verdict(place)
        assert isinstance(verdict, Accepted), verdict
        return verdict.version
