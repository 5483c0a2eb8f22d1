"""Tests with real processes and servers: every run has exactly one end, in spite of any fault of its process."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
from tests.processors.roles_env import RolesEnv, open_roles_env, prepare, servers, start_role, surroundings
from tests.stack_fixtures import RunningStack

pytestmark = pytest.mark.slow

STEPS = ["one", "two", "three", "four", "five"]


@pytest.fixture(scope="module")
def own_stack() -> Iterator[RunningStack]:
    """Yield the servers, with a projector and a housekeeper that all tests here share."""
    with servers() as running:
        asyncio.run(prepare(running))
        light = start_role("projector,housekeeper", surroundings(running))
        yield running
        assert light.stop() == 0


@pytest.fixture
async def env(own_stack: RunningStack) -> AsyncIterator[RolesEnv]:
    async with open_roles_env(own_stack) as opened:
        yield opened


async def test_a_run_is_claimed_executed_and_finished(env: RolesEnv) -> None:
    env.start("worker")
    thread, run = await env.create("steps", {"name": "plain"})
    row = await env.until(run, "success", "error")
    assert (row["status"], row["attempt"]) == ("success", 1)
    assert await env.done(thread) == STEPS
    facts = await env.facts(thread)
    assert {verdict for _, _, verdict in facts} == {"accepted"}
    assert [types for stream, types, _ in facts if stream == "thread"] == [
        "ThreadCreated,RunCreated",
        "RunClaimed",
        "RunFinished",
    ]


async def test_runs_of_a_thread_follow_one_another(env: RolesEnv) -> None:
    env.start("worker")
    thread, first = await env.create("steps", {"name": "first", "hold": {"three": "fifo"}})
    _, second = await env.create("steps", {"name": "second"}, thread)
    await env.until_traced(first, "three", "start")
    assert (await env.row(second))["status"] == "pending"
    env.open_gate("fifo")
    await env.until(second, "success")
    assert await env.done(thread) == [*STEPS, *STEPS]


async def test_a_failed_run_says_why_and_frees_the_thread(env: RolesEnv) -> None:
    env.start("worker")
    thread, run = await env.create("steps", {"fail_at": "two"})
    row = await env.until(run, "success", "error")
    assert row["status"] == "error"
    assert "step two was told to fail" in row["error"]
    _, again = await env.create("steps", {"fail_at": "never"}, thread)
    assert (await env.until(again, "success", "error"))["status"] == "success"


async def test_after_a_kill_the_next_attempt_goes_on_from_the_last_checkpoint(env: RolesEnv) -> None:
    worker = env.start("worker")
    thread, run = await env.create("steps", {"name": "killed", "hold": {"four": "kill"}})
    await env.until_traced(run, "four", "start")
    worker.kill()
    env.open_gate("kill")
    env.start("worker")
    row = await env.until(run, "success", "error")
    assert (row["status"], row["attempt"]) == ("success", 2)
    assert await env.done(thread) == STEPS
    ended = [line["step"] for line in env.trace if line["run_id"] == run and line["edge"] == "end"]
    assert ended == STEPS
    assert ("thread", "RunReleased", "accepted") in await env.facts(thread)


async def test_a_worker_that_slept_through_its_lease_writes_nothing_more(env: RolesEnv) -> None:
    sleeper = env.start("worker")
    thread, run = await env.create("steps", {"name": "paused", "hold": {"three": "pause"}})
    await env.until_traced(run, "three", "start")
    sleeper.signal(signal.SIGSTOP)
    env.start("worker")
    await env.until_traced_by_others(run, "three", sleeper)
    env.open_gate("pause")
    row = await env.until(run, "success", "error")
    sleeper.signal(signal.SIGCONT)
    assert (row["status"], row["attempt"]) == ("success", 2)
    assert sleeper.stop() == 0
    facts = await env.facts(thread)
    assert [types for _, types, verdict in facts if verdict == "accepted"].count("RunFinished") == 1
    assert await env.done(thread) == STEPS


async def test_a_cancelled_run_stops_and_keeps_what_it_did(env: RolesEnv) -> None:
    env.start("worker")
    thread, run = await env.create("steps", {"name": "cancelled", "hold": {"three": "never"}})
    await env.until_traced(run, "three", "start")
    await env.cancel(thread, run, "interrupt", timedelta(seconds=30))
    row = await env.until(run, "success", "error", "interrupted")
    assert row["status"] == "interrupted"
    assert "stopped by a test" in row["error"]
    assert await env.done(thread) == ["one", "two"]


async def test_a_rolled_back_run_leaves_the_thread_as_it_was(env: RolesEnv) -> None:
    env.start("worker")
    thread, first = await env.create("steps", {"name": "kept"})
    await env.until(first, "success")
    _, run = await env.create("steps", {"name": "taken back", "hold": {"three": "never"}}, thread)
    await env.until_traced(run, "three", "start")
    await env.cancel(thread, run, "rollback", timedelta(seconds=30))
    assert (await env.until(run, "rollback", "success", "error"))["deleted"]
    assert await env.done(thread) == STEPS
    _, after = await env.create("steps", {"name": "after"}, thread)
    await env.until(after, "success")
    assert await env.done(thread) == [*STEPS, *STEPS]


async def test_a_run_that_does_not_stop_is_ended_for_its_worker(env: RolesEnv) -> None:
    env.start("worker")
    thread, run = await env.create("steps", {"name": "stuck", "block_ms": 6000})
    await env.until_traced(run, "one", "start")
    await env.cancel(thread, run, "interrupt", timedelta(seconds=1))
    row = await env.until(run, "success", "error", "interrupted")
    assert row["status"] == "interrupted"
    facts = [types for _, types, verdict in await env.facts(thread) if verdict == "accepted"]
    assert "RunReleased" in facts
    _, other = await env.create("trivial", {"messages": [{"role": "user", "content": "hello"}]})
    assert (await env.until(other, "success", "error"))["status"] == "success"


async def test_a_run_over_its_time_ends_in_timeout(env: RolesEnv) -> None:
    env.start("worker", BG_JOB_TIMEOUT_SECS="1")
    _, run = await env.create("steps", {"hold": {"two": "never"}})
    row = await env.until(run, "success", "error", "timeout")
    assert (row["status"], "TimeoutError" in row["error"]) == ("timeout", True)


async def test_blocking_user_code_keeps_its_lease_and_lets_other_runs_go_on(env: RolesEnv) -> None:
    env.start("worker")
    _, blocking = await env.create("steps", {"name": "blocks", "block_ms": 1500})
    await env.until_traced(blocking, "one", "start")
    _, other = await env.create("trivial", {"messages": [{"role": "user", "content": "hello"}]})
    assert (await env.until(other, "success", "error"))["status"] == "success"
    assert not [line for line in env.trace if line["run_id"] == blocking and line["step"] == "five"]
    row = await env.until(blocking, "success", "error")
    assert (row["status"], row["attempt"]) == ("success", 1)


async def test_a_draining_worker_gives_its_runs_back(env: RolesEnv) -> None:
    worker = env.start("worker")
    _, run = await env.create("steps", {"name": "drained", "hold": {"two": "drain"}})
    await env.until_traced(run, "two", "start")
    assert worker.stop() == 0
    row = await env.until(run, "pending")
    assert row["counted_attempts"] == 0
    env.open_gate("drain")
    env.start("worker")
    row = await env.until(run, "success", "error")
    assert (row["status"], row["attempt"]) == ("success", 2)


async def test_an_emptied_redis_loses_no_run(env: RolesEnv) -> None:
    runs = [(await env.create("steps", {"name": f"flushed-{n}"}))[1] for n in range(5)]
    await env.flush_redis()
    env.start("worker")
    ended = await asyncio.gather(*(env.until(run, "success", "error") for run in runs))
    assert [row["status"] for row in ended] == ["success"] * 5


async def test_a_dead_worker_that_was_announced_is_not_waited_for(env: RolesEnv) -> None:
    worker = env.start("worker", AGENTLOG_WORKER_ID="worker-to-die", AGENTLOG_LEASE_TTL_SECS="60")
    _, run = await env.create("steps", {"name": "announced", "hold": {"two": "announced"}})
    await env.until_traced(run, "two", "start")
    worker.kill()
    await env.announce_death("worker-to-die")
    assert (await env.until(run, "pending"))["counted_attempts"] == 0
    env.open_gate("announced")  # no suspect may hold the workers of the next tests


async def test_a_run_that_kills_its_worker_again_and_again_is_named(env: RolesEnv) -> None:
    thread, run = await env.create("steps", {"name": "poison", "hold": {"two": "poison"}})
    for number in range(3):  # the first may be the fault of another run, the second may be retried, the third may not
        worker = env.start("worker", AGENTLOG_WORKER_ID=f"poisoned-{number}")
        await env.until_traced(run, "two", "start", number + 1)
        await env.until_saved(thread, 3)
        worker.kill()
        await env.announce_death(f"poisoned-{number}")
        await env.until(run, "pending", "error")
    row = await env.until(run, "error", "success")
    assert "died twice while it executed node two of graph steps" in row["error"]
    assert [types for _, types, verdict in await env.facts(thread) if verdict == "accepted"].count("RunFinished") == 1
