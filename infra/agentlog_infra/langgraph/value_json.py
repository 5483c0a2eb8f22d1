"""JSON of Python values for the API: messages, models, dates, and objects that have no JSON form.

This is a view for people and clients; `channel_codec` stores values exactly.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeGuard

from langgraph.types import Interrupt, Send
from pydantic_core import PydanticSerializationError, to_json as pydantic_to_json

from agentlog_facts.json_value import Json, JsonObject, as_object, load

MAX_DEPTH = 120
"""Deeper values become text, since readers of the log limit the nesting of JSON."""
NUL = "\x00"
REPLACEMENT = "\ufffd"


def to_json(value: object) -> Json:
    """Return a value as JSON that shares nothing with it.

    NaN and infinities become null, NUL characters and lone surrogates U+FFFD; whole numbers of any size stay exact;
    objects without a JSON form become their text.
    """
    try:
        data = _dumped(value)
        if b"\\u0000" not in data:
            return load(data)
    except (PydanticSerializationError, ValueError, RecursionError):
        pass  # JSON or its limits do not allow the value: convert it part by part
    return load(_dumped(_plain(value, 0)))


def to_object(value: Mapping[str, object]) -> JsonObject:
    """Return a mapping as a JSON object."""
    return as_object(to_json(dict(value)))


def _dumped(value: object) -> bytes:
    return pydantic_to_json(
        value,
        inf_nan_mode="null",
        bytes_mode="base64",
        timedelta_mode="float",
        serialize_as_any=True,
        fallback=_fallback,
    )


def _fallback(value: object) -> object:
    """Return a form nearer to JSON for an object that pydantic does not know."""
    if isinstance(value, Send):
        return {"node": value.node, "arg": value.arg}
    if isinstance(value, BaseException | type):
        return repr(value)
    for name in ("_asdict", "tolist", "dict"):  # named tuples, arrays, models of pydantic 1
        method = getattr(value, name, None)
        if _is_method(method):
            return method()
    return str(value)


def _is_method(method: object) -> TypeGuard[Callable[[], object]]:
    return callable(method)


def _plain(value: object, depth: int) -> Json:
    """Return clean containers and texts, and any other value in its JSON form."""
    if isinstance(value, str):
        return clean_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= MAX_DEPTH:
        return clean_text(repr(value)[:1000])
    if _is_mapping(value):
        return {clean_text(str(key)): _plain(item, depth + 1) for key, item in value.items()}
    if _is_collection(value):
        return [_plain(item, depth + 1) for item in value]
    return _plain(_converted(value), depth + 1)


def _converted(value: object) -> object:
    try:
        return load(_dumped(value))
    except (PydanticSerializationError, ValueError, RecursionError):
        pass  # a part of it has no JSON form: convert its fields
    dump = getattr(value, "model_dump", None)
    if _is_method(dump):
        return dump()
    return vars(value) if hasattr(value, "__dict__") else repr(value)


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _is_collection(value: object) -> TypeGuard[Iterable[object]]:
    return isinstance(value, list | tuple | set | frozenset)


def clean_text(text: str) -> str:
    """Return the text without characters that PostgreSQL or UTF-8 cannot hold: NUL and lone surrogates."""
    if NUL in text:
        text = text.replace(NUL, REPLACEMENT)
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def interrupt_json(interrupt: Interrupt[object]) -> JsonObject:
    """Return {id, value}, with `response_schema` if the graph stated one."""
    shown: JsonObject = {"value": to_json(interrupt.value), "id": interrupt.id}
    if interrupt.response_schema is not None:
        shown["response_schema"] = to_json(interrupt.response_schema)
    return shown


def is_state_key(channel: str) -> bool:
    """Return whether a channel is a key of the state, not a channel for LangGraph's routing."""
    return not channel.startswith("__") and ":" not in channel
