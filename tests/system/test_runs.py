"""System tests of runs over HTTP: queueing, refusing, ending, deleting; statuses, headers and the resulting threads."""

import asyncio

import pytest
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.checker.records import read_topic
from tests.system.runs_env import UNKNOWN, Gate, done_of, refused, run_status, thread_status
from tests.system.servers import RunningServer

from agentlog_facts.json_value import JsonObject, as_object, dump, load

BUSY = "Thread is already running a task. Wait for it to finish or choose a different multitask strategy."
ALL_STEPS = ["one", "two", "three", "four", "five"]


@pytest.fixture
def api(server: RunningServer) -> Api:
    """Return a client of the server."""
    return Api(server.url)


async def held_run(api: Api, server: RunningServer, thread_id: str, gate: Gate, **more: str) -> str:
    """Start a run and return its id once it waits at the gate."""
    run_id = await api.start_run(thread_id, "steps", gate.held(), {**more})
    await until(lambda: gate.began(server))
    return run_id


async def test_a_run_is_pending_then_running_then_success(api: Api, server: RunningServer) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    run = as_object(
        await api.call("POST", f"/threads/{thread_id}/runs", {"assistant_id": "steps", "input": gate.held()})
    )
    run_id = str(run["run_id"])
    assert (run["status"], run["thread_id"], run["multitask_strategy"]) == ("pending", thread_id, "enqueue")
    assert as_object(run["metadata"])["graph_id"] == "steps"
    await until(lambda: gate.began(server))
    assert (await run_status(api, thread_id, run_id), await thread_status(api, thread_id)) == ("running", "busy")
    gate.open()
    assert done_of(await api.join(thread_id, run_id)) == ALL_STEPS
    assert (await run_status(api, thread_id, run_id), await thread_status(api, thread_id)) == ("success", "idle")
    thread = await api.get(f"/threads/{thread_id}")
    assert as_object(thread["metadata"])["assistant_id"] == run["assistant_id"]
    stored = await api.get(f"/threads/{thread_id}/runs/{run_id}")
    assert {name: stored[name] for name in run if name not in ("status", "updated_at")} == {
        name: run[name] for name in run if name not in ("status", "updated_at")
    }


async def test_runs_of_a_thread_queue_in_the_order_of_their_creation(api: Api, server: RunningServer) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    first = await held_run(api, server, thread_id, gate)
    rest = [await api.start_run(thread_id, "steps", {"name": gate.name}) for _ in range(2)]
    assert [await run_status(api, thread_id, run_id) for run_id in rest] == ["pending", "pending"]
    gate.open()
    assert done_of(await api.join(thread_id, rest[1])) == ALL_STEPS * 3
    starts = [
        line["run_id"]
        for line in server.steps()
        if (line["name"], line["step"], line["edge"]) == (gate.name, "one", "start")
    ]
    assert starts == [first, *rest]
    listed = await api.call("GET", f"/threads/{thread_id}/runs?limit=2&select=run_id")
    assert listed == [{"run_id": rest[1]}, {"run_id": rest[0]}]


async def test_a_busy_thread_rejects_and_the_refusal_lies_on_the_log(api: Api, server: RunningServer) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    run_id = await held_run(api, server, thread_id, gate)
    body: JsonObject = {"assistant_id": "steps", "input": {}, "multitask_strategy": "reject"}
    assert await refused(api, "POST", f"/threads/{thread_id}/runs", body) == (409, BUSY)
    gate.open()
    await api.join(thread_id, run_id)
    assert as_object(await api.call("POST", f"/threads/{thread_id}/runs/wait", body))
    records = await read_topic(server.kafka, "agentlog.events")
    assert [r.value["facts"] for r in records if r.value["stream"] == f"refusals-{thread_id}"]


async def test_of_many_that_reject_at_once_one_gets_the_thread(api: Api, server: RunningServer) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    body = dump({"assistant_id": "steps", "input": gate.held(), "multitask_strategy": "reject"})
    answers = await asyncio.gather(*(api.raw("POST", f"/threads/{thread_id}/runs", body) for _ in range(8)))
    gate.open()
    assert sorted(status for status, _ in answers) == [200] + [409] * 7


