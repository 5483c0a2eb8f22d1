"""System tests of the store for graphs: kept over threads, restarts and rebuilds, each item with its writer."""

from collections.abc import Generator
from pathlib import Path

import pytest
from tests.system.api import Api
from tests.system.checker.items import items
from tests.system.checker.judgement import judged_well
from tests.system.rebuilds import rebuilt
from tests.system.servers import RunningServer, running_server

from agentlog_facts.json_value import Json, JsonObject, as_object

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"


@pytest.fixture(scope="module")
def server() -> Generator[RunningServer]:
    with running_server(config=GRAPHS) as running:
        yield running


@pytest.fixture
def api(server: RunningServer) -> Api:
    return Api(server.url)


async def visit(api: Api, who: str, thread_id: str | None = None, **more: Json) -> JsonObject:
    """Run the graph on a thread, by default a new one, and return its values."""
    body: JsonObject = {"assistant_id": "remembering", "input": {"who": who, **more}}
    on = thread_id or await api.thread()
    return as_object(await api.call("POST", f"/threads/{on}/runs/wait", body))


async def runs(api: Api, thread_id: str) -> list[JsonObject]:
    """Return the runs of a thread."""
    found = await api.call("GET", f"/threads/{thread_id}/runs")
    assert isinstance(found, list)
    return [as_object(one) for one in found]


async def test_threads_share_what_their_runs_put(api: Api) -> None:
    assert (await visit(api, "ana"))["count"] == 1
    again = await visit(api, "ana")
    assert (again["count"], again["known"]) == (2, ["ana"])
    assert (await visit(api, "bob"))["known"] == ["ana", "bob"]
    assert (await visit(api, "bob", forget=True))["count"] == 0
    assert (await visit(api, "cem"))["known"] == ["ana", "cem"]


async def test_each_item_names_run_and_epoch_and_outlives_restart_and_rebuild(api: Api, server: RunningServer) -> None:
    thread = await api.thread()
    await visit(api, "dora", thread)
    [run] = await runs(api, thread)
    server.stop()
    server.start()
    assert (await visit(api, "dora"))["count"] == 2
    status, said, told = await rebuilt(server)
    assert status == 0, said + told
    assert (await visit(api, "dora"))["count"] == 3
    events, _ = await judged_well(server.kafka, server.postgres)
    seen = [item for item in items(events) if item.namespace == ("visits", "dora")]
    assert [item.key for item in seen] == ["seen"] * 3
    assert seen[0].run_id == run["run_id"]
    assert not any(item.late for item in items(events))


async def test_what_the_store_does_not_take_is_an_error_of_the_run(api: Api) -> None:
    thread = await api.thread()
    await visit(api, "eve", thread, bad=True)
    [run] = await runs(api, thread)
    assert run["status"] == "error"
    assert (await visit(api, "eve"))["count"] == 2, "the step before stays"
