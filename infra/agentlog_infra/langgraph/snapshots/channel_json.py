"""JSON of stored values in the form of the API: each stored version is encoded once, shorter lists are prefixes."""

from collections.abc import Sequence
from typing import TypeGuard

from agentlog_facts.checkpoint import Encoded, EncodedChannel
from agentlog_facts.growing_list import GrowingList
from agentlog_facts.json_value import Json, dump
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec
from agentlog_infra.langgraph.snapshots.user_code import UserCode
from agentlog_infra.langgraph.value_json import ESCAPED_NUL, to_json


class ChannelJson:
    """Encoder of stored values for one page of snapshots; it equals `to_json` of the decoded value.

    A value that is stored as JSON or as a message has the form of the API already. Any other value is decoded and
    encoded again, if `user_code` permits it.
    """

    def __init__(self, codec: ChannelCodec, user_code: UserCode) -> None:
        self._codec = codec
        self.user_code = user_code
        self._lists: dict[int, _ListJson] = {}
        self._values: dict[int, tuple[EncodedChannel, bytes]] = {}

    def channel(self, channel: EncodedChannel) -> bytes:
        """Return the value of a channel as JSON."""
        if channel.kind == "list":
            return self._list(channel.items)
        known = self._values.get(id(channel))
        if known is None:
            known = self._values[id(channel)] = (channel, self.value(channel.value))
        return known[1]

    def decoded(self, channel: EncodedChannel) -> object:
        """Return a fresh value of a channel, as a graph would get it."""
        if channel.kind == "list":
            return [self.decode(item) for item in channel.items]
        return self.decode(channel.value)

    def decode(self, value: Encoded) -> object:
        """Return a stored value as a graph would get it. Raises: UserCodeNeeded."""
        self.user_code.decode(value)
        return self._codec.decode(value)

    def value(self, value: Encoded) -> bytes:
        """Return a stored value as JSON. Raises: UserCodeNeeded."""
        match value:
            case {"items": list(items)}:
                return b"[%s]" % self.joined(items)
            case {"json": plain} | {"message": plain}:
                shown = dump(plain)
            case dict():
                return dump(to_json(self.decode(value)))
            case _:
                shown = dump(value)
        return shown if ESCAPED_NUL not in shown else dump(to_json(self._codec.decode(value)))

    def _list(self, items: Sequence[Encoded]) -> bytes:
        if not isinstance(items, GrowingList):
            return b"[%s]" % self.joined(items)
        buffer = items.buffer
        known = self._lists.get(id(buffer))
        if known is None:
            known = self._lists[id(buffer)] = _ListJson(buffer)
        return known.prefix(self, len(items))

    def joined(self, items: Sequence[Encoded]) -> bytes:
        """Return the items as JSON, with commas between them."""
        plain = [_plain(item) for item in items]
        if _is_complete(plain):
            shown = dump(plain)[1:-1]
            if ESCAPED_NUL not in shown:
                return shown
        return b",".join([self.value(item) for item in items])


class _ListJson:
    """A list that grew: the JSON of its longest version so far, and where each shorter one ends in it."""

    def __init__(self, items: Sequence[Encoded]) -> None:
        self._items = items
        self._data = bytearray(b"[")
        self._ends = {0: 1}
        self._length = 0

    def prefix(self, encoder: ChannelJson, length: int) -> bytes:
        """Return the first items as JSON."""
        if length > self._length:
            if self._length:
                self._data += b","
            self._data += encoder.joined(self._items[self._length : length])
            self._length, self._ends[length] = length, len(self._data)
        end = self._ends.get(length)
        if end is None:
            return b"[%s]" % encoder.joined(self._items[:length])
        return bytes(self._data[:end]) + b"]"


class _Other:
    """Mark of an item whose JSON is not stored."""


_OTHER = _Other()


def _plain(item: Encoded) -> "Json | _Other":
    if not isinstance(item, dict):
        return item
    if "message" in item:
        return item["message"]
    return item["json"] if "json" in item else _OTHER


def _is_complete(items: "list[Json | _Other]") -> "TypeGuard[list[Json]]":
    return _OTHER not in items
