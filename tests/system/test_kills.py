"""System tests of kill -9 with runs in flight: after a restart each run ends once, and no accepted step runs again."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable

import pytest
from tests.system.api import Api
from tests.system.checker.fold import Judged
from tests.system.checker.invariants import accepted_tasks, epochs
from tests.system.checker.judgement import judged_well, read_settled_queue
from tests.system.checker.notes import Notes
from tests.system.noted import Client, effects
from tests.system.servers import RunningServer, running_server, wait_until

from agentlog_facts.json_value import JsonObject, as_object

RUNS = 20
STEPS = ["one", "two", "three", "four", "five"]
STEP_MS = 150
END_S = 90.0
IN_FLIGHT = {"N_JOBS_PER_WORKER": str(RUNS), "AGENTLOG_LEASE_TTL_SECS": "3"}


async def start_runs(ana: Client, durability: str) -> dict[str, str]:
    """Start RUNS five-node runs on own threads; return run -> thread."""
    threads = [await ana.thread() for _ in range(RUNS)]
    work: list[JsonObject] = [{"sleep_ms": STEP_MS, "name": str(number)} for number in range(RUNS)]
    more: JsonObject = {"durability": durability, "stream_resumable": True}
    return {await ana.start(thread, data, more): thread for thread, data in zip(threads, work, strict=True)}


def kill_worker(server: RunningServer) -> None:
    server.kill_role("worker")


def kill_everything(server: RunningServer) -> None:
    server.kill_everything()
    server.start()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("durability", ["async", "sync"])
@pytest.mark.parametrize("kill", [kill_worker, kill_everything])
async def test_every_run_in_flight_ends_once_and_no_accepted_step_runs_again(
    kill: Callable[[RunningServer], None], durability: str
) -> None:
    with running_server(IN_FLIGHT) as server:
        ana = Client(server.url, "ana", Notes())
        runs = await start_runs(ana, durability)
        await asyncio.to_thread(wait_until, lambda: in_flight(server), END_S, "all runs are in flight")
        for run, thread in list(runs.items())[::5]:
            await ana.look(thread, run)
        await asyncio.to_thread(kill, server)
        await all_end_well(Api(server.url), runs)
        for run, thread in runs.items():
            assert await ana.look(thread, run, with_token=True) == "success"
        steps = server.steps()
        ana.notes.shown = [await ana.show(thread) for thread in runs.values()]
        ana.notes.streams = {run: await ana.stream(thread, run) for run, thread in runs.items()}
        ana.notes.effects = effects(steps)
        ana.notes.queued = await read_settled_queue(server.kafka, server.redis)
        judged, found = await judged_well(server.kafka, server.postgres, ana.notes)
    assert found.runs == dict.fromkeys(runs, "success")
    assert max(found.attempts.values()) >= 2, "the kill hit nothing"
    no_accepted_step_ran_again(steps, judged)


def in_flight(server: RunningServer) -> bool:
    """Return whether every run has ended its first step and about half of them the second."""
    ended = Counter(line["step"] for line in server.steps() if line["edge"] == "end")
    return ended["one"] == RUNS and ended["two"] >= RUNS // 2


async def all_end_well(api: Api, runs: dict[str, str]) -> None:
    """Wait for all runs and check their results."""
    async with asyncio.timeout(END_S):
        values = await asyncio.gather(*(api.join(thread, run) for run, thread in runs.items()))
    assert [value["done"] for value in values] == [STEPS] * RUNS
    for run, thread in runs.items():
        assert (await api.get(f"/threads/{thread}/runs/{run}"))["status"] == "success"
        state = await api.get(f"/threads/{thread}/state")
        assert as_object(state["values"])["done"] == STEPS
        assert state["next"] == []


def no_accepted_step_ran_again(steps: list[dict[str, str]], judged: list[Judged]) -> None:
    """Compare the traces of the steps with the log: a step with accepted writes never runs again, another one may."""
    accepted, claims = accepted_tasks(judged), epochs(judged)
    starts: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for line in steps:
        if line["edge"] == "start":
            starts[line["run_id"]].append((line["step"], line["pid"]))
    for run_id, started in starts.items():
        pids = list(dict.fromkeys(pid for _, pid in started))
        repeated = len(started) - len(STEPS)
        assert repeated <= len(pids) - 1, f"{run_id} repeated {repeated} supersteps: {started}"
        if len(pids) > 1:
            again = {step for step, pid in started if pid != pids[0]} & accepted[run_id][claims[run_id][0]]
            assert not again, f"{run_id}: accepted under its first epoch and run again: {again}"
