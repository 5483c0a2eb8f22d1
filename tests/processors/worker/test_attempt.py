"""Tests of the waits of one attempt: leases, stop requests, threads."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from unittest.mock import create_autospec

import pytest
from tests.contracts.memory_frames import MemoryFrames
from tests.fakes.memory_log import MemoryLog
from tests.fakes.ports import CountedIds
from tests.processors.examples import a_work

from agentlog_commands.claims import ClaimLimits
from agentlog_commands.submit import Submitter
from agentlog_facts.envelope import Actor, Cause
from agentlog_facts.execution_port import Emit, RunAssignment, RunExecution, RunOutcome
from agentlog_facts.ids import RunId
from agentlog_facts.ports import RunQueue
from agentlog_infra.system_ports import SystemClock
from agentlog_processors.runs.dependencies import CommitWriter, FinalState, Hints, WorkerDependencies, WorkerTimeouts
from agentlog_processors.runs.output_offsets import CachedEndOffsets
from agentlog_processors.runtime.loop_bridge import LoopBridge
from agentlog_processors.runtime.user_loops import JobLoops
from agentlog_processors.worker.attempt import Attempt, Stuck
from agentlog_processors.worker.write_outputs import FrameWriter
from agentlog_projections.queries.worker import WorkerQueries

WORK = a_work()
SECOND = timedelta(seconds=1)
DONE = RunOutcome("success", None, {}, (), {}, None, None)


@dataclass
class Execution:
    """A graph that ends when `go_on` is set."""

    home: asyncio.AbstractEventLoop
    go_on: asyncio.Future[None] = field(init=False)

    def __post_init__(self) -> None:
        self.go_on = self.home.create_future()

    async def execute(self, order: RunAssignment, emit: Emit, stop: asyncio.Event) -> RunOutcome:
        await LoopBridge(self.home).call(lambda: self.go_on)
        return DONE


@dataclass
class InAThread:
    """A graph whose synchronous code continues when its caller is cancelled."""

    began: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    async def execute(self, order: RunAssignment, emit: Emit, stop: asyncio.Event) -> RunOutcome:
        asyncio.get_running_loop().run_in_executor(None, self._hang)
        await stop.wait()
        return DONE

    def _hang(self) -> None:
        self.began.set()
        self.go_on.wait(30)


@dataclass
class Hanging:
    """A queue whose server hangs: `renew_lease` never returns."""

    called: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def renew_lease(self, run_id: RunId, epoch: int, worker: str, ttl: timedelta) -> None:
        self.called.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()


@pytest.fixture
async def loops() -> AsyncIterator[JobLoops]:
    made = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop)
    yield made
    made.close()


def worker(loops: JobLoops, queue: Hanging, execution: Execution | InAThread) -> WorkerDependencies:
    """Return a worker's dependencies; parts without use for an attempt are autospecs."""
    log, clock, ids, frames = MemoryLog(), SystemClock(), CountedIds(), MemoryFrames()
    graphs: Sequence[str] = (WORK.graph_id,)
    runs, leases = create_autospec(RunExecution, instance=True), create_autospec(RunQueue, instance=True)
    runs.execute.side_effect, leases.renew_lease.side_effect = execution.execute, queue.renew_lease
    return WorkerDependencies(
        worker="w1",
        writer=CommitWriter(Submitter(log, log, log, clock, ids), log, clock, ids, Actor("worker", "w1")),
        queries=create_autospec(WorkerQueries, instance=True),
        queue=leases,
        outputs=frames,
        ends=create_autospec(CachedEndOffsets, instance=True),
        execution=runs,
        graph_ids=graphs,
        final_state=create_autospec(FinalState, instance=True),
        provenance=lambda _: {},
        hints=create_autospec(Hints, instance=True),
        loops=loops,
        bridge=LoopBridge(asyncio.get_running_loop()),
        timeouts=WorkerTimeouts(1, SECOND, SECOND, SECOND, SECOND, SECOND, ClaimLimits(SECOND, 60 * SECOND, 1, SECOND)),
    )


async def test_a_lease_that_is_not_answered_holds_up_no_end(loops: JobLoops) -> None:
    queue, execution = Hanging(), Execution(asyncio.get_running_loop())
    dependencies = worker(loops, queue, execution)
    attempt = Attempt(WORK, 3, "e1")
    cause = Cause(Actor("worker", "w1"), WORK.run_id)
    order = RunAssignment(WORK.run_id, WORK.thread_id, WORK.graph_id, 3, 1, WORK.assistant, {}, {}, {}, cause, None)
    frames = FrameWriter(dependencies.outputs, dependencies.bridge, dependencies.writer.clock, WORK, 3)
    async with asyncio.timeout(10):
        running = asyncio.ensure_future(attempt.execute(dependencies, order, frames))
        await queue.called.wait()
        execution.go_on.set_result(None)
        assert await running == DONE
        await queue.left.wait()


async def stopped(loops: JobLoops, execution: InAThread) -> tuple[WorkerDependencies, Attempt]:
    """Execute until the thread runs, request a stop, and wait for the end."""
    dependencies = worker(loops, Hanging(), execution)
    attempt = Attempt(WORK, 3, "e1")
    cause = Cause(Actor("worker", "w1"), WORK.run_id)
    order = RunAssignment(WORK.run_id, WORK.thread_id, WORK.graph_id, 3, 1, WORK.assistant, {}, {}, {}, cause, None)
    frames = FrameWriter(dependencies.outputs, dependencies.bridge, dependencies.writer.clock, WORK, 3)
    running = asyncio.ensure_future(attempt.execute(dependencies, order, frames))
    await asyncio.to_thread(execution.began.wait, 10)
    attempt.request_stop("timeout")
    assert await running == DONE
    return replace(dependencies, timeouts=replace(dependencies.timeouts, stubborn=timedelta(milliseconds=50))), attempt


async def test_a_thread_that_goes_on_after_the_end_of_its_run_is_stuck(loops: JobLoops) -> None:
    execution = InAThread()
    async with asyncio.timeout(10):
        dependencies, attempt = await stopped(loops, execution)
        with pytest.raises(Stuck, match="thread still runs"):
            await attempt.wait_for_threads(dependencies)
    execution.go_on.set()


async def test_a_thread_that_ends_a_little_later_is_not(loops: JobLoops) -> None:
    execution = InAThread()
    async with asyncio.timeout(10):
        dependencies, attempt = await stopped(loops, execution)
        patient = replace(dependencies, timeouts=replace(dependencies.timeouts, stubborn=timedelta(seconds=9)))
        leaving = asyncio.ensure_future(attempt.wait_for_threads(patient))
        execution.go_on.set()
        await leaving
