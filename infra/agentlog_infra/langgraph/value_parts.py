"""Walk over the parts of Python values: their nesting, and whether JSON needs a special form for any part."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, TypeAlias, TypeGuard

from agentlog_facts.json_value import NUMBER_LIMIT

_PLAIN = frozenset({str, bool, float, type(None)})
"""Types whose values have no parts, and a JSON form of their own."""
_EMPTIES = frozenset({dict, list, tuple, set})
REMEMBERED = 1024
"""Types whose shape is remembered; user code may make new ones without end."""
_FIELDS = ("__dataclass_fields__", "__pydantic_fields__", "__fields__")
"""Class attributes with the fields of a dataclass, a model of pydantic 2 and one of pydantic 1."""
_Shape: TypeAlias = Literal["mapping", "collection", "fields", "bytes", "number", "decimal", "time", "other"]


def is_bytes(value: object) -> TypeGuard[bytes | bytearray | memoryview]:
    """Return whether a value is a string of bytes."""
    return isinstance(value, bytes | bytearray | memoryview)


def is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    """Return whether a value is shown as an object of JSON, from its items."""
    return isinstance(value, Mapping)


def is_collection(value: object) -> TypeGuard[Iterable[object]]:
    """Return whether a value is shown as a list."""
    return isinstance(value, list | tuple | set | frozenset | deque)


def fields_of(value: object) -> dict[str, object] | None:
    """Return the fields of a dataclass, a pydantic model or a chat message, None for any other value."""
    names = _field_names(type(value))
    if names is None:
        return None
    found: dict[str, object] = {name: getattr(value, name, None) for name in names}
    extra: object = getattr(value, "__pydantic_extra__", None)
    if is_mapping(extra):
        found |= {str(name): part for name, part in extra.items()}
    return found


def _find_field_names(kind: type) -> tuple[str, ...] | None:
    named: object = next((vars(base)[name] for base in kind.__mro__ for name in _FIELDS if name in vars(base)), None)
    return tuple(str(name) for name in named) if is_mapping(named) else None


_field_names: Callable[[type], tuple[str, ...] | None] = lru_cache(REMEMBERED)(_find_field_names)


def _find_shape(kind: type[Any]) -> _Shape:
    if issubclass(kind, Mapping):
        return "mapping"
    if issubclass(kind, list | tuple | set | frozenset | deque):
        return "collection"
    if issubclass(kind, bytes | bytearray | memoryview):
        return "bytes"
    if issubclass(kind, int):
        return "number"
    if issubclass(kind, Decimal):
        return "decimal"
    if issubclass(kind, datetime | time):
        return "time"
    return "other" if _field_names(kind) is None else "fields"


_shape: Callable[[type], _Shape] = lru_cache(REMEMBERED)(_find_shape)


def _parts(value: Any, shape: _Shape) -> Iterable[object]:  # Any: its shape tells how to read it
    """Return the values inside a value that need a look of their own."""
    if shape == "mapping":
        parts: Iterable[object] = value.values()
    elif shape == "collection":
        parts = value
    elif shape == "fields":
        found = getattr(value, "__dict__", None)
        extra = getattr(value, "__pydantic_extra__", None)
        parts = (fields_of(value) or {}).values() if found is None or extra else found.values()
    else:
        return ()
    return [part for part in parts if (kind := type(part)) not in _PLAIN and (kind not in _EMPTIES or part)]


def is_nested_beyond(value: object, levels: int) -> bool:
    """Return whether a value is nested deeper than `levels`; also true for a value that holds itself."""
    level: dict[int, object] = {id(value): value}
    for _ in range(levels):
        level = {id(part): part for one in level.values() for part in _parts(one, _shape(type(one)))}
        if not level:
            return False
    return any(_shape(type(one)) in ("mapping", "collection", "fields") for one in level.values())


def needs_own_form(value: object) -> bool:
    """Return whether a value holds bytes, a decimal, a time in UTC, or a whole number of NUMBER_LIMIT or more.

    This counts at any depth, but not for keys.
    """
    if type(value) in _PLAIN:
        return False
    waiting: list[Any] = [value]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        shape = _shape(type(one))  # pyright: ignore[reportUnknownArgumentType]  # of any value
        if shape == "number":
            if not -NUMBER_LIMIT < one < NUMBER_LIMIT:
                return True
        elif shape in ("bytes", "decimal") or (shape == "time" and one.utcoffset() == timedelta(0)):
            return True
        elif shape != "other" and id(one) not in seen:
            seen.add(id(one))
            waiting += _parts(one, shape)
    return False
