"""LangGraph's checkpoint saver over the event log.

"Latest" and "before" follow the order of acceptance, not the time in a checkpoint id. Sync methods run on the saver's
loop and are for other threads only, such as that of a sync node that invokes a subgraph.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_id,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import ERROR

from agentlog_facts.checkpoint import CheckpointFact, CheckpointSaved, Encoded, EncodedChannel, WritesSaved
from agentlog_facts.checkpoint_ports import (
    CheckpointQuery,
    CheckpointReads,
    StoredCheckpoint,
    find_latest,
    find_one,
    find_parent,
    merged,
)
from agentlog_facts.configurable import CHECKPOINT_KEYS, NODE_METADATA
from agentlog_facts.errors import Corrupt
from agentlog_facts.ids import Stream, ThreadId
from agentlog_facts.json_value import Json, JsonObject, TooDeep
from agentlog_facts.secret_values import HiddenValues
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec, is_exact
from agentlog_infra.langgraph.checkpoints.channel_delta import ChannelDeltaEncoder, ChannelKey, empty
from agentlog_infra.langgraph.checkpoints.journal import Journal
from agentlog_infra.langgraph.checkpoints.overlay import OverlaidReads
from agentlog_infra.langgraph.checkpoints.sync_saver import LoopBoundSaver
from agentlog_infra.langgraph.errors import MASK
from agentlog_infra.langgraph.value_json import check_names, text_by, to_object

VERSION_DIGITS = 8
PLAIN_FIELDS = ("v", "id", "ts", "channel_versions", "versions_seen", "updated_channels")
"""Fields of a stored checkpoint that every reader of the log can rely on."""


class LogSaver(LoopBoundSaver):
    """A `BaseCheckpointSaver` that appends facts to a journal and reads projected checkpoints.

    The constructor must be called on the loop that the saver uses. `token` makes channel versions unique over branches
    and attempts; every saver needs a different one. `hidden` are secrets that metadata and errors must not show.
    """

    def __init__(
        self,
        reads: CheckpointReads,
        journal: Journal,
        serde: SerializerProtocol,
        token: str,
        hidden: HiddenValues,
    ) -> None:
        super().__init__(serde=serde)
        self._reads = reads
        self._journal = journal
        self._codec = ChannelCodec(self.serde)
        self._deltas = ChannelDeltaEncoder(self._codec, self._is_kept)
        self._token = hashlib.sha256(token.encode()).hexdigest()[:8]
        self._hidden = hidden
        self._count = 0
        self._unknown: set[tuple[str, str | None]] = set()

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return a version above `current`, unique over branches, runs and attempts."""
        self._count += 1
        number = int(current[:VERSION_DIGITS], 16) if current else 0
        return f"{number + 1:0{VERSION_DIGITS}x}.{self._token}.{self._count:x}"

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> "LogSaver":
        """Return a clone that may also deserialize these types."""
        clone = super().with_allowlist(extra_allowlist)
        if clone is not self and isinstance(clone, LogSaver):
            clone._codec = ChannelCodec(clone.serde)
            return clone
        return self

    # writes

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Write a checkpoint with its changed channels.

        Raises: AttemptLost, TypeError (a value cannot be stored), ValueError (a name or the nesting of a value).
        """
        return await self.here(self._put(config, checkpoint, metadata, new_versions))

    async def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        conf = _conf(config)
        thread_id, ns = ThreadId(str(conf["thread_id"])), str(conf.get("checkpoint_ns") or "")
        check_names(ns, *new_versions)
        parent = get_checkpoint_id(config)
        saved = CheckpointSaved(
            thread_id=thread_id,
            run_id=self._journal.run_id,
            checkpoint_ns=ns,
            checkpoint_id=checkpoint["id"],
            parent_checkpoint_id=None if (ns, parent) in self._unknown else parent,
            checkpoint=self._plain(checkpoint),
            metadata=self._hidden.metadata(
                to_object({**get_serializable_checkpoint_metadata(config, metadata), **_place(config, ns)})
            ),
            channels=tuple(self._changed(thread_id, ns, checkpoint["channel_values"], new_versions)),
        )
        await self._write(thread_id, saved)
        return address(thread_id, ns, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Write the output of a task, on the checkpoint on which it runs. Raises: as `aput`."""
        await self.here(self._put_writes(config, writes, task_id, task_path))

    async def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> None:
        conf = _conf(config)
        ns = str(conf.get("checkpoint_ns") or "")
        check_names(ns, task_id, task_path, *(channel for channel, _ in writes))
        entries: list[Json] = [
            {
                "index": WRITES_IDX_MAP.get(channel, place),
                "channel": channel,
                "value": self._encoded(channel, self._error_text(value) if channel == ERROR else value),
            }
            for place, (channel, value) in enumerate(writes)
            if not _is_cancel(channel, value)
        ]
        if not entries and writes:
            return
        thread_id = ThreadId(str(conf["thread_id"]))
        written = WritesSaved(
            thread_id=thread_id,
            run_id=self._journal.run_id,
            checkpoint_ns=ns,
            checkpoint_id=str(conf["checkpoint_id"]),
            task_id=task_id,
            task_path=task_path,
            writes=tuple(entries),
        )
        await self._write(thread_id, written)

    def _error_text(self, error: object) -> str:
        """Return an error as text without secrets, MASK if its own code cannot show it.

        The serializer would store the fields of an error that is a dataclass, and call `__repr__` of others again.
        """
        text = error if isinstance(error, str) else text_by(error, repr)
        return MASK if text is None else self._hidden.text(text)

    def _encoded(self, channel: str, value: object) -> Encoded:
        with _named(channel):
            return self._codec.encode(value)

    async def _write(self, thread_id: ThreadId, fact: CheckpointFact) -> None:
        if isinstance(self._reads, OverlaidReads):
            self._reads.add(self._journal.stream(thread_id), (fact,))
        await self._journal.write(thread_id, (fact,))
        if isinstance(self._reads, OverlaidReads) and await self._reads.make_room(
            wait=isinstance(fact, CheckpointSaved)  # LangGraph waits for a checkpoint before its next step
        ):
            self._deltas.forget_dropped()

    def _is_kept(self, key: ChannelKey, version: str, stream: Stream) -> bool:
        """Return whether a list may grow from this version; an overlay may have dropped it."""
        named = (key.thread_id, key.checkpoint_ns, key.channel, version)
        return not isinstance(self._reads, OverlaidReads) or self._reads.has_list(named, stream)

    def _plain(self, checkpoint: Checkpoint) -> JsonObject:
        plain: dict[str, object] = {}
        rest: dict[str, object] = {}
        for name, value in checkpoint.items():
            if name != "channel_values":
                (plain if name in PLAIN_FIELDS or is_exact(value) else rest)[name] = value
        stored = to_object(plain)
        return stored | {"encoded": self._codec.encode(rest)} if rest else stored

    def _changed(
        self, thread_id: ThreadId, ns: str, values: Mapping[str, object], versions: ChannelVersions
    ) -> Iterator[JsonObject]:
        stream = self._journal.stream(thread_id)
        for channel, version in versions.items():
            if channel in values:
                key = ChannelKey(thread_id, ns, channel)
                with _named(channel):
                    entry = self._deltas.entry(key, str(version), stream, values[channel])
                yield entry
            else:
                yield empty(channel, str(version))

    # reads

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that the config names, or else the latest of its namespace. Raises: Unavailable."""
        stored = await self.here(self._stored(config))
        return None if stored is None else self._tuple(stored)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints in the order of acceptance, newest first. Raises: Unavailable."""
        if limit is not None and limit <= 0:
            return
        conf = _conf(config or {})
        ns, checkpoint_id = conf.get("checkpoint_ns"), conf.get("checkpoint_id")
        query = CheckpointQuery(
            thread_id=ThreadId(str(conf["thread_id"])) if "thread_id" in conf else None,
            ns=None if ns is None else str(ns),
            checkpoint_id=str(checkpoint_id) if checkpoint_id else None,
            before=get_checkpoint_id(before) if before else None,
            metadata=to_object(filter) if filter else None,
            limit=limit,
        )
        for stored in await self.here(self._reads.find(query)):
            yield self._tuple(stored)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return the writes of each channel since its last stored value, from one walk along a checkpoint's parents."""
        return await self.here(self._delta_history(config, channels))

    async def _delta_history(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        found: dict[str, DeltaChannelHistory] = {channel: {"writes": []} for channel in channels}
        remaining = set(channels)
        stored = await self._stored(config) if channels else None
        while remaining and stored is not None:
            stored = await find_parent(self._reads, stored)
            if stored is not None:
                remaining -= self._collect(stored, remaining, found)
        return found

    def _collect(
        self, stored: StoredCheckpoint, remaining: set[str], found: Mapping[str, DeltaChannelHistory]
    ) -> set[str]:
        """Add a parent's writes before those of its children, and return the channels whose stored value it holds."""
        older: dict[str, list[PendingWrite]] = {channel: [] for channel in remaining}
        for write in merged(stored.writes):
            if write.channel in older:
                older[write.channel].append((write.task_id, write.channel, self._codec.decode(write.value)))
        for channel, writes in older.items():
            found[channel]["writes"][:0] = writes
        ended = remaining & stored.channels.keys()
        for channel in ended:
            found[channel]["seed"] = self._value(stored.channels[channel])
        return ended

    async def _stored(self, config: RunnableConfig) -> StoredCheckpoint | None:
        conf = _conf(config)
        thread_id, ns = ThreadId(str(conf["thread_id"])), str(conf.get("checkpoint_ns") or "")
        checkpoint_id = get_checkpoint_id(config)
        if not checkpoint_id:
            return await find_latest(self._reads, thread_id, ns)
        found = await find_one(self._reads, thread_id, ns, str(checkpoint_id))
        if found is None:
            self._unknown.add((ns, str(checkpoint_id)))  # a checkpoint on top of it is a root
        return found

    def _tuple(self, stored: StoredCheckpoint) -> CheckpointTuple:
        thread_id, ns, parent = stored.thread_id, stored.checkpoint_ns, stored.parent_checkpoint_id
        checkpoint = self._checkpoint(stored)
        for name, channel in stored.channels.items():
            key = ChannelKey(thread_id, ns, name)
            self._deltas.remember(key, channel, checkpoint["channel_values"][name])
        return CheckpointTuple(
            config=address(thread_id, ns, stored.checkpoint_id),
            checkpoint=checkpoint,
            metadata=_metadata(stored.metadata),
            parent_config=address(thread_id, ns, parent) if parent else None,
            pending_writes=[(w.task_id, w.channel, self._codec.decode(w.value)) for w in merged(stored.writes)],
        )

    def _checkpoint(self, stored: StoredCheckpoint) -> Checkpoint:
        plain: dict[str, Any] = {name: value for name, value in stored.checkpoint.items() if name != "encoded"}
        rest = self._codec.decode(stored.checkpoint.get("encoded"))
        if _is_fields(rest):
            plain.update(rest)
        plain["channel_versions"] = dict(plain.get("channel_versions", {}))  # langgraph changes these in place
        plain["versions_seen"] = {node: dict(seen) for node, seen in plain.get("versions_seen", {}).items()}
        plain["channel_values"] = {name: self._value(channel) for name, channel in stored.channels.items()}
        if not _is_checkpoint(plain):
            raise Corrupt(f"checkpoint {stored.checkpoint_id}: a field is missing")
        return plain

    def _value(self, channel: EncodedChannel) -> object:
        return self._codec.decode_items(channel.items) if channel.kind == "list" else self._codec.decode(channel.value)


class UpdateSaver(LogSaver):
    """A saver that marks the writes of a command as a step of the graph. Source: docs/http-api.md, section 13."""

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Write the checkpoint with source `loop`. Raises: AttemptLost, TypeError."""
        return await super().aput(config, checkpoint, {**metadata, "source": "loop"}, new_versions)


def _is_cancel(channel: str, value: object) -> bool:
    """Return whether a write is the error of a cancelled task: LangGraph saves it, but nothing in it has failed."""
    return channel == ERROR and isinstance(value, asyncio.CancelledError)


def address(thread_id: ThreadId, ns: str, checkpoint_id: str) -> RunnableConfig:
    """Return the config that names a checkpoint."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}


@contextmanager
def _named(channel: str) -> Generator[None]:
    """Name the channel in an error about its value."""
    try:
        yield
    except (TypeError, TooDeep) as error:
        raise type(error)(f"{channel}: {error}") from error


def _conf(config: RunnableConfig) -> Mapping[str, object]:
    return config.get("configurable", {})


def _place(config: RunnableConfig, ns: str) -> Mapping[str, object]:
    """Return the metadata that names the place of a subgraph: its node's task and its namespaces; the root has none."""
    if not ns:
        return {}
    task, conf = config.get("metadata", {}), _conf(config)
    named = {name: task[name] for name in NODE_METADATA if name in task}
    return named | {name: conf[name] for name in CHECKPOINT_KEYS - {"checkpoint_id"} if conf.get(name) is not None}


def _metadata(stored: JsonObject) -> CheckpointMetadata:
    fields: object = dict(stored)
    return fields if _is_metadata(fields) else {}


def _is_metadata(fields: object) -> TypeGuard[CheckpointMetadata]:
    return isinstance(fields, dict)


def _is_checkpoint(fields: object) -> TypeGuard[Checkpoint]:
    return _is_fields(fields) and all(name in fields for name in ("v", "id", "ts"))


def _is_fields(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)
