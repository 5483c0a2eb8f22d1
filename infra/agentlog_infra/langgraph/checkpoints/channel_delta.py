"""Delta encoder of channel values: a list that has grown is stored as the items that follow its last version.

A full copy is stored again when the list is GROWTH times as long as the last full copy, after at least MIN_PARTS
appends. So all full copies together have at most 8/7 of the final size, and a read goes back at
most to the last full copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agentlog_facts.checkpoint import Encoded, EncodedChannel
from agentlog_facts.ids import Stream, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec, stored_digest

MIN_PARTS = 64
GROWTH = 8


@dataclass(frozen=True, slots=True)
class ChannelKey:
    """A channel of one graph (namespace) of a thread."""

    thread_id: ThreadId
    checkpoint_ns: str
    channel: str


@dataclass(frozen=True, slots=True)
class _Base:
    """A stored list: its stream, the digest of each item, and the length of its chain of appends."""

    version: str
    stream: Stream
    digests: Sequence[bytes]
    full_length: int
    parts: int


class ChannelDeltaEncoder:
    """Encodes new versions of channels; for this it keeps the digests of the last stored list of each channel."""

    def __init__(self, codec: ChannelCodec) -> None:
        self._codec = codec
        self._bases: dict[ChannelKey, _Base | EncodedChannel] = {}

    def remember(self, key: ChannelKey, channel: EncodedChannel) -> None:
        """Remember a version that was read; the next version may build on it."""
        if channel.kind == "list":
            self._bases[key] = channel

    def entry(self, key: ChannelKey, version: str, stream: Stream, value: object) -> JsonObject:
        """Return the entry of a `CheckpointSaved` on `stream` for a new version.

        Raises TypeError for a value that cannot be stored.
        """
        items = self._codec.items(value)
        if items is None:
            return _full(key, version, self._codec.item(value).encoded)
        digests = [item.digest for item in items]
        base = self._base(key)
        if base is None or not _grew(base, digests) or _copy_is_due(base, len(digests)):
            self._bases[key] = _Base(version, stream, digests, len(digests), 0)
            return _full(key, version, {"items": [item.encoded for item in items]})
        self._bases[key] = _Base(version, stream, digests, base.full_length, base.parts + 1)
        return _appended(key, version, base, [item.encoded for item in items[len(base.digests) :]])

    def _base(self, key: ChannelKey) -> _Base | None:
        found = self._bases.get(key)
        if not isinstance(found, EncodedChannel):
            return found
        digests = [stored_digest(item) for item in found.items]
        return _Base(found.version, found.stream, digests, found.full_length, found.parts)


def _grew(base: _Base, digests: Sequence[bytes]) -> bool:
    length = len(base.digests)
    return 0 < length <= len(digests) and list(base.digests) == list(digests[:length])


def _copy_is_due(base: _Base, length: int) -> bool:
    return base.parts >= MIN_PARTS and length >= GROWTH * base.full_length


def _full(key: ChannelKey, version: str, value: Encoded) -> JsonObject:
    return {"channel": key.channel, "version": version, "kind": "full", "value": value}


def _appended(key: ChannelKey, version: str, base: _Base, items: list[Json]) -> JsonObject:
    named: JsonObject = {"version": base.version, "length": len(base.digests), "stream": base.stream}
    return {"channel": key.channel, "version": version, "kind": "append", "items": items, "base": named}


def empty(channel: str, version: str) -> JsonObject:
    """Return the entry of a channel that has no value in this version."""
    return {"channel": channel, "version": version, "kind": "empty"}
