"""CORS rules: the origins of CORS_ALLOW_ORIGINS (by default all), or `http.cors`.

Source: docs/http-api.md, section 1.6, and `http.cors` of langgraph.json.
"""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from agentlog_facts.errors import Misconfigured
from agentlog_facts.json_value import JsonObject
from agentlog_gateway import timeouts
from agentlog_gateway.http.errors import validation_detail

EXPOSED = (
    *("X-Pagination-Total", "X-Pagination-Next", "Content-Location", "Location", "X-Consistency-Token", "ETag"),
    "X-Request-Id",
)
"""Headers that pages may read; by `Location` a page reconnects to a stream whose gateway was killed."""


class Cors(BaseModel):
    """CORS headers; `max_age` in seconds. The fields have the names of `http.cors`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    allow_origins: list[str] = []
    allow_origin_regex: str | None = None
    allow_methods: list[str] = ["*"]
    allow_headers: list[str] = ["*"]
    allow_credentials: bool = False
    expose_headers: list[str] = list(EXPOSED)
    max_age: int = timeouts.PREFLIGHT_CACHE_S


def cors_of(document: JsonObject, origins: Sequence[str]) -> Cors:
    """Return the rules of `http.cors` in `langgraph.json`, by default these origins. Raises: Misconfigured."""
    http = document.get("http")
    given = http.get("cors") if isinstance(http, dict) else None
    if given is None:
        return Cors(allow_origins=list(origins))
    try:
        return Cors.model_validate(given)
    except ValidationError as error:
        raise Misconfigured(f"http.cors: {validation_detail(error)}") from error
