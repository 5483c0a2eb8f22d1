"""Decides what a client is told when something cannot be done: a status and one string `detail`, never a traceback.

Source of statuses and texts: docs/http-api.md, sections 1.3 and 1.4.
"""

import logging
from collections.abc import Mapping

from pydantic import ValidationError
from starlette.responses import Response

from agentlog_facts.errors import AgentlogError, OutcomeUnknown, Unavailable
from agentlog_facts.json_value import dump

log = logging.getLogger(__name__)

INVALID_JSON = "Invalid JSON in request body"
INVALID_RUN_TARGET = "Thread or assistant not found."
RETRY_AFTER_S = 1
UNKNOWN = "outcome unknown, retry with the same Idempotency-Key"
AWAY = "a part of the server does not answer now, retry later"
"""Told in place of what a driver said: that names addresses, and stands in the server's log."""


class Problem(Exception):
    """A refusal with its HTTP status; `detail` is shown to the client.

    `reason` is the stable word under which a refused mutation is noted, where no decider has one.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, *, reason: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.reason = reason
        self.headers = dict(headers or {})


def invalid(detail: str) -> Problem:
    """Return the answer to a request that is wrong in itself."""
    return Problem(422, detail)


def thread_not_found(thread_id: str) -> Problem:
    """Return the answer for a thread that does not exist."""
    return Problem(404, f"Thread with ID {thread_id} not found")


def problem_response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return {"detail": text} under a status."""
    return Response(dump({"detail": detail}), status, dict(headers or {}), "application/json")


def failure_response(error: Exception) -> Response | None:
    """Return the answer to a named fault or refusal, None for anything else (which is a defect: 500)."""
    match error:
        case Problem():
            return problem_response(error.status, error.detail, error.headers)
        case ValidationError():
            return problem_response(422, validation_detail(error))
        case OutcomeUnknown():
            log.warning("request.outcome_unknown", extra={"error": str(error)})
            return problem_response(error.status, UNKNOWN, {"Retry-After": str(RETRY_AFTER_S)})
        case Unavailable() | AgentlogError(status=503):
            log.warning("request.unavailable", extra={"code": error.code, "error": str(error)})
            told = AWAY if error.__cause__ is not None else str(error)
            return problem_response(error.status, told, {"Retry-After": str(RETRY_AFTER_S)})
        case AgentlogError() if error.status < 500:
            return problem_response(error.status, str(error))
        case _:
            return None


def server_error() -> Response:
    """Return the answer to a defect; the reason is in the log only."""
    return Response("Internal Server Error", 500, media_type="text/plain")


def validation_detail(error: ValidationError) -> str:
    """Return one text: what is wrong, and where in the body, for each error."""
    return "\n\n".join(_told(problem["loc"], problem["msg"]) for problem in error.errors(include_url=False))


def _told(place: tuple[int | str, ...], message: str) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f'["{step}"]' for step in place)
    return f"{message.removeprefix('Value error, ')}\n\nOn instance{path}" if path else message
