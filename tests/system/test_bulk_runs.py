"""System tests of requests for several runs: batches, the cancel of many, and the cancel of a thread's active run."""

from uuid import uuid4

import aiohttp
import pytest
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.runs_env import UNKNOWN, Gate, done_of, refused, run_status, thread_status
from tests.system.servers import RunningServer

from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load

ALL_STEPS = ["one", "two", "three", "four", "five"]
RUN: JsonObject = {"assistant_id": "steps", "input": {}, "on_completion": "keep"}


def objects(found: Json) -> list[JsonObject]:
    """Return a list of objects."""
    assert isinstance(found, list)
    return [as_object(one) for one in found]


async def test_a_batch_creates_all_runs_in_order(server: RunningServer) -> None:
    api, mark = Api(server.url), uuid4().hex
    batch: list[Json] = [{**RUN, "metadata": {"mark": mark, "n": number}} for number in range(20)]
    made = objects(await api.call("POST", "/runs/batch", batch))
    assert [as_object(run["metadata"])["n"] for run in made] == list(range(20))
    assert len({str(run["thread_id"]) for run in made}) == 20
    assert {str(run["status"]) for run in made} == {"pending"}
    for run in made:
        assert done_of(await api.join(str(run["thread_id"]), str(run["run_id"]))) == ALL_STEPS


async def test_a_batch_with_the_same_key_creates_its_runs_once(server: RunningServer) -> None:
    api, key = Api(server.url), {"Idempotency-Key": uuid4().hex}
    batch: list[Json] = [{**RUN, "metadata": {"n": number}} for number in range(3)]
    first = objects(await api.call("POST", "/runs/batch", batch, key))
    again = objects(await api.call("POST", "/runs/batch", batch, key))
    assert [run["run_id"] for run in again] == [run["run_id"] for run in first]
    status, _ = await refused(api, "POST", "/runs/batch", [RUN], key)
    assert status == 422


async def test_a_batch_that_is_sent_again_after_its_assistant_was_deleted_is_answered_as_before(
    server: RunningServer,
) -> None:
    api, key = Api(server.url), {"Idempotency-Key": uuid4().hex}
    made = as_object(await api.call("POST", "/assistants", {"graph_id": "steps"}))
    batch: list[Json] = [{**RUN, "assistant_id": made["assistant_id"]} for _ in range(2)]
    first = objects(await api.call("POST", "/runs/batch", batch, key))
    for run in first:
        await api.join(str(run["thread_id"]), str(run["run_id"]))
    await api.call("DELETE", f"/assistants/{made['assistant_id']}")
    again = objects(await api.call("POST", "/runs/batch", batch, key))
    assert [run["run_id"] for run in again] == [run["run_id"] for run in first]
    assert (await refused(api, "POST", "/runs/batch", batch))[0] == 404
    assert (await refused(api, "POST", "/runs/batch", [*batch, RUN], key))[0] == 422


@pytest.mark.parametrize(
    ("batch", "status"),
    [
        ([], 422),
        ({}, 422),
        ([RUN, {"assistant_id": 3}], 422),
        ([RUN, {"assistant_id": "nobody"}], 422),
        ([RUN, {"assistant_id": UNKNOWN}], 404),
        ([RUN, {**RUN, "context": {"a": 1}, "config": {"configurable": {"b": 2}}}], 400),
    ],
)
async def test_a_batch_with_one_bad_run_creates_none(server: RunningServer, batch: Json, status: int) -> None:
    api, mark = Api(server.url), uuid4().hex
    marked: Json = batch
    if isinstance(batch, list):
        marked = [{**as_object(run), "metadata": {"mark": mark}} for run in batch]
    assert (await refused(api, "POST", "/runs/batch", marked))[0] == status
    assert await api.call("POST", "/threads/search", {"metadata": {"mark": mark}}) == []


async def test_named_runs_of_a_thread_are_cancelled(server: RunningServer) -> None:
    api, gate = Api(server.url), Gate(server)
    thread_id = await api.thread()
    runs = [await api.start_run(thread_id, "steps", gate.held()) for _ in range(3)]
    await until(lambda: gate.began(server))
    named: JsonObject = {"thread_id": thread_id, "run_ids": [runs[0], runs[2], UNKNOWN]}
    key = {"Idempotency-Key": uuid4().hex}
    assert await api.raw("POST", "/runs/cancel", dump(named), key) == (204, b"")
    assert [await run_status(api, thread_id, run_id) for run_id in (runs[0], runs[2])] == ["interrupted"] * 2
    assert await api.raw("POST", "/runs/cancel", dump(named), key) == (204, b"")
    assert await refused(api, "POST", "/runs/cancel", named) == (404, "No runs found to cancel.")
    gate.open()
    assert str(done_of(await api.join(thread_id, runs[1]))).count("five") == 1
    shown = await api.get(f"/threads/{thread_id}/runs/{runs[0]}")
    assert shown["cancel_reason"] == "interrupt requested via POST /runs/cancel"
    selected = await api.call("GET", f"/threads/{thread_id}/runs?select=cancel_reason&select=run_id&limit=1&offset=1")
    assert selected == [{"run_id": runs[1], "cancel_reason": None}]


