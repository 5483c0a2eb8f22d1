"""Decides what openapi.json says: every operation that is answered, with the models that check its body."""

import re
from collections.abc import Sequence

from pydantic.json_schema import models_json_schema

from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_facts.version import VERSION
from agentlog_gateway.api.endpoint import Operation

_PARAMETER = re.compile(r"\{(\w+)\}")
REF = "#/components/schemas/{model}"


def openapi_document(operations: Sequence[Operation], url: str) -> JsonObject:
    """Return the OpenAPI 3.1 document."""
    models = {operation.body for operation in operations if operation.body is not None}
    modes = [(model, "validation") for model in sorted(models, key=lambda model: model.__name__)]
    _, found = models_json_schema([(model, "validation") for model, _ in modes], ref_template=REF)
    schemas = as_object(found.get("$defs", {}), "$defs")
    schemas["Problem"] = {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}
    paths: JsonObject = {}
    for operation in operations:
        as_object(paths.setdefault(operation.path, {}))[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "agentlog", "version": VERSION, "description": "An agent server whose truth is a log."},
        "servers": [{"url": url}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(operation: Operation) -> JsonObject:
    parameters: list[Json] = [_parameter(name, "path") for name in _PARAMETER.findall(operation.path)]
    parameters += [_parameter(name, "query") for name in operation.query]
    told: JsonObject = {
        "operationId": f"{operation.method.lower()}{re.sub(r'[^a-z_]+', '_', operation.path)}",
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": parameters,
        "responses": _responses(operation),
    }
    if operation.body is not None:
        schema: JsonObject = {"$ref": REF.format(model=operation.body.__name__)}
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return told


def _parameter(name: str, place: str) -> JsonObject:
    schema: JsonObject = {"type": "string"}
    if place == "path" and name != "checkpoint_id":
        schema["format"] = "uuid"
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _responses(operation: Operation) -> JsonObject:
    answers = operation.answers or {200: "Success"}
    told: JsonObject = {str(status): {"description": text} for status, text in answers.items()}
    if operation.streams:
        told["200"] = {"description": "Server-sent events", "content": {"text/event-stream": {}}}
    problem: JsonObject = {"application/json": {"schema": {"$ref": REF.format(model="Problem")}}}
    told["4XX"] = {"description": "Refused", "content": problem}
    return told
