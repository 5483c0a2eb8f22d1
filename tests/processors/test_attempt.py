"""What one attempt waits for, and what it never waits for."""

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

from agentlog_commands.leases import Limits
from agentlog_commands.submit import Submitter
from agentlog_facts.envelope import Actor, Cause
from agentlog_facts.ids import RunId
from agentlog_facts.ports import RunQueue
from agentlog_facts.run_execution import Emit, RunExecution, RunOrder, RunOutcome
from agentlog_infra.system_ports import SystemClock
from agentlog_processors.attempt import Attempt, Stuck
from agentlog_processors.crossing import Crossing
from agentlog_processors.job_loops import JobLoops
from agentlog_processors.outputs_end import RecentEnds
from agentlog_processors.tools import EndViews, Hints, Timing, WorkerTools, Writing
from agentlog_processors.write_frames import FrameWriter
from agentlog_projections.duties import Duties

WORK = a_work()
SECOND = timedelta(seconds=1)
DONE = RunOutcome("success", None, {}, (), {}, None, None)


@dataclass
class Execution:
    """A graph that ends when it is told to."""

    home: asyncio.AbstractEventLoop
    go_on: asyncio.Future[None] = field(init=False)

    def __post_init__(self) -> None:
        self.go_on = self.home.create_future()

    async def execute(self, order: RunOrder, emit: Emit, stop: asyncio.Event) -> RunOutcome:
        await Crossing(self.home).call(lambda: self.go_on)
        return DONE


@dataclass
class InAThread:
    """A graph whose synchronous code goes on when what waits for it is cancelled."""

    began: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    async def execute(self, order: RunOrder, emit: Emit, stop: asyncio.Event) -> RunOutcome:
        asyncio.get_running_loop().run_in_executor(None, self._hang)
        await stop.wait()
        return DONE

    def _hang(self) -> None:
        self.began.set()
        self.go_on.wait(30)


@dataclass
class Hanging:
    """A queue whose server says nothing: leases are asked for and never answered."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def renew_lease(self, run_id: RunId, epoch: int, worker: str, ttl: timedelta) -> None:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()


@pytest.fixture
async def loops() -> AsyncIterator[JobLoops]:
    made = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop)
    yield made
    made.close()


def worker(loops: JobLoops, queue: Hanging, execution: Execution | InAThread) -> WorkerTools:
    """Return a worker's tools; what an attempt has no use for is there by name only."""
    log, clock, ids, frames = MemoryLog(), SystemClock(), CountedIds(), MemoryFrames()
    graphs: Sequence[str] = (WORK.graph_id,)
    runs, leases = create_autospec(RunExecution, instance=True), create_autospec(RunQueue, instance=True)
    runs.execute.side_effect, leases.renew_lease.side_effect = execution.execute, queue.renew_lease
    return WorkerTools(
        worker="w1",
        writing=Writing(Submitter(log, log, log, clock, ids), log, clock, ids, Actor("worker", "w1")),
        duties=create_autospec(Duties, instance=True),
        queue=leases,
        outputs=frames,
        ends=create_autospec(RecentEnds, instance=True),
        execution=runs,
        graph_ids=graphs,
        views=create_autospec(EndViews, instance=True),
        provenance=lambda _: {},
        hints=create_autospec(Hints, instance=True),
        loops=loops,
        crossing=Crossing(asyncio.get_running_loop()),
        timing=Timing(1, SECOND, SECOND, SECOND, SECOND, SECOND, Limits(SECOND, 60 * SECOND, 1, SECOND)),
    )


async def test_a_lease_that_is_not_answered_holds_up_no_end(loops: JobLoops) -> None:
    queue, execution = Hanging(), Execution(asyncio.get_running_loop())
    tools = worker(loops, queue, execution)
    attempt = Attempt(WORK, 3, "e1")
    cause = Cause(Actor("worker", "w1"), WORK.run_id)
    order = RunOrder(WORK.run_id, WORK.thread_id, WORK.graph_id, 3, 1, WORK.assistant, {}, {}, {}, cause, None)
    frames = FrameWriter(tools.outputs, tools.crossing, tools.writing.clock, WORK, 3)
    async with asyncio.timeout(10):
        running = asyncio.ensure_future(attempt.execute(tools, order, frames))
        await queue.asked.wait()
        execution.go_on.set_result(None)
        assert await running == DONE
        await queue.left.wait()


async def stopped(loops: JobLoops, execution: InAThread) -> tuple[WorkerTools, Attempt]:
    """Execute until the thread runs, tell the attempt to stop, and see its end."""
    tools = worker(loops, Hanging(), execution)
    attempt = Attempt(WORK, 3, "e1")
    cause = Cause(Actor("worker", "w1"), WORK.run_id)
    order = RunOrder(WORK.run_id, WORK.thread_id, WORK.graph_id, 3, 1, WORK.assistant, {}, {}, {}, cause, None)
    frames = FrameWriter(tools.outputs, tools.crossing, tools.writing.clock, WORK, 3)
    running = asyncio.ensure_future(attempt.execute(tools, order, frames))
    await asyncio.to_thread(execution.began.wait, 10)
    attempt.ask("timeout")
    assert await running == DONE
    return replace(tools, timing=replace(tools.timing, stubborn=timedelta(milliseconds=50))), attempt


async def test_a_thread_that_goes_on_after_the_end_of_its_run_is_stuck(loops: JobLoops) -> None:
    execution = InAThread()
    async with asyncio.timeout(10):
        tools, attempt = await stopped(loops, execution)
        with pytest.raises(Stuck, match="thread still runs"):
            await attempt.left(tools)
    execution.go_on.set()


async def test_a_thread_that_ends_a_little_later_is_not(loops: JobLoops) -> None:
    execution = InAThread()
    async with asyncio.timeout(10):
        tools, attempt = await stopped(loops, execution)
        patient = replace(tools, timing=replace(tools.timing, stubborn=timedelta(seconds=9)))
        leaving = asyncio.ensure_future(attempt.left(patient))
        execution.go_on.set()
        await leaving
