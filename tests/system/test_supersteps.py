"""System tests of threads that are created with a state: supersteps are replayed in the commit that creates them."""

from uuid import uuid4

import pytest
from tests.system.api import Api
from tests.system.runs_env import refused
from tests.system.servers import RunningServer

from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load

STEPS = ["one", "two", "three", "four", "five"]


@pytest.fixture
def api(server: RunningServer) -> Api:
    """Return a client of the server."""
    return Api(server.url)


def step(as_node: str, **values: Json) -> JsonObject:
    """Return a superstep with one update."""
    return {"updates": [{"values": values, "command": None, "as_node": as_node}]}


async def test_a_thread_begins_with_the_state_that_its_supersteps_leave(api: Api) -> None:
    steps: list[Json] = [step("__input__", name="x"), step("one", done=["one"]), step("two", done=["two"])]
    body: JsonObject = {"metadata": {"graph_id": "steps", "a": 1}, "supersteps": steps}
    thread = as_object(await api.call("POST", "/threads", body))
    assert as_object(thread["values"])["done"] == ["one", "two"]
    assert (thread["status"], thread["metadata"]) == ("interrupted", {"graph_id": "steps", "a": 1})
    path = f"/threads/{thread['thread_id']}"
    assert (await api.get(path + "/state"))["next"] == ["three"]
    history = await api.call("GET", path + "/history?limit=9")
    assert isinstance(history, list)
    assert [as_object(as_object(one)["metadata"])["source"] for one in history] == ["update", "update", "input"]
    goes_on: JsonObject = {"assistant_id": "steps", "input": None}
    assert as_object(await api.call("POST", path + "/runs/wait", goes_on))["done"] == STEPS


@pytest.mark.parametrize(
    ("metadata", "steps"),
    [
        ({"graph_id": "steps"}, [step("nowhere", done=["x"])]),
        ({"graph_id": "unknown"}, [step("one", done=["x"])]),
        ({}, [step("one", done=["x"])]),
    ],
)
async def test_a_thread_is_created_although_its_supersteps_fail(
    api: Api, metadata: JsonObject, steps: list[Json]
) -> None:
    thread_id, key = str(uuid4()), {"Idempotency-Key": uuid4().hex}
    body = dump({"thread_id": thread_id, "metadata": metadata, "supersteps": steps})
    status, content = await api.raw("POST", "/threads", body, key)
    assert status == 201
    detail = str(as_object(load(content))["detail"])
    assert detail.startswith(f"Thread {thread_id} was created, but there were problems updating the state: ")
    assert await api.raw("POST", "/threads", body, key) == (status, content)
    assert (await api.get(f"/threads/{thread_id}"))["values"] is None


@pytest.mark.parametrize("goto", ["nowhere", ["three", "nowhere"], {"node": "nowhere", "input": {}}])
async def test_a_command_that_goes_to_a_node_that_the_graph_does_not_have_fails_as_supersteps_do(
    api: Api, goto: Json
) -> None:
    updates: list[Json] = [{"command": {"update": {"done": ["one"]}, "goto": goto}, "as_node": "one"}]
    body: JsonObject = {"metadata": {"graph_id": "steps"}, "supersteps": [{"updates": updates}]}
    status, content = await api.raw("POST", "/threads", dump(body))
    told = "there were problems updating the state: goto names a node that the graph does not have: nowhere"
    assert (status, told in content.decode()) == (201, True), content


async def test_a_command_of_a_superstep_goes_to_its_node(api: Api) -> None:
    updates: list[Json] = [{"command": {"update": {"done": ["one"]}, "goto": "four"}, "as_node": "one"}]
    body: JsonObject = {"metadata": {"graph_id": "steps"}, "supersteps": [{"updates": updates}]}
    thread = as_object(await api.call("POST", "/threads", body))
    assert "four" in str((await api.get(f"/threads/{thread['thread_id']}/state"))["next"])


@pytest.mark.parametrize("command", ["x", {"goto": 5}, {"goto": {"node": 1, "input": {}}}, {"update": "x"}])
async def test_a_superstep_takes_the_commands_of_runs_only(api: Api, command: Json) -> None:
    body: JsonObject = {"metadata": {"graph_id": "steps"}, "supersteps": [{"updates": [{"command": command}]}]}
    assert (await refused(api, "POST", "/threads", body))[0] == 422


async def test_a_thread_that_exists_keeps_its_state(api: Api) -> None:
    body: JsonObject = {"metadata": {"graph_id": "steps"}, "supersteps": [step("one", done=["one"])]}
    thread = as_object(await api.call("POST", "/threads", body))
    again: JsonObject = {**body, "thread_id": thread["thread_id"], "if_exists": "do_nothing"}
    assert await api.call("POST", "/threads", {**again, "supersteps": [step("one", done=["other"])]}) == thread
