"""Decides which handler answers a method on a path, and turns everything it raises into an answer."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentlog_gateway.bodies import REPLACEMENT
from agentlog_gateway.call import Call, Handler
from agentlog_gateway.consistency import parse_token
from agentlog_gateway.errors import failure_response, problem_response, server_error
from agentlog_gateway.refused_calls import note_refusal
from agentlog_gateway.replies import TOKEN_HEADER
from agentlog_gateway.services import Services

log = logging.getLogger(__name__)

_REPLACEMENT = quote(REPLACEMENT).encode()


@dataclass(frozen=True, slots=True)
class Operation:
    """One documented operation. `answers`: status -> what it means; `streams`: the answer is SSE."""

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    body: type[BaseModel] | None = None
    answers: Mapping[int, str] | None = None
    streams: bool = False
    query: Sequence[str] = ()


def _without_nul(scope: Scope) -> Scope:
    """Return the scope with NULs of its path and query replaced, as in bodies. Source: section 1.1."""
    query: bytes = scope["query_string"]
    given: Mapping[str, str] = scope.get("path_params", {})
    path = {name: text.replace("\0", REPLACEMENT) for name, text in given.items()}
    return {
        **scope,
        "path_params": path,
        "query_string": query.replace(b"%00", _REPLACEMENT).replace(b"\0", _REPLACEMENT),
    }


class Resource:
    """All operations of one path, as an ASGI application."""

    def __init__(self, services: Callable[[], Services], path: str, operations: Sequence[Operation]) -> None:
        self._services = services
        self._path = path
        self._handlers = {operation.method: operation.handler for operation in operations}
        if "GET" in self._handlers:
            self._handlers["HEAD"] = self._handlers["GET"]
        self._allow = ", ".join(sorted(self._handlers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(_without_nul(scope), receive, send)
        handler = self._handlers.get(request.method)
        response: Response | None
        if handler is None:
            response = problem_response(405, "Method Not Allowed", {"Allow": self._allow})
        else:
            response = await self._answer(handler, Call(self._services(), request, self._path))
        if response is not None:
            await response(scope, receive, send)

    async def _answer(self, handler: Handler, call: Call) -> Response | None:
        try:
            token = call.request.headers.get(TOKEN_HEADER)
            if token is not None:
                await call.services.folded.wait(parse_token(token), call.services.limits.read_wait_s)
            return await handler(call)
        except ClientDisconnect:
            return None
        except Exception as error:  # the outermost place of a request: everything becomes an answer
            await note_refusal(call, error)
            response = failure_response(error)
            if response is None:
                log.exception("request.failed", extra={"route": self._path, "correlation_id": call.request_id})
                return server_error()
            return response
