"""Lossless codec of channel values.

A value is stored as JSON if JSON represents it exactly, a chat message, an interrupt or a `Send` as the JSON of its
fields, an exception as the text that LangGraph stores of it, and any other value in LangGraph's own serialization.
Decoding restores the value with its types: `True` is not `1`, a tuple is not a list, NaN is not null.
"""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.types import Interrupt, Send

from agentlog_facts.checkpoint import Encoded
from agentlog_facts.errors import Corrupt
from agentlog_facts.json_value import MOST_LEVELS, NUMBER_LIMIT, Json, TooDeep, dump, fresh
from agentlog_infra.langgraph.checkpoints.message_decoder import MESSAGES, MessageDecoder
from agentlog_infra.langgraph.value_parts import is_nested_beyond
from agentlog_infra.settings import names_of

JSON_LEVELS = 60
"""LangGraph's serializer takes deeper values, since readers of the log limit the nesting of JSON."""
VALUE_LEVELS = MOST_LEVELS - 1
"""Levels of a channel's value: the object of the state is one more."""
PICKLE = "pickle"
"""Tag of a value that Python's pickle has stored."""
READABLE = frozenset({"json", "message", "interrupt", "send", "items"})
"""Tags of values that are JSON on the log, under their tag."""
_CLASSES = frozenset(MESSAGES.values())
IMMUTABLE = frozenset({str, int, float, bool, type(None)})
"""Types whose objects cannot change."""


@dataclass(frozen=True, slots=True)
class Item:
    """A value prepared for the log: the bytes that identify it, and its encoded form, made only when needed."""

    tag: str
    data: bytes
    plain: Json = None

    @property
    def digest(self) -> bytes:
        """Return a hash that is equal for equal values only."""
        return hashlib.blake2b(self.data, digest_size=16, person=self.tag[:16].encode()).digest()

    @property
    def encoded(self) -> Encoded:
        """Return the stored form."""
        if self.tag == "scalar":
            return self.plain
        if self.tag in READABLE:
            return {self.tag: self.plain}
        return {"type": self.tag, "base64": base64.b64encode(self.data).decode()}


class _Inexact(Exception):
    """JSON does not represent the value exactly."""


class ChannelCodec:
    """Encodes and decodes values of channels and writes; `serde` takes values that JSON cannot represent."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde
        self._messages = MessageDecoder()

    def item(self, value: object, levels: int = VALUE_LEVELS) -> Item:
        """Prepare one value; later changes of the object have no effect.

        Raises: TooDeep beyond `levels` of nesting, TypeError for a value that cannot be stored.
        """
        try:
            plain = _copied(value.model_dump(), 0) if is_message(value) else _copied(value, 0)
        except _Inexact:
            if is_nested_beyond(value, levels):
                raise TooDeep(f"nested deeper than {MOST_LEVELS} levels, the most that the log holds") from None
            return self._object(value, levels)
        tag = "message" if is_message(value) else "scalar" if type(value) in IMMUTABLE else "json"
        return Item(tag, dump(plain), plain)

    def items(self, value: object) -> list[Item] | None:
        """Prepare a list item by item; return None for a value that is not a plain list. Raises: as `item`."""
        return self.list_items(value) if is_list(value) else None

    def list_items(self, value: Sequence[object]) -> list[Item]:
        """Prepare the items of a list. Raises: as `item`."""
        return [self.list_item(item) for item in value]

    def list_item(self, value: object) -> Item:
        """Prepare one item of a list. Raises: as `item`."""
        return self.item(value, VALUE_LEVELS - 1)

    def _object(self, value: object, levels: int) -> Item:
        """Prepare a value that JSON does not represent exactly; objects of LangGraph's own are told by their fields."""
        fields: dict[str, Json]
        whole = value
        match value:
            case Interrupt(id=str(name), value=shown) if _is_exact_text(name) and not _has_response_schema(whole):
                fields = {"id": name, "value": self.encode(shown, levels - 1)}
                return Item("interrupt", dump(fields), fields)
            case Send(node=str(node)) if type(value) is Send and value.timeout is None and _is_exact_text(node):
                fields = {"node": node, "arg": self.encode(value.arg, levels - 1)}
                return Item("send", dump(fields), fields)
            case tuple() if _are_interrupts(whole):
                members: list[Json] = [self.item(one, levels - 1).encoded for one in whole]
                return Item("items", dump(members), members)  # LangGraph's serializer makes a list of a tuple too
            case BaseException():
                stored = self._serialized(value)
                shown = self._serde.loads_typed((stored.tag, stored.data))
                return self.item(shown, levels) if type(shown) is str else stored
            case _:
                return self._serialized(value)

    def _serialized(self, value: object) -> Item:
        try:
            return Item(*self._serde.dumps_typed(value))
        except Exception as error:  # the value's own code runs here, and each library has errors of its own
            raise TypeError(_unstorable(value, error, self._pickles)) from error

    @property
    def _pickles(self) -> bool:
        return getattr(self._serde, "pickle_fallback", False) is True

    def encode(self, value: object, levels: int = VALUE_LEVELS) -> Encoded:
        """Return the stored form of a value; a list is encoded item by item. Raises: as `item`."""
        if not is_list(value):
            return self.item(value, levels).encoded
        return {"items": [self.item(item, levels - 1).encoded for item in value]}

    def decode(self, encoded: Encoded) -> object:
        """Decode the result of `encode`; the value shares nothing with it. Raises Corrupt for an unknown form."""
        if not isinstance(encoded, dict):
            return encoded
        match encoded:
            case {"json": value}:
                return fresh(value)
            case {"items": list(items)}:
                return self.decode_items(items)
            case {"message": dict(fields)}:
                return self._messages.message(fields)
            case {"interrupt": {"id": str(name), "value": value}}:
                return Interrupt(self.decode(value), name)
            case {"send": {"node": str(node), "arg": arg}}:
                return Send(node, self.decode(arg))
            case {"type": str(tag), "base64": str(text)}:
                return self._loads(tag, text)
            case _:
                raise Corrupt(f"channel value: unknown form with keys {sorted(encoded)}")

    def decode_items(self, items: Sequence[Encoded]) -> list[object]:
        """Decode the items of a list."""
        return [self.decode(item) for item in items]

    def _loads(self, tag: str, text: str) -> object:
        """Raises: TypeError for a pickled value if pickle is off."""
        if tag == PICKLE and not self._pickles:
            raise TypeError(f"the value was stored with pickle; {names_of('pickle_fallback')[0]}=true lets it be read")
        loaded: object = self._serde.loads_typed((tag, base64.b64decode(text)))
        return loaded


