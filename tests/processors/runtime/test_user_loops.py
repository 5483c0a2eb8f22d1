"""Tests of the event loops for user code: blocked loops, later runs, threads, and the service loop."""

import asyncio
import os
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial

import pytest
import uvloop

from agentlog_processors.runtime.loop_bridge import LoopBridge
from agentlog_processors.runtime.user_loops import Job, JobLoops

LIMIT_S = 5


@pytest.fixture
async def loops() -> AsyncIterator[JobLoops]:
    made = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop)
    yield made
    made.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
async def user_loops(request: pytest.FixtureRequest) -> AsyncIterator[JobLoops]:
    made = JobLoops(asyncio.get_running_loop(), request.param)
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


def in_a_task(work: Coroutine[object, object, object]) -> Coroutine[object, object, str]:
    """Return a coroutine that runs another one as a task of its own, as LangGraph runs parallel nodes."""

    async def run() -> str:
        task = asyncio.ensure_future(work)
        await asyncio.wait({task})
        return repr(task.exception())

    return run()


def in_a_thread(work: Callable[[], object]) -> Coroutine[object, object, object]:
    async def run() -> object:
        return await asyncio.get_running_loop().run_in_executor(None, work)

    return run()


async def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_an_exit_in_a_task_or_thread_is_the_error_of_its_run(user_loops: JobLoops, error: BaseException) -> None:
    free = threading.Event()
    neighbour = user_loops.start("h", lambda: in_a_task(in_a_thread(lambda: free.wait(LIMIT_S))))
    assert await user_loops.start("g", lambda: in_a_task(raising(error))).done == repr(error)
    in_thread = user_loops.start("g", lambda: in_a_task(in_a_thread(partial(raised, error))))
    assert await in_thread.done == repr(error)
    assert not neighbour.done.done()
    free.set()
    assert await neighbour.done == "None"


def raised(error: BaseException) -> None:
    raise error


async def test_a_loop_that_user_code_stops_goes_on(user_loops: JobLoops) -> None:
    async def stopping() -> str:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        return "still here"

    async with asyncio.timeout(LIMIT_S):
        assert await user_loops.start("g", stopping).done == "still here"
        assert await user_loops.start("h", where).done


@pytest.mark.slow
@pytest.mark.parametrize("leave", [lambda: None, sys.exit], ids=["returns", "exits"])
@pytest.mark.parametrize("threaded", [False, True])
async def test_a_child_that_user_code_forks_does_not_go_on_with_the_run(
    user_loops: JobLoops, leave: Callable[[], None], threaded: bool
) -> None:
    def forking() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            leave()
        return pid

    async def on_the_loop() -> object:
        return forking()

    async with asyncio.timeout(LIMIT_S):
        pid = await user_loops.start("g", lambda: in_a_thread(forking) if threaded else on_the_loop()).done
        assert isinstance(pid, int)
        assert await asyncio.to_thread(os.waitpid, pid, 0) == (pid, 0)
        assert await user_loops.start("h", where).done


async def test_code_that_cancels_all_tasks_of_its_loop_cancels_no_job(loops: JobLoops) -> None:
    """A clean-up recipe in one run ended the attempts of all runs on its loop, and each waited for its reaper."""
    ready = asyncio.Event()
    noted: list[bool] = []

    async def innocent() -> str:
        waiting = asyncio.create_task(asyncio.Event().wait())
        ready.set()
        await asyncio.wait({waiting})
        noted.append(waiting.cancelled())
        return "innocent"

    async def guilty() -> str:
        await ready.wait()
        inside = asyncio.create_task(clean_up())
        await asyncio.wait({inside})
        return "guilty"

    async def clean_up() -> None:
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()

    both = [loops.start("g", innocent), loops.start("g", guilty)]
    assert [await asyncio.wait_for(job.done, 10) for job in both] == ["innocent", "guilty"]
    assert noted == [True]
    assert [job.was_disturbed for job in both] == [True, False]


async def test_a_job_that_cancels_itself_fails_and_does_not_count_as_stopped(loops: JobLoops) -> None:
    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="user code raised CancelledError"):
        await asyncio.wait_for(loops.start("g", cancel_itself).done, 10)


@pytest.mark.slow
async def test_a_fork_on_a_shared_loop_takes_no_wake_up_from_the_other_runs(user_loops: JobLoops) -> None:
    """A child that goes on in the loop would read the events of its parent, which would then never wake up."""

    async def forking() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            await asyncio.to_thread(os.waitpid, pid, 0)

    async def busy() -> None:
        for _ in range(200):
            await asyncio.to_thread(time.sleep, 0.0001)

    async with asyncio.timeout(6 * LIMIT_S):
        neighbours = [user_loops.start("h", busy).done for _ in range(8)]
        for _ in range(100):
            await user_loops.start("g", forking).done
        await asyncio.gather(*neighbours)
