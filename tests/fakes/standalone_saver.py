"""Checkpoint saver outside a run: each call is a commit on `thread-<id>`; it also deletes, copies, prunes threads."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeAlias

from langgraph.checkpoint.serde.base import SerializerProtocol

from agentlog_facts.checkpoint import (
    CheckpointFact,
    CheckpointSaved,
    CheckpointsHidden,
    EncodedChannel,
    VersionKey,
    WritesSaved,
    channel_versions,
)
from agentlog_facts.checkpoint_ports import CheckpointQuery, CheckpointReads, StoredCheckpoint, StoredWrite, merged
from agentlog_facts.envelope import Fact
from agentlog_facts.ids import RunId, Stream, ThreadId, stream
from agentlog_facts.json_value import Json, JsonObject, as_object, dump
from agentlog_facts.secret_values import HiddenValues, SecretKeys
from agentlog_facts.thread import ThreadDeleted
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec
from agentlog_infra.langgraph.checkpoints.channel_delta import ChannelDeltaEncoder, ChannelKey, empty
from agentlog_infra.langgraph.checkpoints.saver import LogSaver

Commit: TypeAlias = Callable[[ThreadId, Sequence[Fact]], Awaitable[None]]
"""Commits facts on `thread-<id>` (creating the thread if it is absent) and waits for the verdict."""


class CommittingJournal:
    """Commits each write by itself and waits for its verdict."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit

    @property
    def run_id(self) -> RunId | None:
        """Return None: there is no claim."""
        return None

    def stream(self, thread_id: ThreadId) -> Stream:
        """Return the thread's stream."""
        return stream("thread", thread_id)

    async def write(self, thread_id: ThreadId, facts: Sequence[CheckpointFact]) -> None:
        """Commit facts; they are projected when this returns."""
        await self._commit(thread_id, facts)


