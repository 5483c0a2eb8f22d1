"""HTTP responses: compact JSON, times with microseconds, pagination, ids and tokens in headers."""

from collections.abc import Mapping
from datetime import UTC, datetime

from starlette.responses import Response

from agentlog_facts.json_value import Json, dump

JSON = "application/json"
TOKEN_HEADER = "X-Consistency-Token"
REQUEST_ID_HEADER = "X-Request-Id"


def json_response(value: Json, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
    """Return a response with a JSON body."""
    return Response(dump(value), status, dict(headers or {}), JSON)


def document_response(document: bytes, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a body that is JSON already."""
    return Response(document, 200, headers, JSON)


def no_content(headers: Mapping[str, str] | None = None) -> Response:
    """Return 204."""
    return Response(status_code=204, headers=dict(headers or {}))


def page_headers(found: int, offset: int, limit: int) -> dict[str, str]:
    """Return the headers of a page of `limit` rows; one more row found announces a next page.

    Source: docs/http-api.md, section 1.5.
    """
    more = found > limit
    headers = {"X-Pagination-Total": str(offset + min(found, limit) + more)}
    return {**headers, "X-Pagination-Next": str(offset + limit)} if more else headers


def page_response(rows: list[Json], offset: int, limit: int) -> Response:
    """Return a page of `limit` rows; one more row announces a next page."""
    return json_response(rows[:limit], page_headers(len(rows), offset, limit))


def time_text(value: datetime) -> str:
    """Return ISO 8601 with microseconds and +00:00."""
    return value.astimezone(UTC).isoformat(timespec="microseconds")


def run_path(thread_id: str, run_id: str, last: str = "") -> str:
    """Return the path of a run, below its thread also for stateless runs."""
    return f"/threads/{thread_id}/runs/{run_id}{last}"
