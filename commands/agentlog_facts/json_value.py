"""JSON as a type, and the only functions of the core that turn it into bytes and back."""

from typing import TypeAlias, Union

from pydantic_core import from_json, to_json

# A recursive alias that both type checkers follow and that exists at run time (`type` needs Python 3.12).
Json: TypeAlias = Union["dict[str, Json]", "list[Json]", str, int, float, bool, None]
JsonObject: TypeAlias = dict[str, "Json"]
SPARE_LEVELS = 80
"""Levels of nesting that values from outside leave free: `load` accepts 200, and facts, checkpoints and snapshots wrap
these values."""


def dump(value: Json) -> bytes:
    """Return compact UTF-8 JSON; NaN and infinities become null, as in JavaScript. Raise ValueError for a surrogate."""
    return to_json(value, inf_nan_mode="null")


def load(data: bytes | str) -> Json:
    """Parse JSON; raise ValueError for text that RFC 8259 does not allow and for nesting beyond 200 levels."""
    value: Json = from_json(data, allow_inf_nan=False, cache_strings="keys")
    return value


def as_object(value: Json, what: str = "value") -> JsonObject:
    """Return an object as such; raise a ValueError that names `what` for any other value."""
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected an object, found {type(value).__name__}")
    return value


def load_object(data: bytes | str, what: str = "document") -> JsonObject:
    """Parse a JSON object; raise ValueError for any other text."""
    return as_object(load(data), what)
