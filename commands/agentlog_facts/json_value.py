"""JSON as a type, and the only functions of the core that turn it into bytes and back."""

from collections.abc import Mapping
from typing import TypeAlias, Union

from pydantic_core import from_json, to_json

# A recursive alias that both type checkers follow and that exists at run time (`type` needs Python 3.12).
Json: TypeAlias = Union["dict[str, Json]", "list[Json]", str, int, float, bool, None]
JsonObject: TypeAlias = dict[str, "Json"]
LEVELS = 200
"""Levels of nesting that `load` accepts."""
MOST_LEVELS = 120
"""Levels of nesting of a value that we write. The rest of LEVELS is for the facts and frames that wrap it."""
NUMBER_LIMIT = 1 << 1024
"""Whole numbers that we write are nearer to zero: other readers take a larger one for an infinity, or refuse it."""


class TooDeep(ValueError):
    """A value is nested deeper than the log can hold."""


def dump(value: Json) -> bytes:
    """Return compact UTF-8 JSON; NaN and infinities become null, as in JavaScript. Raise ValueError for a surrogate."""
    return to_json(value, inf_nan_mode="null")


def dump_object(fields: Mapping[str, bytes]) -> bytes:
    """Return a JSON object whose values are JSON already."""
    return b"{%s}" % b",".join([b"%s:%s" % (dump(name), value) for name, value in fields.items()])


def load(data: bytes | str) -> Json:
    """Parse JSON; raise ValueError for text that RFC 8259 does not allow and for nesting beyond 200 levels."""
    value: Json = from_json(data, allow_inf_nan=False, cache_strings="keys")
    return value


def load_value(data: bytes, most: int = MOST_LEVELS) -> Json:
    """Parse JSON that we are about to write. Raise TooDeep beyond `most` levels, else ValueError as `load` does."""
    if data.count(b"[") + data.count(b"{") <= most:
        return load(data)
    spare = LEVELS - most
    try:
        wrapped = load(b"[" * spare + data + b"]" * spare)
    except ValueError as error:
        if "recursion limit" in str(error):
            raise TooDeep(f"nested deeper than {most} levels") from error
        raise
    for _ in range(spare):
        if not isinstance(wrapped, list) or len(wrapped) != 1:  # brackets that close the wrapping ones and open others
            raise ValueError("more than one value")
        wrapped = wrapped[0]
    return wrapped


def fresh(value: Json) -> Json:
    """Return a copy that shares no object or list with a value."""
    if isinstance(value, dict):
        return fresh_object(value)
    if isinstance(value, list):
        return [fresh(item) if isinstance(item, dict | list) else item for item in value]
    return value


def fresh_object(value: JsonObject) -> JsonObject:
    """Return a copy of an object that shares no object or list with it."""
    return {key: fresh(item) if isinstance(item, dict | list) else item for key, item in value.items()}


def as_object(value: Json, what: str = "value") -> JsonObject:
    """Return an object as such; raise a ValueError that names `what` for any other value."""
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected an object, found {type(value).__name__}")
    return value


def load_object(data: bytes | str, what: str = "document") -> JsonObject:
    """Parse a JSON object; raise ValueError for any other text."""
    return as_object(load(data), what)
