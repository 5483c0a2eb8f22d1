"""System test of a graph that a factory makes by the config of a run: its states are read and written with it."""

import json
from collections.abc import Generator

import pytest
from tests.stack_fixtures import open_folder
from tests.system.api import Api
from tests.system.servers import RunningServer, running_server

from agentlog_facts.json_value import Json, JsonObject, as_object

GRAPH = """
from typing import TypedDict
from langgraph.graph import StateGraph

class State(TypedDict, total=False):
    text: str

class Context(TypedDict, total=False):
    tone: str

def make(config):
    tenant = config["configurable"]["tenant"]

    async def answer(state):
        return {"text": tenant}

    builder = StateGraph(State, context_schema=Context)
    builder.add_node(tenant, answer)
    builder.set_entry_point(tenant)
    builder.set_finish_point(tenant)
    return builder.compile()
"""


@pytest.fixture(scope="module")
def server() -> Generator[RunningServer]:
    """Yield a server of a graph whose node has the name of the tenant."""
    folder = open_folder()
    (folder / "tenants.py").write_text(GRAPH)
    config = folder / "langgraph.json"
    config.write_text(json.dumps({"dependencies": ["."], "graphs": {"tenants": "./tenants.py:make"}}))
    for path in (config, folder / "tenants.py"):
        path.chmod(0o644)
    with running_server(config=config) as running:
        yield running


async def test_the_graph_of_the_last_run_reads_and_writes_the_state(server: RunningServer) -> None:
    api = Api(server.url)
    path = f"/threads/{await api.thread()}"
    run: JsonObject = {
        "assistant_id": "tenants",
        "input": {"text": "x"},
        "config": {"configurable": {"tenant": "acme"}},
        "interrupt_before": ["acme"],
    }
    await api.call("POST", path + "/runs/wait", run)
    assert (await api.get(path + "/state"))["next"] == ["acme"]
    history = await api.call("GET", path + "/history?limit=9")
    assert isinstance(history, list)
    assert [as_object(one)["next"] for one in history] == [["acme"], ["__start__"]]
    await api.call("POST", path + "/state", {"values": {"text": "y"}, "as_node": "acme"})
    state = await api.get(path + "/state")
    assert (state["values"], state["next"]) == ({"text": "y"}, [])


async def test_the_graph_of_a_run_shows_its_output_and_what_its_deletion_leaves(server: RunningServer) -> None:
    api = Api(server.url)
    thread_id = await api.thread()
    path = f"/threads/{thread_id}"
    acme: JsonObject = {"assistant_id": "tenants", "input": {"text": "x"}, "context": {"tenant": "acme"}}
    assert await api.call("POST", path + "/runs/wait", acme) == {"text": "acme"}
    other: JsonObject = {"config": {"configurable": {"tenant": "other"}}}
    run_id = await api.start_run(thread_id, "tenants", {"text": "y"}, other)
    assert await api.join(thread_id, run_id) == {"text": "other"}
    first, last = [str(as_object(run)["run_id"]) for run in reversed(await runs(api, path))]
    assert await api.join(thread_id, first) == {"text": "acme"}
    await api.call("DELETE", f"{path}/runs/{last}")
    assert (await api.get(path))["values"] == {"text": "acme"}
    once: JsonObject = {"assistant_id": "tenants", "input": {"text": "z"}, **other}
    assert await api.call("POST", "/runs/wait", once) == {"text": "other"}


async def runs(api: Api, path: str) -> list[Json]:
    """Return the runs of a thread, the newest first."""
    found = await api.call("GET", path + "/runs")
    assert isinstance(found, list)
    return found
