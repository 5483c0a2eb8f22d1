"""How a value of a channel is stored: as plain JSON where that says it exactly, else as LangGraph's own serialization.

A stored value must come back as it was, type by type: `True` is not `1`, a tuple is no list, NaN is no null.
"""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from langgraph.checkpoint.serde.base import SerializerProtocol

from agentlog_facts.checkpoint_reads import Encoded
from agentlog_facts.errors import Corrupt
from agentlog_facts.json_value import Json, dump

MAX_DEPTH = 60
"""Deeper values are left to LangGraph's serializer: readers of the log bound the nesting of its JSON."""
INT64 = 1 << 63
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
        if self.tag == "json":
            return {"json": self.plain}
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
            plain = _copied(value, 0)
        except _Inexact:
            tag, data = self._serde.dumps_typed(value)
            return Item(tag, data)
        return Item("scalar" if type(value) in _SCALARS else "json", dump(plain), plain)

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
        case {"type": str(tag), "base64": str(text)}:
            return Item(tag, base64.b64decode(text)).digest
        case _:
            return Item("scalar", dump(encoded)).digest


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


def _is_list(value: object) -> TypeGuard[list[object]]:
    return type(value) is list


def _is_dict(value: object) -> TypeGuard[dict[object, object]]:
    return type(value) is dict
