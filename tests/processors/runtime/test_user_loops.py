"""Tests of the event loops for user code: blocked loops, later runs, threads, and the service loop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine

import pytest

from agentlog_processors.runtime.loop_bridge import LoopBridge
from agentlog_processors.runtime.user_loops import Job, JobLoops

LIMIT_S = 5


@pytest.fixture
async def loops() -> AsyncIterator[JobLoops]:
    made = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop)
    yield made
    made.close()


def where() -> Coroutine[object, object, int]:
    async def run() -> int:
        return threading.get_ident()

    return run()


def blocking(free: threading.Event) -> Coroutine[object, object, str]:
    async def run() -> str:
        free.wait(LIMIT_S)
        return "freed"

    return run()


async def look_for(loops: JobLoops, stuck: "Job[str]", seconds: float) -> None:
    """Check the loops as often as WatchClaims does, while the run blocks its loop."""
    at = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < at:
        loops.look()
        await asyncio.wait({stuck.done}, timeout=0.02)
        assert not stuck.done.done()


async def test_a_result_comes_back_from_another_thread(loops: JobLoops) -> None:
    assert await loops.start("g", where).done != threading.get_ident()


async def test_runs_share_a_loop_that_answers(loops: JobLoops) -> None:
    assert await loops.start("g", where).done == await loops.start("h", where).done


async def test_a_failure_of_user_code_comes_back(loops: JobLoops) -> None:
    async def failing() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await loops.start("g", failing).done


async def test_even_a_system_exit_stops_only_its_run(loops: JobLoops) -> None:
    async def leaving() -> None:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match="SystemExit"):
        await loops.start("g", leaving).done
    assert await loops.start("g", where).done


async def test_a_blocked_loop_gets_no_new_runs(loops: JobLoops) -> None:
    free = threading.Event()
    stuck = loops.start("g", lambda: blocking(free))
    await look_for(loops, stuck, 0.3)
    await asyncio.wait_for(loops.start("h", where).done, LIMIT_S)
    assert not stuck.done.done()
    free.set()
    assert await stuck.done == "freed"


async def test_a_run_that_its_loop_cannot_start_goes_to_another(loops: JobLoops) -> None:
    free = threading.Event()
    stuck = loops.start("g", lambda: blocking(free))
    await asyncio.wait_for(loops.start("h", where).done, LIMIT_S)
    assert not stuck.done.done()
    free.set()
    assert await stuck.done == "freed"


async def test_a_run_that_was_cancelled_before_it_moved_stays_cancelled(loops: JobLoops) -> None:
    free = threading.Event()
    stuck = loops.start("g", lambda: blocking(free))
    late = loops.start("h", where)
    late.cancel()
    await asyncio.wait({late.done}, timeout=LIMIT_S)
    assert late.done.cancelled()
    free.set()
    await stuck.done


async def test_a_graph_that_blocked_its_loop_gets_loops_of_its_own(
    loops: JobLoops, caplog: pytest.LogCaptureFixture
) -> None:
    free = threading.Event()
    stuck = loops.start("bad", lambda: blocking(free))
    await look_for(loops, stuck, 1.4)
    free.set()
    await stuck.done
    assert ["bad"] == [vars(record)["graph_id"] for record in caplog.records if record.msg == "run.blocks_loop"]
    assert await loops.start("bad", where).done != await loops.start("good", where).done


async def test_a_cancelled_run_has_really_ended_when_it_is_done(loops: JobLoops) -> None:
    ended = threading.Event()
    started = threading.Event()

    async def slow() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    job = loops.start("g", slow)
    assert await asyncio.to_thread(started.wait, LIMIT_S)
    job.cancel()
    await asyncio.wait({job.done}, timeout=LIMIT_S)
    assert job.done.cancelled()
    assert ended.is_set()


async def test_a_call_crosses_to_the_service_loop_and_back(loops: JobLoops) -> None:
    bridge = LoopBridge(asyncio.get_running_loop())
    home = threading.get_ident()

    async def thread() -> int:
        return threading.get_ident()

    async def on_the_job() -> tuple[int, int]:
        return await bridge.call(thread), threading.get_ident()

    there, here = await loops.start("g", on_the_job).done
    assert (there, here) == (home, here)
    assert here != home


async def test_a_cancelled_caller_cancels_its_call(loops: JobLoops) -> None:
    bridge = LoopBridge(asyncio.get_running_loop())
    entered, left = asyncio.Event(), asyncio.Event()

    async def long_call() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    job = loops.start("g", lambda: bridge.call(long_call))
    await asyncio.wait_for(entered.wait(), LIMIT_S)
    job.cancel()
    await asyncio.wait_for(left.wait(), LIMIT_S)


def a_strict_loop() -> asyncio.AbstractEventLoop:
    """Return a loop that refuses calls from other threads."""
    made = asyncio.new_event_loop()
    made.set_debug(True)
    return made


async def test_a_call_that_was_cancelled_on_its_way_is_never_made() -> None:
    home, faults, made, cancelled = asyncio.get_running_loop(), list[object](), list[str](), threading.Event()
    home.set_exception_handler(lambda _, context: faults.append(context))
    loops, bridge = JobLoops(home, a_strict_loop), LoopBridge(home)

    async def call(name: str) -> None:
        made.append(name)

    async def impatient() -> None:
        calling = asyncio.ensure_future(bridge.call(lambda: call("cancelled")))
        await asyncio.sleep(0)  # one turn of the loop: the call is in progress
        calling.cancel()
        await asyncio.wait({calling})
        cancelled.set()

    job = loops.start("g", impatient)
    assert cancelled.wait(LIMIT_S)  # the service loop hangs meanwhile, as under load
    await job.done
    await loops.start("g", lambda: bridge.call(lambda: call("later"))).done
    loops.close()
    assert made == ["later"]
    assert faults == []
