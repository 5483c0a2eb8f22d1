"""System tests of state and history over HTTP: interrupts and answers, manual updates, forks, reads at a checkpoint."""

import asyncio

import pytest
from tests.system.api import Api
from tests.system.runs_env import UNKNOWN, Gate, done_of, refused
from tests.system.servers import RunningServer, wait_until

from agentlog_facts.json_value import Json, JsonObject, as_object

ALL_STEPS = ["one", "two", "three", "four", "five"]
PAY: JsonObject = {"messages": [{"role": "user", "content": "Pay 25 EUR to Ana"}]}
APPROVE: JsonObject = {"resume": {"decisions": [{"type": "approve"}]}}


@pytest.fixture
def api(server: RunningServer) -> Api:
    """Return a client of the server."""
    return Api(server.url)


async def steps(api: Api, **more: Json) -> str:
    """Return a thread with an ended run of `steps`."""
    thread_id = await api.thread()
    body: JsonObject = {"assistant_id": "steps", "input": {}, **more}
    await api.call("POST", f"/threads/{thread_id}/runs/wait", body)
    return thread_id


async def history(api: Api, thread_id: str, body: JsonObject | None = None) -> list[JsonObject]:
    """Return past states, newest first."""
    found = await api.call("POST", f"/threads/{thread_id}/history", {"limit": 100, **(body or {})})
    assert isinstance(found, list)
    return [as_object(state) for state in found]


async def test_an_interrupt_waits_for_its_answer_and_is_shown_everywhere(api: Api) -> None:
    thread_id = await api.thread()
    path = f"/threads/{thread_id}/runs"
    first = as_object(await api.call("POST", path + "/wait", {"assistant_id": "agent", "input": PAY}))
    asked = first["__interrupt__"]
    assert isinstance(asked, list)
    interrupt = as_object(asked[0])
    assert (len(asked), interrupt["response_schema"], len(str(interrupt["id"]))) == (1, None, 32)
    assert "messages" in first
    run_id = str(as_object((await list_runs(api, path))[0])["run_id"])
    assert await api.join(thread_id, run_id) == first
    thread, state = await api.get(f"/threads/{thread_id}"), await api.get(f"/threads/{thread_id}/state")
    shown = {"id": interrupt["id"], "value": interrupt["value"]}
    tasks = state["tasks"]
    assert isinstance(tasks, list)
    task = as_object(tasks[0])
    assert (thread["status"], thread["interrupts"]) == ("interrupted", {str(task["id"]): [shown]})
    assert (task["interrupts"], state["interrupts"]) == ([shown], [shown])
    found = await api.call("POST", "/threads/search", {"status": "interrupted", "ids": [thread_id]})
    assert isinstance(found, list)
    assert len(found) == 1
    done = as_object(await api.call("POST", path + "/wait", {"assistant_id": "agent", "command": APPROVE}))
    assert "__interrupt__" not in done
    thread = await api.get(f"/threads/{thread_id}")
    assert (thread["status"], thread["interrupts"]) == ("idle", {})


async def list_runs(api: Api, path: str) -> list[Json]:
    found = await api.call("GET", path)
    assert isinstance(found, list)
    return found


async def test_a_thread_without_a_run_has_an_empty_state_and_takes_none(api: Api) -> None:
    thread_id = await api.thread()
    state = await api.get(f"/threads/{thread_id}/state")
    assert (state["values"], state["next"], state["metadata"], state["checkpoint"]) == ({}, [], None, None)
    assert await history(api, thread_id) == []
    assert (await refused(api, "POST", f"/threads/{thread_id}/state", {"values": {"name": "x"}}))[0] == 400


