"""openapi.json: typed parameters, a model for each body and response, no dangling reference."""

import json
import re

import pytest
from tests.gateway.web_env import without_database

from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_gateway.routes import OPERATIONS

RUNS = "/threads/{thread_id}/runs"


@pytest.fixture
async def document() -> JsonObject:
    """Return the document as a client gets it the second time."""
    async with without_database() as (client, _):
        first, again = await client.get("/openapi.json"), await client.get("/openapi.json")
    assert first.content == again.content
    return as_object(again.json())


def at(value: Json, *path: str) -> JsonObject:
    """Return the object under these names."""
    for name in path:
        value = as_object(value)[name]
    return as_object(value)


def parameters(document: JsonObject, method: str, path: str) -> dict[str, Json]:
    """Return the schema of each parameter by `in name`; a `!` marks a required parameter."""
    listed = at(document, "paths", path, method)["parameters"]
    assert isinstance(listed, list)
    each = [as_object(parameter) for parameter in listed]
    return {f"{one['in']} {one['name']}{'!' if one['required'] else ''}": one["schema"] for one in each}


async def test_it_names_the_server_and_its_version(document: JsonObject) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": "http://test"}]
    assert at(document, "info")["title"] == "agentlog"


async def test_every_reference_leads_to_a_schema(document: JsonObject) -> None:
    named = set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(document)))
    schemas = at(document, "components", "schemas")
    assert named == {f"#/components/schemas/{name}" for name in schemas}


async def test_every_operation_has_an_id_of_its_own(document: JsonObject) -> None:
    ids = [at(document, "paths", one.path, one.method.lower())["operationId"] for one in OPERATIONS]
    assert len(set(ids)) == len(OPERATIONS)


async def test_parameters_have_types(document: JsonObject) -> None:
    found = parameters(document, "get", RUNS)
    assert list(found) == ["path thread_id!", "query limit", "query offset", "query status", "query select"]
    assert as_object(found["path thread_id!"])["format"] == "uuid"
    limit = as_object(found["query limit"])
    assert (limit["type"], limit["default"], limit["minimum"], limit["maximum"]) == ("integer", 10, 1, 1000)
    assert as_object(found["query select"])["type"] == "array"
    cancel = parameters(document, "post", RUNS + "/{run_id}/cancel")
    assert as_object(cancel["query wait"])["type"] == "boolean"
    assert as_object(cancel["query action"])["enum"] == ["interrupt", "rollback"]


async def test_bodies_and_statuses_are_those_of_the_table(document: JsonObject) -> None:
    for operation in OPERATIONS:
        declared = at(document, "paths", operation.path, operation.method.lower())
        assert ("requestBody" in declared) == (operation.body is not None), operation.path
        if operation.body is not None:
            body = at(declared, "requestBody", "content", "application/json")
            assert body["schema"] == {"$ref": f"#/components/schemas/{operation.body.__name__}"}
        statuses = {int(code) for code in at(declared, "responses") if code.isdecimal()}
        always = {200} if operation.streams or operation.answer is not None else set[int]()
        assert statuses == always | set(operation.also), operation.path
        refused = at(declared, "responses", "4XX", "content", "application/json")
        assert refused["schema"] == {"$ref": "#/components/schemas/ErrorResponse"}


async def test_a_response_has_its_schema_a_stream_its_type_and_nothing_no_content(document: JsonObject) -> None:
    listed = at(document, "paths", RUNS, "get", "responses", "200", "content", "application/json", "schema")
    assert (listed["type"], listed["items"]) == ("array", {"$ref": "#/components/schemas/RunResponse"})
    streamed = at(document, "paths", RUNS + "/stream", "post", "responses", "200", "content")
    assert list(streamed) == ["text/event-stream"]
    cancelled = at(document, "paths", RUNS + "/{run_id}/cancel", "post", "responses")
    assert ["content" in as_object(cancelled[code]) for code in ("200", "202")] == [True, False]
    assert "content" not in at(document, "paths", RUNS + "/{run_id}", "delete", "responses", "204")
