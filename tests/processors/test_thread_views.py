"""A state can be had whatever the code of its graph does: given a graph that misbehaves, then the channels' values."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import timedelta

import pytest

from agentlog_facts.errors import Unavailable
from agentlog_facts.graph_access import GraphNotFound, ThreadView
from agentlog_facts.ids import RunId, ThreadId
from agentlog_processors.job_loops import JobLoops
from agentlog_processors.thread_views import LoopedViews

T1, R1 = ThreadId("t1"), RunId("r1")
LIMIT_S = 5.0
Asking = Callable[[], Coroutine[object, object, ThreadView]]


class Code:
    """A graph whose code does what the test says."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def view(self, graph_id: str, thread_id: ThreadId) -> ThreadView:
        return await self._asking()

    async def view_without_run(self, graph_id: str, thread_id: ThreadId, run_id: RunId) -> ThreadView:
        return await self._asking()


class Channels:
    """Channels that say which run was left out."""

    async def channels(self, thread_id: ThreadId, without: RunId | None = None) -> ThreadView:
        return ThreadView({"without": without})


@pytest.fixture
async def loops() -> AsyncIterator[JobLoops]:
    made = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop)
    yield made
    made.close()


@pytest.fixture
def free() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def views(loops: JobLoops, asking: Asking) -> LoopedViews:
    return LoopedViews(loops, Code(asking), Channels(), timedelta(milliseconds=500))


def raising(error: BaseException) -> Asking:
    async def asking() -> ThreadView:
        raise error

    return asking


async def test_a_graph_that_answers_is_believed(loops: JobLoops) -> None:
    async def asking() -> ThreadView:
        return ThreadView({"x": 1}, ("next",))

    assert await views(loops, asking).view("agent", T1) == ThreadView({"x": 1}, ("next",))


@pytest.mark.parametrize(
    "error", [ValueError("user code"), GraphNotFound("gone"), asyncio.CancelledError("a library's own")]
)
async def test_a_graph_that_is_gone_or_raises_is_done_without(loops: JobLoops, error: BaseException) -> None:
    looped = views(loops, raising(error))
    assert await looped.view("agent", T1) == ThreadView({"without": None})
    assert await looped.view_without_run("agent", T1, R1) == ThreadView({"without": "r1"})


async def test_a_graph_that_waits_for_ever_is_done_without(loops: JobLoops) -> None:
    async def asking() -> ThreadView:
        try:
            await asyncio.Event().wait()
        finally:
            home.call_soon_threadsafe(stopped.set)
        raise AssertionError("nobody sets it")

    stopped, home = asyncio.Event(), asyncio.get_running_loop()
    async with asyncio.timeout(LIMIT_S):
        assert await views(loops, asking).view("agent", T1) == ThreadView({"without": None})
        await stopped.wait()


async def test_a_graph_that_blocks_its_loop_is_done_without(free: threading.Event) -> None:
    loops = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop, isolated=True)
    stopped = asyncio.Event()
    home = asyncio.get_running_loop()

    async def asking() -> ThreadView:
        free.wait(LIMIT_S * 2)
        home.call_soon_threadsafe(stopped.set)
        return ThreadView()

    async with asyncio.timeout(LIMIT_S):
        assert await views(loops, asking).view("agent", T1) == ThreadView({"without": None})
        free.set()
        await stopped.wait()
    loops.close()


async def test_rows_that_are_away_are_no_fault_of_the_graph(loops: JobLoops) -> None:
    with pytest.raises(Unavailable):
        await views(loops, raising(Unavailable("away"))).view("agent", T1)
