"""Reader of JSON bodies, within the size and depth that the log can hold; the content type is ignored.

Source: docs/http-api.md, section 1.1.
"""

import math
import re

from starlette.requests import Request

from agentlog_facts.json_value import NUMBER_LIMIT, Json, TooDeep, load_value
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
        value = load_value(body)
    except TooDeep as error:
        raise invalid(f"JSON in request body is {error}") from error
    except ValueError as error:
        raise invalid(INVALID_JSON) from error
    if _HUGE_NUMBER.search(body) is not None:
        _check_numbers(value)
    return _without_nul(value) if b"\\u0000" in body else value


def _check_numbers(value: Json) -> None:
    """Check that numbers are below those that every JSON reader takes for infinities. Raises: Problem 422."""
    match value:
        case dict():
            for item in value.values():
                _check_numbers(item)
        case list():
            for item in value:
                _check_numbers(item)
        case float() if not math.isfinite(value):
            raise invalid(INVALID_JSON)
        case int() if not -NUMBER_LIMIT < value < NUMBER_LIMIT:
            raise invalid("JSON in request body has a whole number of more than 1024 bits")
        case _:
            return


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