@pytest.mark.parametrize("wait", [False, True])
async def test_a_running_run_is_cancelled_and_can_be_resumed(api: Api, server: RunningServer, wait: bool) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    run_id = await held_run(api, server, thread_id, gate)
    path = f"/threads/{thread_id}/runs/{run_id}/cancel?wait={int(wait)}"
    status, content = await api.raw("POST", path)
    assert (status, content.strip()) == ((200, b"{}") if wait else (202, b""))
    assert done_of(await api.join(thread_id, run_id)) == ["one"]
    thread = await api.get(f"/threads/{thread_id}")
    assert (await run_status(api, thread_id, run_id), thread["status"]) == ("interrupted", "interrupted")
    assert thread["error"] == {
        "error": "UserInterrupt",
        "message": "interrupt requested via POST /threads/{thread_id}/runs/{run_id}/cancel",
    }
    gate.open()
    resumed = await api.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "steps", "input": None})
    assert done_of(resumed) == ALL_STEPS


async def test_a_pending_run_is_cancelled_at_once_and_the_running_one_goes_on(api: Api, server: RunningServer) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    first = await held_run(api, server, thread_id, gate)
    second = await api.start_run(thread_id, "steps", {})
    assert (await api.raw("POST", f"/threads/{thread_id}/runs/{second}/cancel"))[0] == 202
    assert await run_status(api, thread_id, second) == "interrupted"
    assert await thread_status(api, thread_id) == "busy"
    gate.open()
    assert done_of(await api.join(thread_id, first)) == ALL_STEPS


async def test_a_rolled_back_run_leaves_nothing(api: Api, server: RunningServer) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    await api.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "steps", "input": {}})
    run_id = await held_run(api, server, thread_id, gate)
    status, _ = await api.raw("POST", f"/threads/{thread_id}/runs/{run_id}/cancel?action=rollback&wait=1")
    assert status == 200
    assert await refused(api, "GET", f"/threads/{thread_id}/runs/{run_id}") == (404, "Not Found")
    assert done_of((await api.get(f"/threads/{thread_id}"))["values"]) == ALL_STEPS
    assert done_of((await api.get(f"/threads/{thread_id}/state"))["values"]) == ALL_STEPS


async def test_who_waits_for_a_run_that_is_rolled_back_gets_nothing(api: Api, server: RunningServer) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    run_id = await held_run(api, server, thread_id, gate)
    joining = asyncio.create_task(api.join(thread_id, run_id))
    await api.raw("POST", f"/threads/{thread_id}/runs/{run_id}/cancel?action=rollback")
    assert await joining == {}
    assert await api.join(thread_id, run_id) == {}  # as a client does whose connection was cut meanwhile


async def test_what_cannot_be_cancelled_is_not_found_and_a_bad_action_is_wrong(api: Api, server: RunningServer) -> None:
    thread_id = await api.thread()
    run_id = await api.start_run(thread_id, "steps", {})
    await api.join(thread_id, run_id)
    finished = await refused(api, "POST", f"/threads/{thread_id}/runs/{run_id}/cancel")
    assert finished[0] == 404
    assert finished[1].startswith("No matching runs to cancel.")
    unknown = await refused(api, "POST", f"/threads/{thread_id}/runs/{UNKNOWN}/cancel")
    assert unknown == (404, "No runs found to cancel.")
    assert (await refused(api, "POST", f"/threads/{thread_id}/runs/{run_id}/cancel?action=zz"))[0] == 422


async def test_deleting_a_run_takes_its_checkpoints_away(api: Api, server: RunningServer) -> None:
    thread_id = await api.thread()
    first = await api.start_run(thread_id, "steps", {"name": "a"})
    await api.join(thread_id, first)
    second = await api.start_run(thread_id, "steps", {"name": "b"})
    await api.join(thread_id, second)
    assert (await api.raw("DELETE", f"/threads/{thread_id}/runs/{second}"))[0] == 204
    thread = await api.get(f"/threads/{thread_id}")
    assert as_object(thread["values"]) == {"name": "a", "done": ALL_STEPS, "padding": []}
    assert as_object((await api.get(f"/threads/{thread_id}/state"))["values"])["name"] == "a"
    assert await refused(api, "GET", f"/threads/{thread_id}/runs/{second}") == (404, "Not Found")
    assert await refused(api, "DELETE", f"/threads/{thread_id}/runs/{second}") == (404, "Run not found")


