"""HTTP responses to errors and refusals: a status and one string `detail`, never a traceback.

Source of statuses and texts: docs/http-api.md, sections 1.3 and 1.4.
"""

import logging
from collections.abc import Mapping

from pydantic import ValidationError
from starlette.responses import Response

from agentlog_facts.errors import AgentlogError, OutcomeUnknown, Unavailable
from agentlog_facts.json_value import dump
from agentlog_gateway import timeouts

log = logging.getLogger(__name__)

INVALID_JSON = "Invalid JSON in request body"
INVALID_RUN_TARGET = "Thread or assistant not found."
UNKNOWN = "outcome unknown, retry with the same Idempotency-Key"
AWAY = "a dependency of the server is unavailable, retry later"
"""Replaces a driver's message, which contains addresses; the server's log has that message."""


class Problem(Exception):
    """A refusal with its HTTP status; the client gets `detail`.

    `reason` is the stable code under which a refused mutation is recorded, where no decider gives one.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, *, reason: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.reason = reason
        self.headers = dict(headers or {})


class PlainProblem(Problem):
    """A refusal that the client gets as plain text."""


def invalid(detail: str) -> Problem:
    """Return the refusal of an invalid request."""
    return Problem(422, detail)


def thread_not_found(thread_id: str) -> Problem:
    """Return the refusal for a thread that does not exist."""
    return Problem(404, f"Thread with ID {thread_id} not found")


def problem_response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with {"detail": text}."""
    return Response(dump({"detail": detail}), status, dict(headers or {}), "application/json")


def failure_response(error: Exception) -> Response | None:
    """Return the response to a known error or refusal, None for anything else (a defect: 500)."""
    match error:
        case PlainProblem():
            return Response(error.detail, error.status, error.headers, "text/plain")
        case Problem():
            return problem_response(error.status, error.detail, error.headers)
        case ValidationError():
            return problem_response(422, validation_detail(error))
        case OutcomeUnknown():
            log.warning("request.outcome_unknown", extra={"error": str(error)})
            return problem_response(error.status, UNKNOWN, _retry_after())
        case Unavailable() | AgentlogError(status=503):
            log.warning("request.unavailable", extra={"code": error.code, "error": str(error)})
            detail = AWAY if error.__cause__ is not None else str(error)
            return problem_response(error.status, detail, _retry_after())
        case AgentlogError() if error.status < 500:
            return problem_response(error.status, str(error))
        case _:
            return None


def _retry_after() -> dict[str, str]:
    return {"Retry-After": str(timeouts.RETRY_AFTER_S)}


def server_error() -> Response:
    """Return the response to a defect; only the log has the reason."""
    return Response("Internal Server Error", 500, media_type="text/plain")


def validation_detail(error: ValidationError) -> str:
    """Return one text that lists each error and its path in the body."""
    return "\n\n".join(_explained(problem["loc"], problem["msg"]) for problem in error.errors(include_url=False))


def _explained(place: tuple[int | str, ...], message: str) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f'["{step}"]' for step in place)
    return f"{message.removeprefix('Value error, ')}\n\nOn instance{path}" if path else message
