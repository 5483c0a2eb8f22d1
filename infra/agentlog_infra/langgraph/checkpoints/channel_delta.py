"""Delta encoder of channel values: a list that has grown is stored as the items that follow its last version.

A full copy is stored again when the list is GROWTH times as long as the last full copy, after at least MIN_PARTS
appends. So all full copies together have at most 8/7 of the final size, and a read goes back at
most to the last full copy.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from agentlog_facts.checkpoint import Encoded, EncodedChannel
from agentlog_facts.ids import Stream, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra.langgraph.checkpoints.channel_codec import (
    IMMUTABLE,
    ChannelCodec,
    Item,
    is_list,
    stored_digest,
)
from agentlog_infra.langgraph.checkpoints.message_digest import Digest, message_digest

MIN_PARTS = 64
GROWTH = 8
COMPARABLE = frozenset({str, int, bool, type(None)})
"""Types whose equal values are stored alike."""


@dataclass(frozen=True, slots=True)
class ChannelKey:
    """A channel of one graph (namespace) of a thread."""

    thread_id: ThreadId
    checkpoint_ns: str
    channel: str


Kept: TypeAlias = Callable[[ChannelKey, str, Stream], bool]
"""Answer whether a version of a channel, as stated on a stream, is still in memory."""


@dataclass(slots=True)
class _StoredItem:
    """An item of a stored list, and the last object that was found equal to it, or decoded from it.

    `mark` is the `message_digest` at that time: user code may have changed the object since. `digest` is that of the
    stored form; an item that was read has its stored form instead, until the digest is needed.
    """

    value: object
    mark: Digest | None
    digest: bytes | None
    encoded: Encoded = None


@dataclass(frozen=True, slots=True)
class _Base:
    """A stored list: its stream, its items, and the length of its chain of appends."""

    version: str
    stream: Stream
    items: list[_StoredItem]
    full_length: int
    parts: int


@dataclass(frozen=True, slots=True)
class _Read:
    """A list that was read: its stored form, the objects that were decoded from it, and their marks at that time."""

    channel: EncodedChannel
    items: list[object]
    marks: list[Digest | None]


def _always(key: ChannelKey, version: str, stream: Stream) -> bool:
    return True


class ChannelDeltaEncoder:
    """Encodes new versions of channels; for this it keeps the items of the last stored list of each channel.

    An item is encoded again only if it may differ: an object that cannot change, or a message whose digest is still the
    same, is compared as it is. So a long list that grows by one item costs little, also if it was read before. It grows
    only from a version of which `is_kept` is true, because the reader of own facts needs it.
    """

    def __init__(self, codec: ChannelCodec, is_kept: Kept = _always) -> None:
        self._codec = codec
        self._is_kept = is_kept
        self._bases: dict[ChannelKey, _Base] = {}
        self._read: dict[ChannelKey, _Read] = {}

    def remember(self, key: ChannelKey, channel: EncodedChannel, value: object) -> None:
        """Remember a version that was read and has just been decoded to `value`; the next version may build on it."""
        if channel.kind == "list" and is_list(value):
            self._read[key] = _Read(channel, [*value], [message_digest(item) for item in value])

    def forget_dropped(self) -> None:
        """Forget all versions of which `is_kept` is false."""
        for key, base in [*self._bases.items()]:
            if not self._is_kept(key, base.version, base.stream):
                del self._bases[key]
        for key, read in [*self._read.items()]:
            if not self._is_kept(key, read.channel.version, read.channel.stream):
                del self._read[key]

    def _base(self, key: ChannelKey) -> _Base | None:
        """Return the last version that was read or written."""
        read = self._read.pop(key, None)
        if read is not None:
            channel = read.channel
            items = [
                _StoredItem(item, mark, None, encoded)
                for item, mark, encoded in zip(read.items, read.marks, channel.items, strict=True)
            ]
            self._bases[key] = _Base(channel.version, channel.stream, items, channel.full_length, channel.parts)
        return self._bases.get(key)

    def entry(self, key: ChannelKey, version: str, stream: Stream, value: object) -> JsonObject:
        """Return the entry of a `CheckpointSaved` on `stream` for a new version.

        Raises TypeError for a value that cannot be stored.
        """
        if not is_list(value):
            return _full(key, version, self._codec.item(value).encoded)
        base = self._base(key)
        if base is not None and not self._is_kept(key, base.version, base.stream):
            base = None
        if base is not None and not _copy_is_due(base, len(value)) and self._grew(base, value):
            items = self._codec.list_items(value[len(base.items) :])
            appended = _appended(key, version, base, [item.encoded for item in items])
            base.items.extend(map(_stored, value[len(base.items) :], items))
            self._bases[key] = replace(base, version=version, stream=stream, parts=base.parts + 1)
            return appended
        items = self._codec.list_items(value)
        self._bases[key] = _Base(version, stream, list(map(_stored, value, items)), len(items), 0)
        return _full(key, version, {"items": [item.encoded for item in items]})

    def _grew(self, base: _Base, value: list[object]) -> bool:
        return 0 < len(base.items) <= len(value) and all(map(self._is_same, base.items, value))

    def _is_same(self, stored: _StoredItem, item: object) -> bool:
        known = stored.value
        if item is known:
            if type(item) in IMMUTABLE or (stored.mark is not None and stored.mark == message_digest(item)):
                return True
        elif type(item) in COMPARABLE and type(item) is type(known):
            return item == known
        if stored.digest is None:
            stored.digest = stored_digest(stored.encoded)
        if self._codec.list_item(item).digest != stored.digest:
            return False
        stored.value, stored.mark = item, message_digest(item)
        return True


def _stored(value: object, item: Item) -> _StoredItem:
    return _StoredItem(value, message_digest(value), item.digest)


def _copy_is_due(base: _Base, length: int) -> bool:
    return base.parts >= MIN_PARTS and length >= GROWTH * base.full_length


def _full(key: ChannelKey, version: str, value: Encoded) -> JsonObject:
    return {"channel": key.channel, "version": version, "kind": "full", "value": value}


def _appended(key: ChannelKey, version: str, base: _Base, items: list[Json]) -> JsonObject:
    named: JsonObject = {"version": base.version, "length": len(base.items), "stream": base.stream}
    return {"channel": key.channel, "version": version, "kind": "append", "items": items, "base": named}


def empty(channel: str, version: str) -> JsonObject:
    """Return the entry of a channel that has no value in this version."""
    return {"channel": channel, "version": version, "kind": "empty"}