async def test_deleting_a_running_run_frees_the_thread(api: Api, server: RunningServer) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    run_id = await held_run(api, server, thread_id, gate)
    assert (await api.raw("DELETE", f"/threads/{thread_id}/runs/{run_id}"))[0] == 204
    assert await thread_status(api, thread_id) == "idle"
    again = await api.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "steps", "input": {}})
    gate.open()
    assert done_of(again) == ALL_STEPS


async def test_a_run_is_not_deleted_from_under_another_one(api: Api, server: RunningServer) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    first = await api.start_run(thread_id, "steps", {"name": "a"})
    await api.join(thread_id, first)
    second = await held_run(api, server, thread_id, gate)
    busy = (409, f"Thread {thread_id} has in-flight runs: [{second}]")
    assert await refused(api, "DELETE", f"/threads/{thread_id}/runs/{first}") == busy
    gate.open()
    await api.join(thread_id, second)
    assert (await api.raw("DELETE", f"/threads/{thread_id}/runs/{first}"))[0] == 204


async def test_deleting_a_thread_ends_its_runs_and_everything_of_it_is_gone(api: Api, server: RunningServer) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    run_id = await held_run(api, server, thread_id, gate)
    assert (await api.raw("DELETE", f"/threads/{thread_id}"))[0] == 204
    gate.open()
    gone = (404, f"Thread with ID {thread_id} not found")
    assert await refused(api, "GET", f"/threads/{thread_id}") == gone
    assert await refused(api, "GET", f"/threads/{thread_id}/state") == gone
    assert await refused(api, "GET", f"/threads/{thread_id}/runs") == gone
    assert await refused(api, "DELETE", f"/threads/{thread_id}") == gone
    for last in ("", "/join", "/stream"):
        assert (await refused(api, "GET", f"/threads/{thread_id}/runs/{run_id}{last}"))[0] == 404
    assert await api.call("POST", "/threads/search", {"ids": [thread_id]}) == []


async def test_a_delayed_run_lets_others_pass_and_keeps_the_thread_busy(api: Api) -> None:
    thread_id = await api.thread()
    delayed = await api.start_run(thread_id, "steps", {"name": "late"}, {"after_seconds": 60})
    result = await api.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "steps", "input": {}})
    assert done_of(result) == ALL_STEPS
    assert (await run_status(api, thread_id, delayed), await thread_status(api, thread_id)) == ("pending", "busy")
    body: JsonObject = {"assistant_id": "steps", "input": {}, "multitask_strategy": "reject"}
    assert await refused(api, "POST", f"/threads/{thread_id}/runs", body) == (409, BUSY)
    soon = await api.start_run(thread_id, "steps", {}, {"after_seconds": 0.3})
    assert done_of(await api.join(thread_id, soon)) == ALL_STEPS * 2


async def test_a_failed_run_tells_its_error_and_marks_the_thread(api: Api) -> None:
    thread_id = await api.thread()
    body: JsonObject = {"assistant_id": "steps", "input": {"fail_at": "two"}}
    error: JsonObject = {"error": "RuntimeError", "message": "step two was told to fail"}
    assert await api.call("POST", f"/threads/{thread_id}/runs/wait", body) == {"__error__": error}
    thread = await api.get(f"/threads/{thread_id}")
    assert (thread["status"], thread["error"]) == ("error", error)
    runs = await api.call("GET", f"/threads/{thread_id}/runs?status=error")
    assert isinstance(runs, list)
    assert await api.join(thread_id, str(as_object(runs[0])["run_id"])) == {"__error__": error}


async def test_a_missing_thread_is_made_where_the_run_asks_for_it(api: Api) -> None:
    path = "/threads/019ab000-0000-7000-8000-0000000000aa"
    body: JsonObject = {"assistant_id": "steps", "input": {}, "metadata": {"from": "test"}}
    assert await refused(api, "POST", path + "/runs", body) == (404, "Thread or assistant not found.")
    made = await api.call("POST", path + "/runs/wait", {**body, "if_not_exists": "create"})
    assert done_of(made) == ALL_STEPS
    assert as_object((await api.get(path))["metadata"])["from"] == "test"


