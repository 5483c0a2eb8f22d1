"""Assistants with the official clients, unchanged: every method of both, the structure of graphs, and RemoteGraph."""

# The SDK types states and results as bare dicts.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
from collections.abc import Mapping
from uuid import uuid4

import pytest
from langgraph.pregel.remote import RemoteGraph  # pyright: ignore[reportMissingTypeStubs]  # it is typed, beside our stubs of langgraph
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError
from tests.system.api import Api
from tests.system.runs_env import UNKNOWN, refused
from tests.system.servers import RunningServer

from agentlog_facts.json_value import Json, JsonObject, as_object, load

SCHEMAS = {"graph_id", "input_schema", "output_schema", "state_schema", "config_schema", "context_schema"}
SYSTEM: JsonObject = {"created_by": "system"}


def seen(answer: object) -> Json:
    """Return an answer of the SDK as plain JSON."""
    return load(json.dumps(answer))


async def test_the_async_client_has_every_method(server: RunningServer) -> None:
    mark = {"mark": uuid4().hex}
    async with get_client(url=server.url) as client:
        made = await client.assistants.create(
            "steps", {"tags": ["x"]}, context={"m": 1}, metadata=mark, name="Ana", description="first"
        )
        assistant_id = made["assistant_id"]
        assert await client.assistants.get(assistant_id) == made
        with pytest.raises(ConflictError):
            await client.assistants.create("steps", assistant_id=assistant_id)
        again = await client.assistants.create("steps", assistant_id=assistant_id, if_exists="do_nothing")
        assert again == made
        revised = await client.assistants.update(assistant_id, name="Bob", metadata={"more": True})
        assert (revised["version"], revised["metadata"]) == (2, {**mark, "more": True})
        versions = await client.assistants.get_versions(assistant_id, limit=5)
        assert [(one["version"], one["name"]) for one in versions] == [(2, "Bob"), (1, "Ana")]
        assert [one["version"] for one in await client.assistants.get_versions(assistant_id, {"more": True})] == [2]
        back = await client.assistants.set_latest(assistant_id, 1)
        assert (back["version"], back["name"]) == (1, "Ana")
        found = await client.assistants.search(metadata=mark, graph_id="steps", name="an", response_format="object")
        assert ([one["assistant_id"] for one in found["assistants"]], found["next"]) == ([assistant_id], None)
        assert await client.assistants.count(metadata=mark, graph_id="steps", name="ana") == 1
        graph = await client.assistants.get_graph(assistant_id, xray=True)
        assert {"__start__", "one", "__end__"} <= {node["id"] for node in graph["nodes"]}
        assert set(await client.assistants.get_schemas(assistant_id)) == SCHEMAS
        assert await client.assistants.get_subgraphs(assistant_id, "nowhere", recurse=True) == {}
        await client.assistants.delete(assistant_id, delete_threads=True)
        with pytest.raises(NotFoundError):
            await client.assistants.get(assistant_id)


def test_the_sync_client_has_every_method(server: RunningServer) -> None:
    mark = {"mark": uuid4().hex}
    with get_sync_client(url=server.url) as client:
        made = client.assistants.create("steps", {"configurable": {"m": 1}}, metadata=mark)
        assistant_id = made["assistant_id"]
        assert (client.assistants.get(assistant_id), made["context"]) == (made, {"m": 1})
        assert client.assistants.update(assistant_id, config={"tags": ["y"]}, description="d")["version"] == 2
        assert len(client.assistants.get_versions(assistant_id)) == 2
        assert client.assistants.set_latest(assistant_id, 1)["description"] is None
        found = client.assistants.search(metadata=mark, sort_by="name", sort_order="asc", select=["version"])
        assert seen(found) == [{"version": 1}]
        assert client.assistants.count(metadata=mark) == 1
        assert client.assistants.get_graph(assistant_id)["edges"]
        assert client.assistants.get_schemas(assistant_id)["graph_id"] == "steps"
        assert client.assistants.get_subgraphs(assistant_id) == {}
        client.assistants.delete(assistant_id)
        with pytest.raises(NotFoundError):
            client.assistants.update(assistant_id, name="late")
        with pytest.raises(UnprocessableEntityError):
            client.assistants.get("steps")


def test_a_remote_graph_draws_the_graph_by_name_and_by_id(server: RunningServer) -> None:
    with get_sync_client(url=server.url) as client:
        [assistant] = client.assistants.search(graph_id="agent", metadata=SYSTEM)
        drawings = [
            RemoteGraph(name, sync_client=client).get_graph(xray=xray)
            for name in ("agent", assistant["assistant_id"])
            for xray in (False, True, 1)
        ]
    assert all("__start__" in drawing.nodes and drawing.edges for drawing in drawings)
    assert "__start__" in drawings[0].draw_mermaid()


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/assistants/{}/graph?xray=0", 422, "Invalid xray value"),
        ("/assistants/{}/graph?xray=-1", 422, "Invalid xray value"),
        ("/assistants/{}/graph?xray=deep", 422, "Invalid xray value"),
        (f"/assistants/{UNKNOWN}/graph", 404, "Not Found"),
        (f"/assistants/{UNKNOWN}/schemas", 404, "Not Found"),
        (f"/assistants/{UNKNOWN}/subgraphs", 404, "Not Found"),
        ("/assistants/nowhere/graph", 422, "Invalid assistant ID: must be a UUID"),
        ("/assistants/steps/schemas", 422, "Invalid assistant ID: must be a UUID"),
    ],
)
async def test_a_bad_question_about_a_graph_is_refused(
    server: RunningServer, path: str, status: int, detail: str
) -> None:
    async with get_client(url=server.url) as client:
        [assistant] = await client.assistants.search(graph_id="steps", metadata=SYSTEM)
    found, text = await refused(Api(server.url), "GET", path.format(assistant["assistant_id"]))
    assert (found, detail in text) == (status, True), text


async def test_the_examples_have_schemas_that_name_their_fields(server: RunningServer) -> None:
    api = Api(server.url)
    async with get_client(url=server.url) as client:
        for assistant in await client.assistants.search(metadata=SYSTEM, limit=10):
            found = await api.get(f"/assistants/{assistant['assistant_id']}/schemas")
            for name in ("input_schema", "output_schema", "state_schema"):
                schema = as_object(found[name])
                assert isinstance(schema.get("properties"), Mapping), (assistant["graph_id"], name)
