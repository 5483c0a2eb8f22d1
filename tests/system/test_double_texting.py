"""System tests of double texting: the runs of a thread when a new run takes their place.

Source: docs/http-api.md, section 8.
"""

import asyncio

import pytest
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.checker.judgement import judged_well
from tests.system.runs_env import Gate, done_of, run_status, thread_status
from tests.system.servers import RunningServer
from tests.system.sse import events

from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load

NEAR_MS = 20
"""The length of a step for a run that is interrupted near its end: the time of a few requests."""
ALL_STEPS = ["one", "two", "three", "four", "five"]


@pytest.fixture
def api(server: RunningServer) -> Api:
    """Return a client of the server."""
    return Api(server.url)


async def running(api: Api, server: RunningServer, thread_id: str, gate: Gate) -> str:
    """Start a run and return its id once it waits at the gate."""
    run_id = await api.start_run(thread_id, "steps", gate.held())
    await until(lambda: gate.began(server))
    return run_id


async def superseding(api: Api, thread_id: str, strategy: str, data: Json) -> JsonObject:
    """Create a run that replaces the running one."""
    body: JsonObject = {"assistant_id": "steps", "input": data, "multitask_strategy": strategy}
    return as_object(await api.call("POST", f"/threads/{thread_id}/runs", body))


@pytest.mark.parametrize(
    ("strategy", "left", "error"), [("interrupt", ["one"], "UserInterrupt"), ("rollback", [], "UserRollback")]
)
async def test_a_run_takes_the_place_of_those_that_run_and_wait(
    api: Api, server: RunningServer, strategy: str, left: list[str], error: str
) -> None:
    thread_id, gate, next_gate = await api.thread(), Gate(server), Gate(server)
    first = await running(api, server, thread_id, gate)
    waiting = await api.start_run(thread_id, "steps", {})
    joining = asyncio.create_task(api.join(thread_id, first))
    streaming = asyncio.create_task(_names(f"{server.url}/threads/{thread_id}/runs/{first}/stream"))
    run = await superseding(api, thread_id, strategy, next_gate.held("one"))
    assert (run["status"], run["multitask_strategy"]) == ("pending", strategy)
    await until(lambda: next_gate.began(server, "one"))

    assert done_of(await joining) == (None if strategy == "rollback" else left)
    assert "error" not in await streaming
    for old in (first, waiting):
        status, content = await api.raw("GET", f"/threads/{thread_id}/runs/{old}")
        assert status == (404 if strategy == "rollback" else 200)
        if status == 200:
            assert as_object(load(content))["status"] == "interrupted"
    thread = await api.get(f"/threads/{thread_id}")
    told = f"superseded by run {run['run_id']} (multitask_strategy={strategy})"
    assert (thread["status"], thread["error"]) == ("busy", {"error": error, "message": told})

    next_gate.open()
    assert done_of(await api.join(thread_id, str(run["run_id"]))) == left + ALL_STEPS
    thread = await api.get(f"/threads/{thread_id}")
    assert (thread["status"], thread["error"]) == ("idle", None)
    gate.open()
    judged, _ = await judged_well(server.kafka, server.postgres)
    by_commit = [[kind for kind, _ in one.facts] for one in judged if one.stream == f"thread-{thread_id}"]
    assert ["RunCancelRequested", "RunFinished", "RunCreated"] in by_commit, "one commit decides all of it"


@pytest.mark.timeout(240)
async def test_a_rollback_is_one_however_near_the_end_of_the_run_it_comes(
    api: Api, server: RunningServer, full: bool
) -> None:
    asked: set[str] = set()
    for _ in range(20 if full else 3):
        for step in ALL_STEPS[2:]:
            asked |= await asked_for_a_rollback(api, server, step)
    _, found = await judged_well(server.kafka, server.postgres)
    assert asked, "all runs had ended before"
    assert {found.runs[run_id] for run_id in asked} == {"rollback"}
    print(f"{len(asked)} rollbacks accepted near the end of their run")


async def asked_for_a_rollback(api: Api, server: RunningServer, step: str) -> set[str]:
    """Roll back two runs at the end of their step, one by a run in its place; return those whose rollback was accepted
    before their end, after a check of their results.
    """
    alone, replaced = Gate(server), Gate(server)
    threads = [await api.thread(), await api.thread()]
    runs = [
        await api.start_run(thread_id, "steps", {"name": gate.name, "sleep_ms": NEAR_MS})
        for thread_id, gate in zip(threads, (alone, replaced), strict=True)
    ]
    await until(lambda: _ended(server, alone.name, step))
    status, _ = await api.raw("POST", f"/threads/{threads[0]}/runs/{runs[0]}/cancel?action=rollback&wait=true")
    await until(lambda: _ended(server, replaced.name, step))
    other = await superseding(api, threads[1], "rollback", {})
    done = done_of(await api.join(threads[1], str(other["run_id"])))
    assert (await api.get(f"/threads/{threads[0]}"))["values"] is None or status == 404
    assert done in (ALL_STEPS, ALL_STEPS * 2)
    return {run for run, accepted in zip(runs, (status == 200, done == ALL_STEPS), strict=True) if accepted}


def _ended(server: RunningServer, name: str, step: str) -> bool:
    return any((line["name"], line["step"], line["edge"]) == (name, step, "end") for line in server.steps())


async def _names(url: str) -> list[str]:
    return [event.event async for event in events(url)]


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_a_run_that_finds_nothing_to_replace_simply_runs(api: Api, strategy: str) -> None:
    thread_id = await api.thread()
    run = await superseding(api, thread_id, strategy, {})
    assert done_of(await api.join(thread_id, str(run["run_id"]))) == ALL_STEPS


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_of_many_that_take_each_others_place_one_is_left(api: Api, server: RunningServer, strategy: str) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    body = dump({"assistant_id": "steps", "input": gate.held(), "multitask_strategy": strategy})
    answers = await asyncio.gather(*(api.raw("POST", f"/threads/{thread_id}/runs", body) for _ in range(8)))
    assert [status for status, _ in answers] == [200] * 8
    runs = [str(as_object(load(content))["run_id"]) for _, content in answers]
    judged, _ = await judged_well(server.kafka, server.postgres, ended=False)
    accepted = [one for one in judged if one.verdict == "accepted"]
    created = [str(data["run_id"]) for one in accepted for kind, data in one.facts if kind == "RunCreated"]
    last = max(runs, key=created.index)
    gate.open()
    assert done_of(await api.join(thread_id, last)) is not None
    assert (await run_status(api, thread_id, last), await thread_status(api, thread_id)) == ("success", "idle")
    _, found = await judged_well(server.kafka, server.postgres)
    ended = "rollback" if strategy == "rollback" else "interrupted"
    assert {run: found.runs[run] for run in runs} == {run: "success" if run == last else ended for run in runs}
