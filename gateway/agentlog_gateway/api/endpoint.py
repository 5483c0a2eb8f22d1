"""ASGI application of one path: the handler of each method, and the response to each error of a handler."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentlog_gateway import timeouts
from agentlog_gateway.api.dependencies import Dependencies
from agentlog_gateway.api.refusal_recorder import note_refusal
from agentlog_gateway.api.request_context import Handler, RequestContext
from agentlog_gateway.http.body import REPLACEMENT
from agentlog_gateway.http.errors import failure_response, problem_response, server_error
from agentlog_gateway.http.responses import REQUEST_ID_HEADER, TOKEN_HEADER
from agentlog_gateway.reads.consistency_token import parse_token
from agentlog_gateway.schemas.queries import QueryString

log = logging.getLogger(__name__)

CLIENT_LEFT = 499
"""Status in the metrics of a request whose client left before its response."""
OTHER_METHOD = "OTHER"
"""Method in the metrics of a request with a method that its path does not have."""
_REPLACEMENT = quote(REPLACEMENT).encode()


@dataclass(frozen=True, slots=True)
class Operation:
    """One documented operation.

    `answer`: the type of the JSON body of a 200, None if there is none; `streams`: a 200 has server-sent events;
    `also`: the meaning of other statuses; `plain`: some refusals are plain text; `text`: the media
    type of a 200 that is not JSON, if there is one. `body` and `query`: the models with
    which the handler reads a request.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    answer: object = None
    body: type[BaseModel] | None = None
    query: type[QueryString] | None = None
    also: Mapping[int, str] = field(default_factory=dict[int, str])
    streams: bool = False
    plain: bool = False
    text: str | None = None


def _without_nul(scope: Scope) -> Scope:
    """Return the scope with the NULs of path and query replaced. Source: docs/http-api.md, section 1.1."""
    query: bytes = scope["query_string"]
    given: Mapping[str, str] = scope.get("path_params", {})
    path = {name: text.replace("\0", REPLACEMENT) for name, text in given.items()}
    return {
        **scope,
        "path_params": path,
        "query_string": query.replace(b"%00", _REPLACEMENT).replace(b"\0", _REPLACEMENT),
    }


class Endpoint:
    """All operations of one path, as an ASGI application."""

    def __init__(self, dependencies: Callable[[], Dependencies], path: str, operations: Sequence[Operation]) -> None:
        self._dependencies = dependencies
        self._path = path
        self._handlers = {operation.method: operation.handler for operation in operations}
        if "GET" in self._handlers:
            self._handlers["HEAD"] = self._handlers["GET"]
        self._allow = ", ".join(sorted(self._handlers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        request = Request(_without_nul(scope), receive, send)
        dependencies = self._dependencies()
        method, handler = request.method, self._handlers.get(request.method)
        response: Response | None
        if handler is None:
            method = OTHER_METHOD
            response = problem_response(405, "Method Not Allowed", {"Allow": self._allow})
        else:
            context = RequestContext(dependencies, request, self._path)
            response = await self._answer(handler, context)
            if response is not None:
                response.headers[REQUEST_ID_HEADER] = context.request_id
        try:
            if response is not None:
                await response(scope, receive, send)
        finally:
            status = CLIENT_LEFT if response is None else response.status_code
            dependencies.requests.note(method, self._path, status, time.perf_counter() - started)

    async def _answer(self, handler: Handler, context: RequestContext) -> Response | None:
        try:
            token = context.request.headers.get(TOKEN_HEADER)
            if token is not None:
                await context.dependencies.progress.wait(parse_token(token), timeouts.TOKEN_WAIT_S)
            return await handler(context)
        except ClientDisconnect:
            return None
        except Exception as error:  # the outermost handler of a request: every error becomes a response
            await note_refusal(context, error)
            response = failure_response(error)
            if response is None:
                log.exception("request.failed", extra={"route": self._path, "correlation_id": context.correlation_id})
                return server_error()
            return response
