"""OpenAPI document of the operations, made by FastAPI from the models of paths, queries, bodies and responses.

FastAPI documents the operations, and `Endpoint` serves them: see decision 0024.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, FastAPI, Path, Query
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response

from agentlog_facts.json_value import JsonObject
from agentlog_gateway.api.endpoint import Operation
from agentlog_gateway.schemas.response_models import ErrorResponse

_PARAMETER = re.compile(r"\{(\w+)\}")
_UUIDS = frozenset({"thread_id", "run_id"})


def openapi_document(app: FastAPI, operations: Sequence[Operation], url: str) -> JsonObject:
    """Return the OpenAPI 3.1 document of a server at `url`; the first call makes it, which takes 0.1 s."""
    if app.openapi_schema is None:
        routes = documented(operations).routes
        app.openapi_schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=routes
        )
    return {**app.openapi_schema, "servers": [{"url": url}]}


def documented(operations: Sequence[Operation]) -> APIRouter:
    """Declare operations to FastAPI."""
    router = APIRouter()
    for operation in operations:
        statuses = _statuses(operation)
        status, text = next(iter(statuses.items()))
        router.add_api_route(
            operation.path,
            _Declaration(operation),
            methods=[operation.method],
            operation_id=f"{operation.method.lower()}{re.sub(r'[^a-z_]+', '_', operation.path)}",
            summary=operation.summary,
            tags=[operation.tag],
            status_code=status,
            response_description=text,
            response_model=operation.answer,
            response_class=Response if operation.answer is None else JSONResponse,
            responses=_responses(operation, statuses),
        )
    return router


def _statuses(operation: Operation) -> dict[int, str]:
    """Return the meaning of each status, that of success first."""
    if operation.streams:
        return {200: "Server-sent events", **operation.also}
    return {**operation.also} if operation.answer is None else {200: "Success", **operation.also}


def _responses(operation: Operation, statuses: Mapping[int, str]) -> dict[int | str, dict[str, object]]:
    """Return the facts about responses that FastAPI cannot infer."""
    found: dict[int | str, dict[str, object]] = {status: {"description": text} for status, text in statuses.items()}
    if operation.streams:
        found[200]["content"] = {"text/event-stream": {}}
    if operation.text is not None:
        found[200]["content"] = {operation.text: {"schema": {"type": "string"}}}
    refused: dict[str, object] = {"description": "Refused", "model": ErrorResponse}
    if operation.plain:
        refused["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return {**found, "4XX": refused}


class _Declaration:
    """An operation in the form that FastAPI reads: the signature of a function, which is never called."""

    def __init__(self, operation: Operation) -> None:
        self.__doc__ = None  # FastAPI would show the docstring of the class to clients
        self.__signature__ = Signature(list(_parameters(operation)))

    def __call__(self) -> None:
        raise AssertionError("an Endpoint serves the operations")


def _parameters(operation: Operation) -> Iterator[Parameter]:
    for name in _PARAMETER.findall(operation.path):
        kind = UUID if name in _UUIDS else str
        yield Parameter(name, Parameter.KEYWORD_ONLY, annotation=Annotated[kind, Path()])
    if operation.query is not None:
        yield Parameter("query", Parameter.KEYWORD_ONLY, annotation=Annotated[operation.query, Query()])
    if operation.body is not None:
        yield Parameter("body", Parameter.KEYWORD_ONLY, annotation=operation.body)