async def test_a_write_by_hand_makes_a_checkpoint_and_moves_the_thread(api: Api) -> None:
    thread_id = await steps(api)
    before = await api.get(f"/threads/{thread_id}/state")
    answer = as_object(await api.call("POST", f"/threads/{thread_id}/state", {"values": {"name": "by hand", "zz": 1}}))
    state, thread = await api.get(f"/threads/{thread_id}/state"), await api.get(f"/threads/{thread_id}")
    assert answer["checkpoint"] == state["checkpoint"] == answer["configurable"]
    assert (as_object(state["values"])["name"], "zz" in as_object(state["values"])) == ("by hand", False)
    assert as_object(state["metadata"])["source"] == "update"
    assert state["parent_checkpoint"] == before["checkpoint"]
    assert as_object(thread["values"])["name"] == "by hand"
    assert thread["status"] == "idle"


async def test_a_write_as_a_node_leaves_what_follows_it_to_be_done(api: Api) -> None:
    thread_id = await steps(api)
    path = f"/threads/{thread_id}"
    await api.call("POST", path + "/state", {"values": {"done": ["again"]}, "as_node": "three"})
    assert ((await api.get(path))["status"], (await api.get(path + "/state"))["next"]) == ("interrupted", ["four"])
    done = await api.call("POST", path + "/runs/wait", {"assistant_id": "steps", "input": None})
    assert done_of(done) == [*ALL_STEPS, "again", "four", "five"]
    status, detail = await refused(api, "POST", path + "/state", {"values": {"name": "x"}, "as_node": "nobody"})
    assert (status, "nobody" in detail) == (400, True)


async def test_history_is_newest_first_and_can_be_narrowed(api: Api) -> None:
    thread_id = await steps(api)
    states = await history(api, thread_id)
    done = [done_of(state["values"]) or [] for state in states]
    assert done == [ALL_STEPS[:count] for count in (5, 4, 3, 2, 1, 0, 0)]
    assert await api.call("GET", f"/threads/{thread_id}/history") == states[:1]
    assert await api.call("GET", f"/threads/{thread_id}/history?limit=0") == []
    third = str(states[2]["checkpoint_id"])
    assert await api.call("GET", f"/threads/{thread_id}/history?limit=2&before={third}") == states[3:5]
    flat: JsonObject = {"checkpoint_id": third}
    forms: list[Json] = [third, flat, {"configurable": flat}]
    for before in forms:
        assert await history(api, thread_id, {"before": before, "limit": 2}) == states[3:5]
    assert [state["checkpoint_id"] for state in await history(api, thread_id, {"metadata": {"source": "input"}})] == [
        states[6]["checkpoint_id"]
    ]
    selected = await history(api, thread_id, {"select": ["next", "values.done"], "limit": 1})
    assert selected == [{"next": [], "values": {"done": ALL_STEPS}}]


async def test_a_state_is_read_at_its_checkpoint(api: Api) -> None:
    thread_id = await steps(api)
    third = (await history(api, thread_id))[2]
    at = str(third["checkpoint_id"])
    assert done_of((await api.get(f"/threads/{thread_id}/state/{at}"))["values"]) == ALL_STEPS[:3]
    body: JsonObject = {"checkpoint": {"checkpoint_id": at}}
    posted = as_object(await api.call("POST", f"/threads/{thread_id}/state/checkpoint", body))
    assert done_of(posted["values"]) == ALL_STEPS[:3]
    unknown = await api.get(f"/threads/{thread_id}/state/{UNKNOWN}")
    assert (unknown["values"], as_object(unknown["checkpoint"])["checkpoint_id"]) == ({}, UNKNOWN)


@pytest.mark.parametrize("way", ["checkpoint_id", "checkpoint", "config"])
async def test_a_run_from_a_checkpoint_forks_and_keeps_the_other_branch(api: Api, way: str) -> None:
    thread_id = await steps(api)
    states = await history(api, thread_id)
    at = str(states[2]["checkpoint_id"])
    ref: JsonObject = {"checkpoint_id": at}
    config: JsonObject = {"configurable": ref}
    ways: JsonObject = {"checkpoint_id": at, "checkpoint": ref, "config": config}
    body: JsonObject = {"assistant_id": "steps", "input": None, way: ways[way]}
    assert done_of(await api.call("POST", f"/threads/{thread_id}/runs/wait", body)) == ALL_STEPS
    after = await history(api, thread_id)
    assert after[-len(states) :] == states
    assert as_object(after[len(after) - len(states) - 1]["metadata"])["source"] == "fork"


