"""System tests of refusals: a refused mutation of an existing or deleted aggregate is a fact; other errors are not."""

import pytest
from tests.system.api import Api
from tests.system.checker.records import read_topic
from tests.system.runs_env import UNKNOWN, refused
from tests.system.servers import RunningServer

from agentlog_facts.json_value import Json, JsonObject, as_object


@pytest.fixture
def api(server: RunningServer) -> Api:
    """Return a client of the server."""
    return Api(server.url)


async def refusal_facts(server: RunningServer, key: str) -> list[tuple[Json, Json]]:
    """Return command and reason of all refusal facts of an aggregate, in order."""
    records = await read_topic(server.kafka, "agentlog.events")
    mine = [record.value["facts"] for record in records if record.value["stream"] == f"refusals-{key}"]
    data = [as_object(as_object(fact)["data"]) for facts in mine if isinstance(facts, list) for fact in facts]
    return [(fact["command"], fact["reason"]) for fact in data]


async def test_each_refused_mutation_leaves_its_command_and_reason(api: Api, server: RunningServer) -> None:
    thread_id = await api.thread()
    path = f"/threads/{thread_id}"
    run: JsonObject = {"assistant_id": "trivial", "input": {}}
    both: JsonObject = {**run, "context": {"a": 1}, "config": {"configurable": {"a": 1}}}
    cases: list[tuple[str, str, Json, int, tuple[str, str]]] = [
        ("POST", "/threads", {"thread_id": thread_id}, 409, ("CreateThread", "thread_exists")),
        ("POST", f"{path}/state", {"values": {}}, 400, ("UpdateState", "thread_without_graph")),
        ("POST", f"{path}/runs", {"assistant_id": UNKNOWN}, 404, ("CreateRun", "assistant_not_found")),
        ("POST", f"{path}/runs/stream", both, 400, ("CreateRun", "context_and_configurable")),
        ("POST", f"{path}/runs/{UNKNOWN}/cancel", None, 404, ("CancelRun", "run_not_found")),
        ("DELETE", f"{path}/runs/{UNKNOWN}", None, 404, ("DeleteRun", "run_not_found")),
    ]
    for method, at, body, status, _ in cases:
        assert (await refused(api, method, at, body))[0] == status
    await api.call("POST", f"{path}/runs/wait", run)
    assert (await refused(api, "POST", f"{path}/state", {"values": {}, "as_node": "zz"}))[0] == 400
    await api.call("DELETE", path)
    assert (await refused(api, "PATCH", path, {"metadata": {}}))[0] == 404
    assert (await refused(api, "DELETE", path))[0] == 404
    assert (await refused(api, "POST", f"{path}/runs/wait", run))[0] == 404
    assert await refusal_facts(server, thread_id) == [
        *(case[-1] for case in cases),
        ("UpdateState", "bad_update"),
        ("PatchThread", "thread_not_found"),
        ("DeleteThread", "thread_not_found"),
        ("CreateRun", "thread_not_found"),
    ]


async def test_validation_errors_reads_and_unknown_aggregates_leave_none(api: Api, server: RunningServer) -> None:
    thread_id, path = await api.thread(), f"/threads/{UNKNOWN}"
    before = len(await read_topic(server.kafka, "agentlog.events"))
    assert (await refused(api, "POST", f"/threads/{thread_id}/runs", {"assistant_id": "nobody"}))[0] == 422
    assert (await refused(api, "GET", f"/threads/{thread_id}/runs/{UNKNOWN}"))[0] == 404
    assert (await refused(api, "POST", f"{path}/history", {}))[0] == 404
    cases: list[tuple[str, str, Json]] = [
        ("PATCH", path, {"metadata": {}}),
        ("DELETE", path, None),
        ("POST", f"{path}/state", {"values": {}}),
        ("POST", f"{path}/runs/wait", {"assistant_id": "trivial"}),
        ("POST", f"{path}/runs/{UNKNOWN}/cancel", None),
        ("DELETE", f"{path}/runs/{UNKNOWN}", None),
    ]
    for method, at, body in cases:
        assert (await refused(api, method, at, body))[0] == 404
    assert len(await read_topic(server.kafka, "agentlog.events")) == before