async def test_a_stateless_run_takes_its_thread_away_unless_it_shall_stay(api: Api) -> None:
    body: JsonObject = {"assistant_id": "steps", "input": {}}
    assert done_of(await api.call("POST", "/runs/wait", body)) == ALL_STEPS
    for completion, status in (("delete", 404), ("keep", 200)):
        run = as_object(await api.call("POST", "/runs", {**body, "on_completion": completion}))
        thread_id, run_id = str(run["thread_id"]), str(run["run_id"])
        assert done_of(await api.join(thread_id, run_id)) == ALL_STEPS
        assert (await api.raw("GET", f"/threads/{thread_id}"))[0] == status


@pytest.mark.parametrize(("durability", "checkpoints"), [("sync", 7), ("async", 7), ("exit", 1)])
async def test_durability_decides_which_steps_are_saved(api: Api, durability: str, checkpoints: int) -> None:
    thread_id = await api.thread()
    await api.join(thread_id, await api.start_run(thread_id, "steps", {}, {"durability": durability}))
    history = await api.call("GET", f"/threads/{thread_id}/history?limit=100")
    assert isinstance(history, list)
    assert len(history) == checkpoints
    assert as_object(as_object(history[0])["metadata"])["step"] == 5


async def test_a_run_stops_before_and_after_nodes_and_goes_on_without_input(api: Api) -> None:
    thread_id = await api.thread()
    path, body = f"/threads/{thread_id}/runs/wait", {"assistant_id": "steps"}
    first = as_object(await api.call("POST", path, {**body, "input": {}, "interrupt_before": ["two"]}))
    assert (done_of(first), "__interrupt__" in first) == (["one"], False)
    assert await thread_status(api, thread_id) == "interrupted"
    assert (await api.get(f"/threads/{thread_id}/state"))["next"] == ["two"]
    second = await api.call("POST", path, {**body, "input": None, "interrupt_after": ["three"]})
    assert done_of(second) == ["one", "two", "three"]
    assert done_of(await api.call("POST", path, {**body, "input": None})) == ALL_STEPS


async def test_joining_what_is_not_there_is_not_found(api: Api) -> None:
    thread_id = await api.thread()
    run_id = await api.start_run(thread_id, "steps", {})
    other = await api.thread()
    for path in (f"/threads/{thread_id}/runs/{UNKNOWN}", f"/threads/{other}/runs/{run_id}"):
        assert await refused(api, "GET", path + "/join") == (404, "Run not found")
        assert await refused(api, "GET", path + "/stream") == (404, "Run not found")
        assert await refused(api, "GET", path) == (404, "Not Found")
    await api.join(thread_id, run_id)


async def test_null_input_on_a_new_thread_and_input_that_is_no_object_are_errors_of_the_run(api: Api) -> None:
    path = f"/threads/{await api.thread()}/runs/wait"
    nothing = as_object(await api.call("POST", path, {"assistant_id": "steps", "input": None}))
    assert as_object(nothing["__error__"])["error"] == "EmptyInputError"
    text = as_object(await api.call("POST", path, {"assistant_id": "steps", "input": "text"}))
    assert as_object(text["__error__"])["error"] == "InvalidUpdateError"


async def test_a_state_write_while_a_run_is_active_is_refused_and_a_patch_is_not(
    api: Api, server: RunningServer
) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    run_id = await held_run(api, server, thread_id, gate)
    status, detail = await refused(api, "POST", f"/threads/{thread_id}/state", {"values": {"name": "x"}})
    assert (status, detail) == (409, f"Thread {thread_id} has in-flight runs: ['{run_id}']")
    await api.call("PATCH", f"/threads/{thread_id}", {"metadata": {"a": None}})
    gate.open()
    await api.join(thread_id, run_id)
    assert as_object((await api.get(f"/threads/{thread_id}"))["metadata"])["a"] is None


async def test_an_answer_that_waits_says_where_to_come_back_and_beats(api: Api, server: RunningServer) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    run_id = await held_run(api, server, thread_id, gate)
    path = f"/threads/{thread_id}/runs/{run_id}/join"
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert head.startswith("http/1.1 200")
    assert f"\r\nlocation: {path}\r\n" in head
    assert f"\r\ncontent-location: {path.removesuffix('/join')}\r\n" in head
    async with asyncio.timeout(7):
        assert await reader.readexactly(6) == b"1\r\n\n\r\n"
    gate.open()
    rest = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert done_of(load(rest.split(b"\r\n")[1])) == ALL_STEPS
