"""Versions of channels in memory, for as long as a checkpoint in memory names them, with their size in bytes."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from agentlog_facts.checkpoint import (
    ChannelEntry,
    ChannelHistory,
    CheckpointKey,
    EncodedChannel,
    VersionKey,
    channel_versions,
)
from agentlog_facts.checkpoint_ports import StoredCheckpoint
from agentlog_facts.growing_list import GrowingList
from agentlog_facts.ids import Stream, ThreadId
from agentlog_facts.json_value import Json

VALUE_BYTES = 56
"""What Python needs for one value of JSON, beside the text of a string."""
NAME_BYTES = 250
"""What the name of a version needs in the indexes of this module."""


def size_of(value: Json) -> int:
    """Return about how many bytes of memory a value needs."""
    if isinstance(value, str):
        return VALUE_BYTES + len(value)
    if isinstance(value, dict):
        return VALUE_BYTES + sum(VALUE_BYTES + len(key) + size_of(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return VALUE_BYTES + sum(map(size_of, value))
    return VALUE_BYTES


@dataclass(slots=True)
class _Memory:
    """Memory of one value, or of a list that versions share: its size, its counted items, and its versions."""

    size_bytes: int
    length: int
    versions: int = 0


class KeptChannels:
    """Versions of channels that checkpoints in memory name, and those of checkpoints that were read from the rows."""

    def __init__(self) -> None:
        self._history = ChannelHistory()
        self._named: dict[VersionKey, int] = {}
        self._memories: dict[int, _Memory] = {}
        self._of_version: dict[VersionKey, list[int]] = {}
        self._read: OrderedDict[CheckpointKey, list[VersionKey]] = OrderedDict()
        self.size_bytes = 0
        """Size of all versions; lists that share their memory count once."""

    def fold(self, thread_id: ThreadId, ns: str, entry: ChannelEntry, seq: int) -> None:
        """Fold one entry that was accepted at `seq`, after all others. Raises: Corrupt."""
        channel = self._history.fold(thread_id, ns, entry, seq)
        self._hold((thread_id, ns, entry.channel, entry.version), channel)

    def name(self, stored: StoredCheckpoint) -> None:
        """Keep the versions that a checkpoint names, until `release`."""
        self._name(_versions_of(stored))

    def release(self, stored: StoredCheckpoint) -> None:
        """Undo `name`: drop the versions that nothing else names."""
        self._release(_versions_of(stored))

    def remember(self, stored: StoredCheckpoint) -> None:
        """Add the versions of a checkpoint that was read from the rows, until `forget_reads`."""
        names = _versions_of(stored)
        for key in names:
            if not self._history.knows(key):
                channel = stored.channels.get(key[2])
                self._history.remember(key, channel)
                self._hold(key, channel)
        self._name(names)
        self._release(self._read.pop(stored.key, []))
        self._read[stored.key] = names

    def forget_reads(self, most_bytes: int) -> None:
        """Drop what was read first, while all versions together have more bytes; keep what was read last."""
        while self.size_bytes > most_bytes and len(self._read) > 1:
            self._release(self._read.popitem(last=False)[1])

    def knows_all(self, stored: StoredCheckpoint) -> bool:
        """Return whether all versions that a checkpoint names are here."""
        return all(map(self._history.knows, _versions_of(stored)))

    def has_list(self, key: VersionKey, stream: Stream) -> bool:
        """Return whether a list may grow from this version as stated on `stream`."""
        return self._history.has_list(key, stream)

    def held(self, thread_id: ThreadId, ns: str, versions: Mapping[str, str], seq: int) -> dict[str, EncodedChannel]:
        """Return the channels of a checkpoint that was accepted at `seq`, without those that have no value."""
        return self._history.held(thread_id, ns, versions, seq)

    def bytes_of(self, stored: StoredCheckpoint) -> int:
        """Return the size of the versions that a checkpoint names."""
        names = _versions_of(stored)
        memories = {memory for key in names for memory in self._of_version.get(key, ())}
        return sum(self._memories[memory].size_bytes for memory in memories) + NAME_BYTES * len(names)

    def _name(self, names: list[VersionKey]) -> None:
        for key in names:
            self._named[key] = self._named.get(key, 0) + 1
        self.size_bytes += NAME_BYTES * len(names)

    def _release(self, names: list[VersionKey]) -> None:
        for key in names:
            self._named[key] -= 1
            if not self._named[key]:
                del self._named[key]
                self._forget(key)
        self.size_bytes -= NAME_BYTES * len(names)

    def _hold(self, key: VersionKey, channel: EncodedChannel | None) -> None:
        if channel is None:
            return
        items = channel.items
        shared: object = items.buffer if isinstance(items, GrowingList) else channel
        memory = self._memories.setdefault(id(shared), _Memory(0, 0))
        new = items.buffer[memory.length : len(items)] if isinstance(items, GrowingList) else list(items)
        added = sum(map(size_of, new)) + (size_of(channel.value) if not memory.versions else 0)
        memory.size_bytes += added
        self.size_bytes += added
        memory.length = max(memory.length, len(items))
        memory.versions += 1
        self._of_version.setdefault(key, []).append(id(shared))

    def _forget(self, key: VersionKey) -> None:
        for held in self._of_version.pop(key, ()):
            memory = self._memories[held]
            memory.versions -= 1
            if not memory.versions:
                self.size_bytes -= memory.size_bytes
                del self._memories[held]
        self._history.forget(key)


def _versions_of(stored: StoredCheckpoint) -> list[VersionKey]:
    named = channel_versions(stored.checkpoint)
    return [(stored.thread_id, stored.checkpoint_ns, channel, version) for channel, version in named.items()]
