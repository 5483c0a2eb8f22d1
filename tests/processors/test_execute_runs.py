"""What a worker does when it shall stop, besides what its attempts do."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest
from tests.processors.test_attempt import Execution, Hanging, worker

from agentlog_facts.ids import RunId
from agentlog_processors.execute_runs import ExecuteRuns
from agentlog_processors.job_loops import JobLoops


class Deaf:
    """A queue whose client loses the first cancel, as one does that sends inside `asyncio.wait_for`."""

    def __init__(self) -> None:
        self.pops = 0
        self.popping = asyncio.Event()

    async def pop(self, graph_ids: Sequence[str], patience: timedelta) -> RunId | None:
        self.pops += 1
        self.popping.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.pops > 1:
                raise
        return None


@pytest.fixture
async def loops() -> AsyncIterator[JobLoops]:
    made = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop)
    yield made
    made.close()


async def test_a_worker_drains_although_a_cancel_of_its_pop_was_lost(loops: JobLoops) -> None:
    queue, stop = Deaf(), asyncio.Event()
    tools = worker(loops, Hanging(), Execution(asyncio.get_running_loop()))
    tools.queue.pop = queue.pop  # type: ignore[method-assign]  # a mock with the port's shape
    async with asyncio.timeout(10):
        running = asyncio.ensure_future(ExecuteRuns(tools, {}).run(stop))
        await queue.popping.wait()
        stop.set()
        await running
    assert queue.pops == 2