async def test_a_write_at_an_old_checkpoint_forks_there(api: Api) -> None:
    thread_id = await steps(api)
    at = (await history(api, thread_id))[3]
    body: JsonObject = {"values": {"name": "fork"}, "checkpoint": at["checkpoint"]}
    await api.call("POST", f"/threads/{thread_id}/state", body)
    state = await api.get(f"/threads/{thread_id}/state")
    assert (done_of(state["values"]), state["parent_checkpoint_id"]) == (ALL_STEPS[:2], at["checkpoint_id"])


async def test_commands_write_and_go_to_nodes(api: Api) -> None:
    thread_id = await steps(api)
    path = f"/threads/{thread_id}/runs/wait"
    updated = await api.call("POST", path, {"assistant_id": "steps", "command": {"update": {"name": "told"}}})
    assert as_object(updated)["name"] == "told"
    went = await api.call("POST", path, {"assistant_id": "steps", "command": {"goto": "four"}})
    assert done_of(went) == [*ALL_STEPS, "four", "five"]


async def test_a_thread_whose_input_failed_is_shown_and_repaired(api: Api) -> None:
    thread_id = await steps(api)
    path = f"/threads/{thread_id}"
    wrong: JsonObject = {"assistant_id": "steps", "input": {"done": 5}}
    assert "__error__" in as_object(await api.call("POST", path + "/runs/wait", wrong))
    state, thread = await api.get(path + "/state"), await api.get(path)
    assert (done_of(state["values"]), thread["status"]) == (ALL_STEPS, "error")
    [failed, *_] = await list_runs(api, path + "/runs")
    assert (await api.raw("DELETE", f"{path}/runs/{as_object(failed)['run_id']}"))[0] == 204
    state, thread = await api.get(path + "/state"), await api.get(path)
    assert (done_of(state["values"]), thread["status"], thread["error"]) == (ALL_STEPS, "idle", None)


async def test_a_run_is_rolled_back_on_a_thread_whose_input_failed(api: Api, server: RunningServer) -> None:
    thread_id = await steps(api)
    path = f"/threads/{thread_id}"
    wrong: JsonObject = {"assistant_id": "steps", "input": {"done": 5}}
    await api.call("POST", path + "/runs/wait", wrong)
    error = (await api.get(path))["error"]
    gate = Gate(server)
    run_id = await api.start_run(thread_id, "steps", gate.held())
    await asyncio.to_thread(wait_until, lambda: gate.began(server), 20, "the held step begins")
    assert (await api.raw("POST", f"{path}/runs/{run_id}/cancel?action=rollback&wait=1"))[0] == 200
    thread = await api.get(path)
    assert (thread["status"], thread["error"], done_of(thread["values"])) == ("error", error, ALL_STEPS)
    assert "service.failed" not in server.log()


async def test_a_thread_takes_one_update_after_another(api: Api) -> None:
    thread_id = await steps(api)
    path = f"/threads/{thread_id}"
    for name in ("first", "second"):
        command: JsonObject = {"update": {"name": name}}
        told = await api.call("POST", path + "/runs/wait", {"assistant_id": "steps", "command": command})
        assert as_object(told)["name"] == name
        assert as_object((await api.get(path + "/state"))["values"])["name"] == name
    again = await api.call("POST", path + "/runs/wait", {"assistant_id": "steps", "input": {}})
    assert (as_object(again)["name"], done_of(again)) == ("second", ALL_STEPS * 2)