async def test_all_runs_with_a_status_are_cancelled(server: RunningServer) -> None:
    api, gate = Api(server.url), Gate(server)
    threads = [await api.thread() for _ in range(4)]
    running = await api.start_run(threads[0], "steps", gate.held())
    await until(lambda: gate.began(server))
    waiting = [await api.start_run(thread_id, "steps", {}, {"after_seconds": 300}) for thread_id in threads]
    assert await api.raw("POST", "/runs/cancel?action=rollback", dump({"status": "pending"})) == (204, b"")
    for thread_id, run_id in zip(threads, waiting, strict=True):
        assert (await refused(api, "GET", f"/threads/{thread_id}/runs/{run_id}"))[0] == 404
    assert await run_status(api, threads[0], running) == "running"
    assert await api.raw("POST", "/runs/cancel", dump({"status": "running"})) == (204, b"")
    assert await run_status(api, threads[0], running) == "interrupted"
    await api.join(threads[0], running)
    assert (await refused(api, "POST", "/runs/cancel", {"status": "all"}))[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"status": "success"},
        {"status": "all", "thread_id": UNKNOWN, "run_ids": [UNKNOWN]},
        {"thread_id": UNKNOWN},
        {"run_ids": [UNKNOWN]},
        {"thread_id": UNKNOWN, "run_ids": []},
    ],
)
async def test_a_cancel_of_many_needs_exactly_one_form(server: RunningServer, body: JsonObject) -> None:
    assert (await refused(Api(server.url), "POST", "/runs/cancel", body))[0] == 422


async def test_the_active_run_of_a_thread_is_cancelled_without_its_id(server: RunningServer) -> None:
    api, gate = Api(server.url), Gate(server)
    thread_id = await api.thread()
    path = f"/threads/{thread_id}/runs/cancel"
    assert await refused(api, "POST", path) == (404, "No runs found to cancel.")
    assert (await refused(api, "POST", f"/threads/{UNKNOWN}/runs/cancel"))[0] == 404
    first = await api.start_run(thread_id, "steps", gate.held())
    second = await api.start_run(thread_id, "steps", {"name": "second"})
    await until(lambda: gate.began(server))
    key = {"Idempotency-Key": uuid4().hex}
    for _ in range(2):  # the retry cancels nothing else
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{server.url}{path}?wait=1", headers=key) as answer,
        ):
            assert (answer.status, load(await answer.read())) == (200, {})
            assert answer.headers["Content-Location"] == f"/threads/{thread_id}/runs/{first}"
    assert await run_status(api, thread_id, first) == "interrupted"
    reason = (await api.get(f"/threads/{thread_id}/runs/{first}"))["cancel_reason"]
    assert reason == "interrupt requested via POST /threads/{thread_id}/runs/cancel"
    gate.open()
    await api.join(thread_id, second)
    assert await run_status(api, thread_id, second) == "success"
    assert await thread_status(api, thread_id) == "idle"


async def test_cancel_and_delete_with_a_key_take_effect_once(server: RunningServer) -> None:
    api, gate = Api(server.url), Gate(server)
    thread_id = await api.thread()
    run_id = await api.start_run(thread_id, "steps", gate.held())
    await until(lambda: gate.began(server))
    path = f"/threads/{thread_id}/runs/{run_id}"
    key = {"Idempotency-Key": uuid4().hex}
    assert [(await api.raw("POST", f"{path}/cancel", headers=key))[0] for _ in range(2)] == [202, 202]
    assert (await refused(api, "POST", f"{path}/cancel"))[0] == 404
    await api.join(thread_id, run_id)
    assert [(await api.raw("DELETE", path, headers=key))[0] for _ in range(2)] == [204, 204]
    assert (await refused(api, "DELETE", path))[0] == 404


async def test_a_run_names_the_run_that_superseded_it(server: RunningServer) -> None:
    api, gate = Api(server.url), Gate(server)
    thread_id = await api.thread()
    first = await api.start_run(thread_id, "steps", gate.held())
    await until(lambda: gate.began(server))
    second = await api.start_run(thread_id, "steps", {"name": "second"}, {"multitask_strategy": "interrupt"})
    gate.open()
    await api.join(thread_id, second)
    reason = (await api.get(f"/threads/{thread_id}/runs/{first}"))["cancel_reason"]
    assert reason == f"superseded by run {second} (multitask_strategy=interrupt)"


async def test_a_client_that_goes_away_is_the_reason_of_the_cancel(server: RunningServer) -> None:
    api, gate = Api(server.url), Gate(server)
    thread_id = await api.thread()
    body: JsonObject = {"assistant_id": "steps", "input": gate.held(), "on_disconnect": "cancel"}
    path = f"/threads/{thread_id}/runs"
    async with aiohttp.ClientSession() as session, session.post(f"{server.url}{path}/stream", json=body) as answer:
        assert answer.status == 200
        await until(lambda: gate.began(server))
    [run] = objects(await api.call("GET", path))
    await api.join(thread_id, str(run["run_id"]))
    [run] = objects(await api.call("GET", path))
    assert run["cancel_reason"] == "client disconnected from the run stream (on_disconnect=cancel)"


async def test_the_id_of_a_request_comes_back(server: RunningServer) -> None:
    async with aiohttp.ClientSession() as session:
        for path, status in (("/ok", 200), (f"/threads/{UNKNOWN}", 404), ("/info", 200)):
            async with session.get(server.url + path, headers={"X-Request-Id": "mine-1"}) as answer:
                assert (answer.status, answer.headers["X-Request-Id"]) == (status, "mine-1")
        async with session.get(f"{server.url}/ok") as answer:
            assert answer.headers["X-Request-Id"]