def _unstorable(value: object, error: Exception, pickles: bool) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if pickles:
        return f"a value of type {kind} cannot be stored, with pickle neither: {type(error).__name__}: {error}"
    setting = names_of("pickle_fallback")[0]
    return f"a value of type {kind} cannot be stored: {error}; {setting}=true stores such values with pickle"


def stored_digest(encoded: Encoded) -> bytes:
    """Return the `Item.digest` of the value with this stored form."""
    match encoded:
        case dict() if len(encoded) == 1 and (tag := next(iter(encoded))) in READABLE:
            return Item(tag, dump(encoded[tag])).digest
        case {"type": str(tag), "base64": str(text)}:
            return Item(tag, base64.b64decode(text)).digest
        case _:
            return Item("scalar", dump(encoded)).digest


def is_exact(value: object) -> bool:
    """Return whether JSON represents the value exactly."""
    try:
        _copied(value, 0)
    except _Inexact:
        return False
    return True


def _copied(value: object, depth: int) -> Json:
    """Return a copy of a value that JSON represents exactly. Raises: _Inexact for any other value."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str | int | float):
        return _scalar(value)
    if depth < JSON_LEVELS:
        if is_list(value):
            return [_copied(item, depth + 1) for item in value]
        if _is_dict(value):
            return {_key(key): _copied(item, depth + 1) for key, item in value.items()}
    raise _Inexact


def _scalar(value: str | int | float) -> Json:
    if isinstance(value, str):
        if type(value) is str:
            return _text(value)
    elif (type(value) is int and -NUMBER_LIMIT < value < NUMBER_LIMIT) or (
        type(value) is float and math.isfinite(value)
    ):
        return value
    raise _Inexact


def _key(value: object) -> str:
    if type(value) is not str:
        raise _Inexact
    return _text(value)


def _text(value: str) -> str:
    """Return the text. Raises: _Inexact if UTF-8 cannot encode it, because it has lone surrogates."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Inexact from None
    return value


def _is_exact_text(value: str) -> bool:
    try:
        _text(value)
    except _Inexact:
        return False
    return True


def _has_response_schema(value: object) -> bool:
    return getattr(value, "response_schema", None) is not None


def _are_interrupts(value: object) -> TypeGuard[tuple[Interrupt, ...]]:
    return _is_tuple(value) and {type(one) for one in value} == {Interrupt}


def _is_tuple(value: object) -> TypeGuard[tuple[object, ...]]:
    return type(value) is tuple


def is_message(value: object) -> TypeGuard[BaseMessage]:
    """Return whether a value is stored as a message."""
    return type(value) in _CLASSES


def is_list(value: object) -> TypeGuard[list[object]]:
    """Return whether a value is stored item by item."""
    return type(value) is list


def _is_dict(value: object) -> TypeGuard[dict[object, object]]:
    return type(value) is dict
