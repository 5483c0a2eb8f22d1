"""How a value of a channel is stored: as JSON where that says it exactly, a chat message as the JSON of its fields,
anything else as LangGraph's own serialization.

A stored value must come back as it was, type by type: `True` is not `1`, a tuple is no list, NaN is no null.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentlog_facts.checkpoint import Encoded
from agentlog_facts.errors import Corrupt
from agentlog_facts.json_value import Json, dump

MAX_DEPTH = 60
"""Deeper values are left to LangGraph's serializer: readers of the log bound the nesting of its JSON."""
INT64 = 1 << 63
MESSAGES: Mapping[str, type[BaseMessage]] = {
    "human": HumanMessage,
    "ai": AIMessage,
    "AIMessageChunk": AIMessageChunk,
    "system": SystemMessage,
    "tool": ToolMessage,
}
"""Messages that are stored readable, by their field `type`; objects of subclasses are not."""
_CLASSES = frozenset(MESSAGES.values())
_SCALARS = frozenset({str, int, float, bool, type(None)})


@dataclass(frozen=True, slots=True)
class Item:
    """One value on its way to the log: the bytes that identify it, and its encoded form (made only when needed)."""

    tag: str
    data: bytes
    plain: Json = None

    @property
    def digest(self) -> bytes:
        """Return what tells equal values apart from different ones without keeping them."""
        return hashlib.blake2b(self.data, digest_size=16, person=self.tag[:16].encode()).digest()

    @property
    def encoded(self) -> Encoded:
        """Return the stored form."""
        if self.tag == "scalar":
            return self.plain
        if self.tag in ("json", "message"):
            return {self.tag: self.plain}
        return {"type": self.tag, "base64": base64.b64encode(self.data).decode()}


class _Inexact(Exception):
    """JSON would not give the value back as it was."""


class ChannelCodec:
    """Encodes values of channels and writes, and decodes them; `serde` takes what JSON cannot say."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde

    def item(self, value: object) -> Item:
        """Prepare one value; later changes of the object do not show. Raises TypeError for what cannot be stored."""
        try:
            plain = _copied(value.model_dump(), 0) if _is_message(value) else _copied(value, 0)
        except _Inexact:
            tag, data = self._serde.dumps_typed(value)
            return Item(tag, data)
        tag = "message" if _is_message(value) else "scalar" if type(value) in _SCALARS else "json"
        return Item(tag, dump(plain), plain)

    def items(self, value: object) -> list[Item] | None:
        """Prepare a list item by item; None for anything that is no plain list."""
        return [self.item(item) for item in value] if _is_list(value) else None

    def encode(self, value: object) -> Encoded:
        """Return the stored form of a value, a list item by item."""
        items = self.items(value)
        return self.item(value).encoded if items is None else {"items": [item.encoded for item in items]}

    def decode(self, encoded: Encoded) -> object:
        """Undo `encode`; the result shares nothing with `encoded`. Raises Corrupt for another shape."""
        if not isinstance(encoded, dict):
            return encoded
        match encoded:
            case {"json": value}:
                return _copied(value, 0)
            case {"items": list(items)}:
                return self.decode_items(items)
            case {"message": dict(fields)}:
                return _message(_copied(fields, 0))
            case {"type": str(tag), "base64": str(text)}:
                return self._loads(tag, text)
            case _:
                raise Corrupt(f"channel value: unknown form with keys {sorted(encoded)}")

    def decode_items(self, items: Sequence[Encoded]) -> list[object]:
        """Undo `items`."""
        return [self.decode(item) for item in items]

    def _loads(self, tag: str, text: str) -> object:
        loaded: object = self._serde.loads_typed((tag, base64.b64decode(text)))
        return loaded


def stored_digest(encoded: Encoded) -> bytes:
    """Return the digest that `Item.digest` had when this form was made."""
    match encoded:
        case {"json": value}:
            return Item("json", dump(value)).digest
        case {"message": fields}:
            return Item("message", dump(fields)).digest
        case {"type": str(tag), "base64": str(text)}:
            return Item(tag, base64.b64decode(text)).digest
        case _:
            return Item("scalar", dump(encoded)).digest


def _message(fields: Json) -> BaseMessage:
    """Make a message of its fields; like LangGraph, one that no longer validates comes back unvalidated."""
    if not isinstance(fields, dict) or not isinstance(kind := fields.get("type"), str) or kind not in MESSAGES:
        raise Corrupt("channel value: a message of an unknown type")
    try:
        return MESSAGES[kind].model_validate(fields)
    except ValueError:
        return MESSAGES[kind].model_construct(None, **fields)


def exact(value: object) -> bool:
    """Tell whether JSON gives the value back as it is."""
    try:
        _copied(value, 0)
    except _Inexact:
        return False
    return True


def _copied(value: object, depth: int) -> Json:
    """Return a copy of a value that JSON says exactly; raise _Inexact for any other."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str | int | float):
        return _scalar(value)
    if depth < MAX_DEPTH:
        if _is_list(value):
            return [_copied(item, depth + 1) for item in value]
        if _is_dict(value):
            return {_key(key): _copied(item, depth + 1) for key, item in value.items()}
    raise _Inexact


def _scalar(value: str | int | float) -> Json:
    if isinstance(value, str):
        if type(value) is str:
            return _text(value)
    elif (type(value) is int and -INT64 <= value < INT64) or (type(value) is float and math.isfinite(value)):
        return value
    raise _Inexact


def _key(value: object) -> str:
    if type(value) is not str:
        raise _Inexact
    return _text(value)


def _text(value: str) -> str:
    """Return the text if UTF-8 can say it (lone surrogates it cannot)."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Inexact from None
    return value


def _is_message(value: object) -> TypeGuard[BaseMessage]:
    return type(value) in _CLASSES


def _is_list(value: object) -> TypeGuard[list[object]]:
    return type(value) is list


def _is_dict(value: object) -> TypeGuard[dict[object, object]]:
    return type(value) is dict