class StandaloneSaver(LogSaver):
    """A saver that commits by itself; when a call returns, its facts are accepted and projected."""

    def __init__(self, reads: CheckpointReads, commit: Commit, serde: SerializerProtocol, token: str) -> None:
        super().__init__(reads, CommittingJournal(commit), serde, token, HiddenValues(SecretKeys()))
        self._stored_reads = reads
        self._commit = commit

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread."""
        self.blocking(lambda: self.adelete_thread(thread_id))

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread; do nothing if there is none."""
        name = ThreadId(thread_id)
        self._deltas = ChannelDeltaEncoder(self._codec)  # later lists must not build on deleted ones
        if await self.here(self._stored_reads.find(CheckpointQuery(name, limit=1))):
            await self.here(self._committed(name, (ThreadDeleted(name),)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Hide the checkpoints of runs."""
        self.blocking(lambda: self.adelete_for_runs(run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Hide all checkpoints whose metadata name one of these runs."""
        for run_id in run_ids:
            found = await self.here(self._stored_reads.find(CheckpointQuery(metadata={"run_id": run_id})))
            for thread_id in dict.fromkeys(one.thread_id for one in found):
                await self._hide(thread_id, [one for one in found if one.thread_id == thread_id], "delete_for_runs")

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Hide old checkpoints."""
        self.blocking(lambda: self.aprune(thread_ids, strategy=strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Hide all checkpoints but the latest of each namespace and those from which its delta channels are rebuilt.

        `delete` hides all of them. Raises ValueError for another strategy.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"prune: expected strategy keep_latest or delete, found {strategy}")
        for name in thread_ids:
            thread_id = ThreadId(name)
            found = await self.here(self._stored_reads.find(CheckpointQuery(thread_id)))
            kept = _needed(found) if strategy == "keep_latest" else set[tuple[str, str]]()
            await self._hide(thread_id, [one for one in found if _name(one) not in kept], "prune")

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread."""
        self.blocking(lambda: self.acopy_thread(source_thread_id, target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of a thread, with their writes and in their order, by value."""
        target = ThreadId(target_thread_id)
        found = await self.here(self._stored_reads.find(CheckpointQuery(ThreadId(source_thread_id))))
        copies = tuple(ThreadCopy(self._codec, target).facts(found))
        if copies:
            await self.here(self._committed(target, copies))

    async def _hide(self, thread_id: ThreadId, hidden: Sequence[StoredCheckpoint], reason: str) -> None:
        if hidden:
            names: list[Json] = [{"ns": one.checkpoint_ns, "checkpoint_id": one.checkpoint_id} for one in hidden]
            await self.here(self._committed(thread_id, (CheckpointsHidden(thread_id, tuple(names), reason),)))

    async def _committed(self, thread_id: ThreadId, facts: Sequence[CheckpointFact | ThreadDeleted]) -> None:
        await self._commit(thread_id, facts)


class ThreadCopy:
    """Encodes the checkpoints of one thread again for another, lists again as deltas."""

    def __init__(self, codec: ChannelCodec, target: ThreadId) -> None:
        self._codec = codec
        self._deltas = ChannelDeltaEncoder(codec)
        self._target = target
        self._copied: dict[VersionKey, EncodedChannel | None] = {}

    def facts(self, newest_first: Sequence[StoredCheckpoint]) -> Iterator[CheckpointFact]:
        """Yield the facts in the order in which the source accepted them."""
        for stored in reversed(newest_first):
            yield self._checkpoint(stored)
            yield from (self._write(stored, write) for write in merged(stored.writes))

    def _checkpoint(self, stored: StoredCheckpoint) -> CheckpointSaved:
        return CheckpointSaved(
            thread_id=self._target,
            run_id=None,
            checkpoint_ns=stored.checkpoint_ns,
            checkpoint_id=stored.checkpoint_id,
            parent_checkpoint_id=stored.parent_checkpoint_id,
            checkpoint=stored.checkpoint,
            metadata=stored.metadata,
            channels=tuple(self._channels(stored)),
        )

    def _channels(self, stored: StoredCheckpoint) -> Iterator[JsonObject]:
        for name, version in channel_versions(stored.checkpoint).items():
            key = ChannelKey(self._target, stored.checkpoint_ns, name)
            channel, known = stored.channels.get(name), (self._target, stored.checkpoint_ns, name, version)
            if known not in self._copied or not _same(self._copied[known], channel):
                self._copied[known] = channel
                yield empty(name, version) if channel is None else self._entry(key, channel)

    def _entry(self, key: ChannelKey, channel: EncodedChannel) -> JsonObject:
        is_list = channel.kind == "list"
        value = self._codec.decode_items(channel.items) if is_list else self._codec.decode(channel.value)
        return self._deltas.entry(key, channel.version, stream("thread", self._target), value)

    def _write(self, stored: StoredCheckpoint, write: StoredWrite) -> WritesSaved:
        entry: JsonObject = {"index": write.index, "channel": write.channel, "value": write.value}
        return WritesSaved(
            thread_id=self._target,
            run_id=None,
            checkpoint_ns=stored.checkpoint_ns,
            checkpoint_id=stored.checkpoint_id,
            task_id=write.task_id,
            task_path=write.task_path,
            writes=(entry,),
        )


def _same(left: EncodedChannel | None, right: EncodedChannel | None) -> bool:
    if left is None or right is None or left is right:
        return left is right
    return left.kind == right.kind and dump([left.value, *left.items]) == dump([right.value, *right.items])


def _needed(newest_first: Sequence[StoredCheckpoint]) -> set[tuple[str, str]]:
    """Return the latest checkpoint of each namespace and the parents from which its delta channels are rebuilt."""
    by_name = {_name(one): one for one in newest_first}
    needed: set[tuple[str, str]] = set()
    for ns in {one.checkpoint_ns for one in newest_first}:
        latest = next(one for one in newest_first if one.checkpoint_ns == ns)
        missing = _delta_channels(latest) - latest.channels.keys()
        needed.add(_name(latest))
        one = latest
        while missing and (parent := by_name.get((ns, one.parent_checkpoint_id or ""))) is not None:
            needed.add(_name(parent))
            missing -= parent.channels.keys()
            one = parent
    return needed


def _delta_channels(stored: StoredCheckpoint) -> set[str]:
    """Return the channels that are rebuilt from writes: langgraph counts the steps since their last stored value."""
    return set(as_object(stored.metadata.get("counters_since_delta_snapshot") or {}, "counters"))


def _name(stored: StoredCheckpoint) -> tuple[str, str]:
    return stored.checkpoint_ns, stored.checkpoint_id
