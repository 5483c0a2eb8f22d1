"""Tests of the reaper: given facts on a log, when it checks, then facts."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.contracts.memory_frames import MemoryFrames
from tests.facts import commits as c
from tests.processors.housekeeper.reaping import LIMITS, TIMING, Reaping, until

from agentlog_commands.claims import TIMED_OUT, End, Release, given_up, timed_out
from agentlog_facts.errors import Unavailable
from agentlog_facts.guard import Void
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.thread import RunAlive, RunCancelRequested, RunFinished, RunReleased, ThreadCreated
from agentlog_processors.housekeeper.reap_runs import ReapRuns

R1 = RunId("r1")
LIMIT_S = LIMITS.run_time.total_seconds()
OVER_S = 60 + 15


def thread(name: str) -> ThreadCreated:
    return ThreadCreated(ThreadId(name), {})


async def a_claimed_run(reaping: Reaping, name: str = "t1", run: str = "r1") -> None:
    await reaping.given(name, thread(name), replace(c.run_created(run), thread_id=ThreadId(name)), c.run_claimed(run))


async def test_a_run_over_its_time_is_stopped_released_and_ended() -> None:
    reaping = Reaping()
    await a_claimed_run(reaping)
    reaping.clock.seconds = OVER_S
    await reaping.check_once()
    asked, released, finished = reaping.facts("t1")[3:]
    assert asked == RunCancelRequested(R1, "interrupt", reaping.clock.now(), TIMED_OUT)
    assert released == RunReleased(R1, 2, "timeout", False)
    assert isinstance(finished, RunFinished)
    assert (finished.status, finished.error, finished.view) == ("timeout", TIMED_OUT, {"set": {"x": 1}})


async def test_a_run_is_ended_with_its_deadline_however_far_apart_the_looks_are() -> None:
    reaping, stop = Reaping(look=timedelta(hours=1)), asyncio.Event()
    await a_claimed_run(reaping)
    reaping.clock.seconds = OVER_S - 0.1
    living = asyncio.create_task(reaping.reaper.run(stop))
    async with asyncio.timeout(5):
        await until(lambda: reaping.rows.looks > 0)
        assert not isinstance(reaping.facts("t1")[-1], RunFinished)
        reaping.clock.seconds = OVER_S
        await until(lambda: isinstance(reaping.facts("t1")[-1], RunFinished))
        stop.set()
        await living


async def test_nobody_claims_a_run_that_was_released_for_its_time() -> None:
    reaping = Reaping()
    await a_claimed_run(reaping)
    await reaping.finisher.release(ThreadId("t1"), R1, 2, Release("timeout", False), timed_out())
    assert await reaping.append("t1", c.run_claimed(attempt=2)) == Void("cancel_requested")


async def test_a_time_out_survives_a_reaper_that_died_before_the_end() -> None:
    reaping = Reaping()
    await a_claimed_run(reaping)
    await reaping.finisher.release(ThreadId("t1"), R1, 2, Release("timeout", False), timed_out())
    await reaping.check_once()
    finished = reaping.facts("t1")[-1]
    assert isinstance(finished, RunFinished)
    assert (finished.status, finished.error) == ("timeout", TIMED_OUT)


@pytest.mark.parametrize(("end", "released_first"), [(timed_out(), False), (given_up(4), False), (given_up(4), True)])
async def test_a_rollback_counts_also_when_the_reaper_meant_to_end_the_run_otherwise(
    end: End, released_first: bool
) -> None:
    reaping = Reaping()
    await a_claimed_run(reaping)
    steps = [
        reaping.finisher.release(ThreadId("t1"), R1, 2, Release(end.reason, True), end),
        reaping.given("t1", replace(c.cancel_requested(), action="rollback")),
    ]
    for step in steps if released_first else reversed(steps):
        await step
    assert await reaping.finisher.finish(ThreadId("t1"), R1, end)
    finished = reaping.facts("t1")[-1]
    assert isinstance(finished, RunFinished)
    assert (finished.status, finished.view) == ("rollback", {})


async def test_a_lost_run_is_released_without_a_request_to_stop() -> None:
    reaping = Reaping()
    await a_claimed_run(reaping)
    reaping.clock.seconds = 31
    for _ in range(3):  # the first check reads the instance of Redis, two more find no lease
        await reaping.check_once()
    assert reaping.facts("t1")[3:] == [RunReleased(R1, 2, "lost", False)]


async def test_where_redis_refuses_to_show_leases_the_log_alone_tells_which_runs_are_lost() -> None:
    reaping = Reaping()
    reaping.queue.refuses = True
    await a_claimed_run(reaping)
    await a_claimed_run(reaping, "t2", "r2")
    for seconds in range(0, 60, 6):
        reaping.clock.seconds = seconds
        await reaping.append("t2", RunAlive(RunId("r2")), epoch=2)
        await reaping.check_once()
        assert seconds >= 30 or len(reaping.facts("t1")) == 3, "not before the refusal has lasted"
    assert reaping.facts("t1")[3:] == [RunReleased(R1, 2, "lost", False)]
    assert not [fact for fact in reaping.facts("t2") if isinstance(fact, RunReleased)]


async def test_a_released_run_that_is_cancelled_ends_with_the_state_of_its_last_checkpoint() -> None:
    reaping = Reaping()
    await a_claimed_run(reaping)
    await reaping.given("t1", c.run_released(), replace(c.cancel_requested(), error={"error": "UserInterrupt"}))
    await reaping.check_once()
    finished = reaping.facts("t1")[-1]
    assert isinstance(finished, RunFinished)
    assert (finished.status, finished.view, finished.next) == ("interrupted", {"set": {"x": 1}}, ("left",))


async def test_a_run_that_cannot_be_ended_holds_up_no_other() -> None:
    reaping = Reaping()
    for name, run in (("t1", "r1"), ("t2", "r2"), ("t3", "r3")):
        await a_claimed_run(reaping, name, run)
    reaping.states.broken = {ThreadId("t1"): ValueError("user code"), ThreadId("t2"): Unavailable("rows are away")}
    reaping.clock.seconds = OVER_S
    await reaping.check_once()
    assert isinstance(reaping.facts("t3")[-1], RunFinished)
    assert isinstance(reaping.facts("t1")[-1], RunReleased)
    reaping.states.broken = {}
    await reaping.check_once()
    assert [isinstance(reaping.facts(name)[-1], RunFinished) for name in ("t1", "t2")] == [True, True]


async def test_a_run_is_ended_once_however_often_it_is_tried() -> None:
    reaping = Reaping()
    await a_claimed_run(reaping)
    end = End("cancelled", "interrupted", {"error": "UserInterrupt"})
    await reaping.finisher.release(ThreadId("t1"), R1, 2, Release("cancelled", False), end)
    assert await reaping.finisher.finish(ThreadId("t1"), R1, end)
    assert not await reaping.finisher.finish(ThreadId("t1"), R1, end)


async def test_a_state_that_never_comes_holds_up_no_later_look() -> None:
    reaping = Reaping()
    await a_claimed_run(reaping)
    reaping.states.hanging = {ThreadId("t1")}
    reaping.clock.seconds = OVER_S
    await a_claimed_run(reaping, "t2", "r2")
    async with asyncio.timeout(5):
        await reaping.reaper.look()
        await reaping.states.called.wait()
        reaping.clock.seconds = 2 * OVER_S
        await reaping.reaper.look()
        await until(lambda: isinstance(reaping.facts("t2")[-1], RunFinished))
    assert [type(fact) for fact in reaping.facts("t1")[3:]] == [RunCancelRequested, RunReleased]
    await reaping.reaper.leave()


async def test_a_run_is_ended_while_outputs_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(frames: MemoryFrames, *_: object) -> int:
        raise Unavailable("outputs: no leader")

    reaping = Reaping()
    await a_claimed_run(reaping)
    reaping.clock.seconds = OVER_S
    monkeypatch.setattr(MemoryFrames, "end", away)
    monkeypatch.setattr(MemoryFrames, "append", away)
    await reaping.reaper.look()
    await reaping.reaper.idle()
    finished = reaping.facts("t1")[-1]
    assert isinstance(finished, RunFinished)
    assert (finished.status, finished.outputs_to) == ("timeout", None)


async def test_a_release_is_fenced_off_on_the_outputs_before_it_is_on_the_log() -> None:
    reaping = Reaping()
    await a_claimed_run(reaping)
    await reaping.finisher.release(ThreadId("t1"), R1, 2, Release("lost", False))
    released = reaping.log.rows[-1][0]
    assert released.facts == (RunReleased(R1, 2, "lost", False),)
    assert reaping.outputs.fences == [(released.event_id, 3)]


@pytest.mark.parametrize("how", ["away", "silent"])
async def test_outputs_that_cannot_be_written_hold_up_no_release(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlog_processors.timeouts.OUTPUT_FENCE_S", 0.05)
    reaping = Reaping()
    setattr(reaping.outputs, how, True)
    await a_claimed_run(reaping)
    async with asyncio.timeout(5):
        assert await reaping.finisher.release(ThreadId("t1"), R1, 2, Release("lost", False))


async def test_a_run_whose_worker_died_among_others_and_twice_alone_ends_with_an_error_that_names_its_node() -> None:
    reaping, stop = Reaping(), asyncio.Event()
    await reaping.given("t1", thread("t1"), replace(c.run_created("r1"), thread_id=ThreadId("t1")))
    reaping_on = asyncio.create_task(reaping.reaper.run(stop))

    def releases() -> list[tuple[str, bool]]:
        return [(fact.reason, fact.counts) for fact in reaping.facts("t1") if isinstance(fact, RunReleased)]

    async with asyncio.timeout(10):
        for attempt in (1, 2, 3):
            await reaping.given("t1", replace(c.run_claimed(attempt=attempt), worker=f"w{attempt}"))
            if attempt == 1:
                await reaping.saved("t1", "r1", epoch=2)
            reaping.queue.dead.put_nowait(f"w{attempt}")
            await until(lambda: len(releases()) == attempt)  # noqa: B023 - called in this turn
        await until(lambda: isinstance(reaping.facts("t1")[-1], RunFinished))
        stop.set()
        await reaping_on
    assert releases() == [("lost", False), ("lost", True), ("lost", True)]
    finished = reaping.facts("t1")[-1]
    assert isinstance(finished, RunFinished)
    assert (finished.status, finished.view) == ("error", {"set": {"x": 1}})
    assert finished.error is not None
    assert "died twice while it executed node left of graph" in str(finished.error["message"])


async def test_a_named_run_whose_reaper_died_before_the_end_is_ended_by_the_next_one() -> None:
    reaping = Reaping()
    await reaping.given("t1", thread("t1"), replace(c.run_created("r1"), thread_id=ThreadId("t1")))
    for attempt in (1, 2, 3):
        epoch = 2 * attempt
        released = replace(c.run_released(), epoch=epoch, counts=attempt > 1)
        await reaping.given("t1", c.run_claimed(attempt=attempt), released)
    await reaping.check_once()
    finished = reaping.facts("t1")[-1]
    assert isinstance(finished, RunFinished)
    assert finished.error is not None
    assert "died twice while it executed graph agent before its first checkpoint" in str(finished.error["message"])


async def looks(reaping: Reaping, served: Callable[[], Collection[str] | None]) -> Callable[[float], Awaitable[bool]]:
    """Return a function that looks at a time in seconds, and tells whether the run r1 of graph `agent` has ended."""
    await reaping.given("t1", thread("t1"), replace(c.run_created("r1"), thread_id=ThreadId("t1")))
    reaper = ReapRuns(reaping.finisher, reaping.queue, reaping.queue, TIMING, served)

    async def ended_at(seconds: float) -> bool:
        reaping.clock.seconds = seconds
        await reaper.look()
        await reaper.idle()
        return isinstance(reaping.facts("t1")[-1], RunFinished)

    return ended_at


async def test_a_run_that_nobody_can_take_ends_after_the_time_limit_of_runs() -> None:
    reaping = Reaping()
    ended_at = await looks(reaping, lambda: {"another"})
    assert not await ended_at(0)
    assert not await ended_at(LIMIT_S)  # not older than the limit
    assert await ended_at(LIMIT_S + 1)
    finished = reaping.facts("t1")[-1]
    assert isinstance(finished, RunFinished)
    assert finished.error is not None
    assert (finished.status, finished.error["error"]) == ("timeout", "TimeoutError")
    assert "graph agent is not in langgraph.json: nobody could take the run" in str(finished.error["message"])


async def test_an_old_run_outlasts_a_deployment_that_leaves_its_graph_out_for_a_moment() -> None:
    reaping, served = Reaping(), {"agent"}
    ended_at = await looks(reaping, lambda: served)
    assert not await ended_at(100 * LIMIT_S)
    served.discard("agent")
    assert not await ended_at(100 * LIMIT_S + 1)
    assert not await ended_at(101 * LIMIT_S)
    served.add("agent")
    assert not await ended_at(101 * LIMIT_S + 0.5)
    served.discard("agent")
    assert not await ended_at(101 * LIMIT_S + 1), "the graph was back meanwhile"
    assert not await ended_at(102 * LIMIT_S)
    assert await ended_at(102 * LIMIT_S + 1)


async def test_a_housekeeper_that_has_just_started_ends_no_run_of_a_removed_graph() -> None:
    reaping = Reaping()
    ended_at = await looks(reaping, lambda: {"another"})
    assert not await ended_at(100 * LIMIT_S)


async def test_a_look_without_a_readable_langgraph_json_begins_the_observation_again() -> None:
    reaping = Reaping()
    served: list[Collection[str] | None] = [{"another"}, None, {"another"}, {"another"}, {"another"}]
    ended_at = await looks(reaping, lambda: served.pop(0))
    assert [await ended_at(LIMIT_S * look + look) for look in range(4)] == [False, False, False, True]


async def test_a_graph_that_is_back_while_the_rows_are_away_begins_the_observation_again() -> None:
    reaping, served = Reaping(), {"another"}
    ended_at = await looks(reaping, lambda: served)
    assert not await ended_at(0)
    reaping.rows.away = True
    served.add("agent")
    with pytest.raises(Unavailable):
        await ended_at(LIMIT_S)
    reaping.rows.away = False
    served.discard("agent")
    assert not await ended_at(LIMIT_S + 1)


async def test_clients_of_a_run_whose_end_no_reader_could_decode_see_the_error_of_its_row() -> None:
    reaping = Reaping()
    await a_claimed_run(reaping)
    reaping.states.values = {"x": "\ud800"}
    reaping.clock.seconds = OVER_S
    await reaping.check_once()
    finished = reaping.facts("t1")[-1]
    assert isinstance(finished, RunFinished)
    assert finished.error is not None
    assert (finished.status, finished.view) == ("timeout", {})
    assert str(finished.error["message"]).startswith("the end of the run cannot be written: ")
    [end] = [record for record in reaping.outputs.of(ThreadId("t1")) if record.end is not None]
    assert [(frame.event, frame.data) for frame in end.frames] == [("error", finished.error)]
