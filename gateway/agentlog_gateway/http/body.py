"""Reader of JSON bodies, within the size and depth that the log can hold; the content type is ignored.

Source: docs/http-api.md, section 1.1.
"""

import math
import re

from pydantic_core import from_json
from starlette.requests import Request

from agentlog_facts.json_value import SPARE_LEVELS, Json
from agentlog_gateway.http.errors import INVALID_JSON, Problem, invalid

_HUGE_NUMBER = re.compile(rb"[eE]\+?[0-9]{3}|[0-9]{309}")
REPLACEMENT = "\ufffd"


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body as received. Raises: Problem 413 beyond `limit` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int) -> Problem:
    return Problem(413, f"Request body too large (limit: {limit} bytes)", {"Connection": "close"})


def parse_body(body: bytes) -> Json:
    """Return the JSON value; NUL characters in strings become U+FFFD. Raises: Problem 422."""
    try:
        value = _parse(body)
    except ValueError as error:
        raise invalid(INVALID_JSON) from error
    if _HUGE_NUMBER.search(body) is not None and not _finite(value):
        raise invalid(INVALID_JSON)
    return _without_nul(value) if b"\\u0000" in body else value


def _parse(body: bytes) -> Json:
    if body.count(b"[") + body.count(b"{") <= SPARE_LEVELS:
        value: Json = from_json(body, allow_inf_nan=False, cache_strings="keys")
        return value
    wrapped: Json = from_json(
        b"[" * SPARE_LEVELS + body + b"]" * SPARE_LEVELS, allow_inf_nan=False, cache_strings="keys"
    )
    for _ in range(SPARE_LEVELS):
        if (
            not isinstance(wrapped, list) or len(wrapped) != 1
        ):  # brackets that close the wrapping ones and open new ones
            raise ValueError("more than one value")
        wrapped = wrapped[0]
    return wrapped


def _finite(value: Json) -> bool:
    match value:
        case dict():
            return all(_finite(item) for item in value.values())
        case list():
            return all(_finite(item) for item in value)
        case float():
            return math.isfinite(value)
        case _:
            return True


def _without_nul(value: Json) -> Json:
    match value:
        case str():
            return value.replace("\0", REPLACEMENT)
        case dict():
            return {key.replace("\0", REPLACEMENT): _without_nul(item) for key, item in value.items()}
        case list():
            return [_without_nul(item) for item in value]
        case _:
            return value
