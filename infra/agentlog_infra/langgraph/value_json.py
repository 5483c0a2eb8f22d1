"""JSON of Python values for the API: messages, models, dates, and objects that have no JSON form.

This is a view for people and clients; `channel_codec` stores values exactly.
"""

import re
import reprlib
import sys
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import datetime, time
from decimal import Decimal
from typing import TypeGuard

from langgraph.types import Interrupt, Send
from pydantic_core import PydanticSerializationError, to_json as pydantic_to_json

from agentlog_facts.json_value import (
    MOST_LEVELS,
    NUMBER_LIMIT,
    Json,
    JsonObject,
    TooDeep,
    as_object,
    dump,
    load,
    load_object,
    load_value,
)
from agentlog_infra.langgraph.value_parts import (
    fields_of,
    is_bytes,
    is_collection,
    is_mapping,
    is_nested_beyond,
    needs_own_form,
)

NUL = "\x00"
ESCAPED_NUL = b"\\u0000"
_LONG_NUMBER = re.compile(rb"\d{300}")
MAX_10_EXP = sys.float_info.max_10_exp
REPLACEMENT = "\ufffd"
NAME_BYTES = 2400
"""Most bytes of a namespace and of a name in it: a key of PostgreSQL holds 2,704 bytes, with ids and a version."""


def to_json(value: object, most_levels: int = MOST_LEVELS) -> Json:
    """Return a value as JSON that shares nothing with it.

    NaN and infinities become null, NUL characters and lone surrogates U+FFFD, bytes standard base64, decimals numbers;
    times in UTC end in +00:00. Whole numbers stay exact up to NUMBER_LIMIT; larger ones become text, and so do objects
    without a JSON form and what is nested deeper than `most_levels`. Source: docs/http-api.md, section 1.2.
    """
    try:
        return to_json_whole(value, most_levels)
    except TooDeep:
        return load_value(_dumped(_plain(value, 0, most_levels)), most_levels)


def to_json_whole(value: object, most_levels: int) -> Json:
    """Return a value as `to_json` does, in full. Raises: TooDeep for a value that it would cut off."""
    if not needs_own_form(value):
        try:
            data = _dumped(value)
            if ESCAPED_NUL not in data:
                return load_value(data, most_levels)
        except TooDeep:
            raise
        except (PydanticSerializationError, ValueError, RecursionError):
            pass  # JSON or its limits do not allow the value: convert it part by part
    if is_nested_beyond(value, most_levels):
        raise TooDeep(f"nested deeper than {most_levels} levels")
    return load_value(_dumped(_plain(value, 0, most_levels)), most_levels)


def to_object(value: Mapping[str, object]) -> JsonObject:
    """Return a mapping as a JSON object."""
    return as_object(to_json(dict(value)))


def stored_json(value: JsonObject) -> bytes:
    """Return `to_json` of an object that was parsed from JSON, as JSON; most such objects have that form already."""
    data = dump(value)
    levels = data.count(b"[") + data.count(b"{")
    if ESCAPED_NUL in data or levels > MOST_LEVELS or _LONG_NUMBER.search(data):
        return dump(to_object(value))
    return data


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
        return _named_if_none(value, text_by(value, repr))
    for name in ("_asdict", "tolist", "dict"):  # named tuples, arrays, models of pydantic 1
        method = getattr(value, name, None)
        if _is_method(method):
            made = method()
            return _plain(made, 0, MOST_LEVELS) if needs_own_form(made) else made
    return _named_if_none(value, text_by(value, str))


def text_by(value: object, to_text: Callable[[object], str]) -> str | None:
    """Return `str` or `repr` of a value of user code, None if the code of its class raises."""
    try:
        return clean_text(to_text(value))
    except (Exception, SystemExit, KeyboardInterrupt):  # noqa: BLE001 - that code may raise anything
        return None


def _named_if_none(value: object, text: str | None) -> str:
    return f"<{type(value).__name__}>" if text is None else text


def _is_method(method: object) -> TypeGuard[Callable[[], object]]:
    return callable(method)


def _plain(value: object, depth: int, most: int) -> Json:
    """Return clean containers and texts, and any other value in its JSON form."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int) and not -NUMBER_LIMIT < value < NUMBER_LIMIT:
        return hex(value)  # Python refuses to write a number this large in decimal digits
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return _number(value)
    if is_bytes(value):
        return b64encode(value).decode()
    if depth >= most:
        return _text_of(value)
    if is_mapping(value):
        return {clean_text(_key(key)): _plain(item, depth + 1, most) for key, item in value.items()}
    if is_collection(value):
        return [_plain(item, depth + 1, most) for item in value]
    if needs_own_form(value):
        return _plain(_fields(value), depth, most)
    return _plain(_converted(value), depth + 1, most)


def _number(value: Decimal) -> Json:
    """Return a decimal as whole number or float; null if it is not finite, text if it is too large for a float."""
    if not value.is_finite():
        return None
    if value.adjusted() >= MAX_10_EXP:
        return str(value)
    exponent = value.as_tuple().exponent
    return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)


def _text_of(value: object) -> str:
    try:
        return clean_text(reprlib.repr(value)[:1000])
    except RecursionError:
        return f"<{type(value).__name__}>"


def _key(key: object) -> str:
    """Return a key as text, the same whatever lies beside it."""
    if isinstance(key, str):
        return str(key)
    try:
        return next(iter(load_object(_dumped({key: None}))))
    except (PydanticSerializationError, ValueError, RecursionError):
        return str(key)


def _converted(value: object) -> object:
    try:
        return load(_dumped(value))
    except (PydanticSerializationError, ValueError, RecursionError):
        return _fields(value)  # a part of it has no JSON form


def _fields(value: object) -> object:
    dump = getattr(value, "model_dump", None)
    if _is_method(dump):
        made = dump()
        return made if is_mapping(made) else repr(value)
    found = fields_of(value)
    if found is None and hasattr(value, "__dict__"):
        found = vars(value)
    return repr(value) if found is None else found


def clean_text(text: str) -> str:
    """Return the text without characters that PostgreSQL or UTF-8 cannot hold: NUL and lone surrogates."""
    if NUL in text:
        text = text.replace(NUL, REPLACEMENT)
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check_names(ns: str, *names: str) -> None:
    """Check that rows and their keys can hold names that user code has chosen: of nodes, tasks, channels.

    Raises: ValueError.
    """
    for name in (ns, *names):
        if clean_text(name) != name:
            raise ValueError(f"the name {name!r} has a NUL or half a surrogate pair, which the rows cannot hold")
    longest = max(names, key=len, default="")
    if len(ns) + len(longest) > NAME_BYTES // 4:  # UTF-8 has at most four bytes a character
        found = len(ns.encode()) + max((len(name.encode()) for name in names), default=0)
        if found > NAME_BYTES:
            raise ValueError(
                f"the names of nodes or channels are too long: a checkpoint namespace and the name {longest[:60]!r}..."
                f" have {found} bytes, expected at most {NAME_BYTES}"
            )


def interrupt_json(interrupt: Interrupt[object]) -> JsonObject:
    """Return {id, value}, with `response_schema` if the graph stated one."""
    shown: JsonObject = {"value": to_json(interrupt.value), "id": clean_text(str(interrupt.id))}
    if interrupt.response_schema is not None:
        shown["response_schema"] = to_json(interrupt.response_schema)
    return shown


def is_state_key(channel: str) -> bool:
    """Return whether a channel is a key of the state, not a channel for LangGraph's routing."""
    return not channel.startswith("__") and ":" not in channel
