"""Checkpoint facts folded in memory: what a saver wrote itself is read back at once, before it is projected."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from agentlog_facts.checkpoint import CheckpointFact, CheckpointSaved, CheckpointsHidden, WritesSaved
from agentlog_facts.checkpoint_ports import Encoded, EncodedChannel, StoredCheckpoint, StoredWrite
from agentlog_facts.errors import Corrupt
from agentlog_facts.ids import Stream, ThreadId
from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_infra.langgraph.checkpoints.channel_delta import ChannelKey


@dataclass(frozen=True, slots=True)
class CheckpointKey:
    """A checkpoint's identity."""

    thread_id: ThreadId
    checkpoint_ns: str
    checkpoint_id: str


@dataclass(frozen=True, slots=True)
class _Version:
    """What a version of a channel held from this order number on; None is a channel without value."""

    seq: int
    channel: EncodedChannel | None


class FoldedCheckpoints:
    """A fold of checkpoint facts; `first_seq` is the order number of the first one."""

    def __init__(self, first_seq: int = 0) -> None:
        self._seq = first_seq
        self._checkpoints: dict[CheckpointKey, StoredCheckpoint] = {}
        self._writes: dict[CheckpointKey, list[StoredWrite]] = {}
        self._channels: dict[tuple[ChannelKey, str], list[_Version]] = {}

    def apply(self, stream: Stream, fact: CheckpointFact) -> None:
        """Fold one fact of `stream`. Raises Corrupt where it builds on a version that was never seen."""
        self._seq += 1
        match fact:
            case CheckpointSaved():
                self._saved(stream, fact)
            case WritesSaved():
                self._written(fact)
            case CheckpointsHidden():
                for named in fact.checkpoints:
                    self._hide(fact.thread_id, as_object(named, "hidden checkpoint"))

    def remember(self, checkpoint: StoredCheckpoint) -> None:
        """Take the channels of a checkpoint that was read elsewhere; later facts may build on them."""
        for name, version in _versions(checkpoint.checkpoint).items():
            key = ChannelKey(checkpoint.thread_id, checkpoint.checkpoint_ns, name)
            self._channels.setdefault((key, str(version)), [_Version(0, checkpoint.channels.get(name))])

    def get(self, key: CheckpointKey) -> StoredCheckpoint | None:
        """Return a folded checkpoint with its channels and the folded writes on it."""
        found = self._checkpoints.get(key)
        return None if found is None else replace(found, channels=self._resolved(found), writes=self.writes(key))

    def latest(self, thread_id: ThreadId, ns: str) -> StoredCheckpoint | None:
        """Return the checkpoint that was folded last."""
        keys = [key for key in self._checkpoints if key.thread_id == thread_id and key.checkpoint_ns == ns]
        return self.get(keys[-1]) if keys else None

    def all(self, thread_id: ThreadId | None, ns: str | None) -> list[StoredCheckpoint]:
        """Return what was folded, newest first."""
        keys = [
            key
            for key in reversed(self._checkpoints)
            if thread_id in (None, key.thread_id) and ns in (None, key.checkpoint_ns)
        ]
        return [found for key in keys if (found := self.get(key)) is not None]

    def writes(self, key: CheckpointKey) -> tuple[StoredWrite, ...]:
        """Return the folded writes on any checkpoint."""
        return tuple(self._writes.get(key, ()))

    def lacks(self, checkpoint: StoredCheckpoint) -> bool:
        """Tell whether a folded checkpoint names a channel version that was neither folded nor remembered."""
        return any(known not in self._channels for known in _named(checkpoint))

    def forget(self, thread_id: ThreadId) -> None:
        """Drop all of a thread."""
        self._checkpoints = {k: v for k, v in self._checkpoints.items() if k.thread_id != thread_id}
        self._writes = {k: v for k, v in self._writes.items() if k.thread_id != thread_id}
        self._channels = {k: v for k, v in self._channels.items() if k[0].thread_id != thread_id}

    def _resolved(self, checkpoint: StoredCheckpoint) -> Mapping[str, EncodedChannel]:
        found = ((known[0].channel, self._channel_at(known, checkpoint.seq)) for known in _named(checkpoint))
        return {name: channel for name, channel in found if channel is not None}

    def _channel_at(self, known: tuple[ChannelKey, str], seq: int) -> EncodedChannel | None:
        """Return what a version held for a checkpoint: one that is said again holds for later checkpoints only."""
        stated = reversed(self._channels.get(known, ()))
        return next((version.channel for version in stated if version.seq <= seq), None)

    def _saved(self, stream: Stream, fact: CheckpointSaved) -> None:
        for entry in fact.channels:
            self._channel(stream, fact, as_object(entry, "channel"))
        key = CheckpointKey(fact.thread_id, fact.checkpoint_ns, fact.checkpoint_id)
        self._checkpoints.pop(key, None)  # said again: it is the newest now
        self._checkpoints[key] = StoredCheckpoint(
            thread_id=fact.thread_id,
            checkpoint_ns=fact.checkpoint_ns,
            checkpoint_id=fact.checkpoint_id,
            parent_checkpoint_id=fact.parent_checkpoint_id,
            run_id=fact.run_id,
            seq=self._seq,
            checkpoint=fact.checkpoint,
            metadata=fact.metadata,
            channels={},
            writes=(),
        )

    def _channel(self, stream: Stream, fact: CheckpointSaved, entry: JsonObject) -> None:
        key = ChannelKey(fact.thread_id, fact.checkpoint_ns, str(entry["channel"]))
        version = str(entry["version"])
        channel: EncodedChannel | None = None
        if entry["kind"] == "full":
            channel = _full(version, stream, entry["value"])
        elif entry["kind"] == "append":
            channel = self._appended(key, version, stream, entry)
        self._channels.setdefault((key, version), []).append(_Version(self._seq, channel))

    def _appended(self, key: ChannelKey, version: str, stream: Stream, entry: JsonObject) -> EncodedChannel:
        named = as_object(entry["base"], "base")
        base = self._channel_at((key, str(named["version"])), self._seq)
        if base is None or base.kind != "list" or len(base.items) != named["length"]:
            raise Corrupt(f"channel {key.channel} {version}: its base {named['version']} is not there")
        items = (*base.items, *_list(entry["items"]))
        return replace(base, version=version, stream=stream, items=items, parts=base.parts + 1)

    def _written(self, fact: WritesSaved) -> None:
        key = CheckpointKey(fact.thread_id, fact.checkpoint_ns, fact.checkpoint_id)
        for stored in fact.writes:
            write = as_object(stored, "write")
            index = write["index"]
            if not isinstance(index, int):
                raise Corrupt(f"write of task {fact.task_id}: its index is no number")
            self._writes.setdefault(key, []).append(
                StoredWrite(
                    fact.task_id, index, str(write["channel"]), write["value"], fact.task_path, fact.run_id, self._seq
                )
            )

    def _hide(self, thread_id: ThreadId, named: JsonObject) -> None:
        key = CheckpointKey(thread_id, str(named["ns"]), str(named["checkpoint_id"]))
        self._checkpoints.pop(key, None)
        self._writes.pop(key, None)


def _full(version: str, stream: Stream, value: Encoded) -> EncodedChannel:
    match value:
        case {"items": list(items)}:
            return EncodedChannel("list", version, stream, items=tuple(items), full_length=len(items))
        case _:
            return EncodedChannel("value", version, stream, value=value)


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise Corrupt("channel: expected a list of items")
    return value


def _versions(checkpoint: JsonObject) -> JsonObject:
    return as_object(checkpoint.get("channel_versions", {}), "channel_versions")


def _named(checkpoint: StoredCheckpoint) -> list[tuple[ChannelKey, str]]:
    return [
        (ChannelKey(checkpoint.thread_id, checkpoint.checkpoint_ns, name), str(version))
        for name, version in _versions(checkpoint.checkpoint).items()
    ]
