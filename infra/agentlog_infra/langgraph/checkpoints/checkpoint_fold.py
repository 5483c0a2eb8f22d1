"""In-memory fold of checkpoint facts, so that a saver can read its own writes at once."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from agentlog_facts.checkpoint import (
    CheckpointFact,
    CheckpointKey,
    CheckpointSaved,
    CheckpointsHidden,
    VersionKey,
    WritesSaved,
    channel_entries,
    channel_versions,
    hidden_checkpoints,
    write_entries,
)
from agentlog_facts.checkpoint_ports import CheckpointQuery, StoredCheckpoint, StoredWrite
from agentlog_facts.ids import Stream
from agentlog_infra.langgraph.checkpoints.kept_channels import KeptChannels, size_of


class FoldedCheckpoints:
    """A fold of checkpoint facts; `first_seq` is the order number of the first one."""

    def __init__(self, first_seq: int = 0) -> None:
        self._seq = first_seq
        self._checkpoints: dict[CheckpointKey, StoredCheckpoint] = {}
        self._hidden: dict[CheckpointKey, StoredCheckpoint] = {}
        self._writes: dict[CheckpointKey, list[StoredWrite]] = {}
        self._sizes: dict[CheckpointKey, int] = {}
        self._size_bytes = 0
        self._channels = KeptChannels()

    @property
    def last_seq(self) -> int:
        """Return the order number of the last fact."""
        return self._seq

    @property
    def newest(self) -> StoredCheckpoint | None:
        """Return the checkpoint that was saved last, without its channels and writes."""
        return next(reversed(self._checkpoints.values()), None)

    @property
    def older_bytes(self) -> int:
        """Return the size of everything in memory, beside the newest checkpoint with its state and writes."""
        size_bytes, newest = self._size_bytes + self._channels.size_bytes, self.newest
        if newest is not None:
            size_bytes -= self._sizes[newest.key] + self._channels.bytes_of(newest)
        return size_bytes

    def __contains__(self, key: object) -> bool:
        return key in self._checkpoints

    def __len__(self) -> int:
        return len(self._checkpoints)

    def __iter__(self) -> Iterator[CheckpointKey]:
        """Yield the keys of all checkpoints, oldest first."""
        return iter(self._checkpoints)

    def apply(self, stream: Stream, fact: CheckpointFact) -> None:
        """Fold one fact of `stream`. Raises: Corrupt if it builds on an unknown version."""
        self._seq += 1
        match fact:
            case CheckpointSaved():
                self._saved(stream, fact)
            case WritesSaved():
                self._written(fact)
            case CheckpointsHidden():
                for key in hidden_checkpoints(fact):
                    if key in self._checkpoints:
                        self._hidden[key] = self._checkpoints.pop(key)

    def remember(self, stored: StoredCheckpoint) -> None:
        """Add the channels of a checkpoint that was read from the rows, so that later deltas can be applied to them."""
        self._channels.remember(stored)

    def forget_reads(self, most_bytes: int) -> None:
        """Drop channels of checkpoints that were read first, while everything together has more bytes."""
        self._channels.forget_reads(most_bytes - self._size_bytes)

    def drop(self, key: CheckpointKey) -> None:
        """Drop a checkpoint that the rows hold, if it is here, and the writes on it."""
        stored = self._checkpoints.pop(key, None)
        if stored is not None:
            self._channels.release(stored)
        self._writes.pop(key, None)
        self._size_bytes -= self._sizes.pop(key, 0)

    def has_list(self, key: VersionKey, stream: Stream) -> bool:
        """Return whether a list may grow from this version as stated on `stream`."""
        return self._channels.has_list(key, stream)

    def get(self, key: CheckpointKey, query: CheckpointQuery | None = None) -> StoredCheckpoint | None:
        """Return a folded checkpoint with its channels and the folded writes on it."""
        found = self._checkpoints.get(key)
        return None if found is None else self._complete(found, query or CheckpointQuery())

    def find(self, query: CheckpointQuery) -> list[StoredCheckpoint]:
        """Return the folded checkpoints that match a query, newest first."""
        end = self._seq + 1
        if query.before is not None:
            end = min((self._checkpoints[key].seq for key in self.keys(query, query.before)), default=0)
        folded = (self._checkpoints[key] for key in self.keys(query, query.checkpoint_id))
        wanted = (one for one in (*folded, *self._built_on(query)) if one.seq < end and _is_wanted(one, query))
        return [self._complete(one, query) for one in islice(wanted, query.limit)]

    def _built_on(self, query: CheckpointQuery) -> Iterator[StoredCheckpoint]:
        """Yield the hidden checkpoint that a query names, if a checkpoint was built on it."""
        if query.as_of is not None and query.thread_id and query.ns is not None and query.checkpoint_id:
            found = self._hidden.get(CheckpointKey(query.thread_id, query.ns, query.checkpoint_id))
            if found is not None:
                yield found

    def keys(self, query: CheckpointQuery, checkpoint_id: str | None = None) -> Iterator[CheckpointKey]:
        """Yield the keys of the query's thread and namespace, newest first; all, or those with one checkpoint id."""
        if query.thread_id is not None and query.ns is not None and checkpoint_id is not None:
            key = CheckpointKey(query.thread_id, query.ns, checkpoint_id)
            yield from (key,) if key in self._checkpoints else ()
            return
        for key in reversed(self._checkpoints):
            of_query = query.thread_id in (None, key.thread_id) and query.ns in (None, key.checkpoint_ns)
            if of_query and checkpoint_id in (None, key.checkpoint_id):
                yield key

    def writes(self, key: CheckpointKey, query: CheckpointQuery) -> tuple[StoredWrite, ...]:
        """Return the folded writes on any checkpoint that a query asks for."""
        run_id, end = query.exclude_run, query.as_of
        return tuple(
            write
            for write in self._writes.get(key, ())
            if (run_id is None or write.run_id != run_id) and (end is None or write.seq < end)
        )

    def lacks(self, stored: StoredCheckpoint) -> bool:
        """Return whether a checkpoint names a channel version that has been neither folded nor remembered."""
        return not self._channels.knows_all(stored)

    def _complete(self, stored: StoredCheckpoint, query: CheckpointQuery) -> StoredCheckpoint:
        versions = channel_versions(stored.checkpoint)
        channels = self._channels.held(stored.thread_id, stored.checkpoint_ns, versions, stored.seq)
        return replace(stored, channels=channels, writes=self.writes(stored.key, query))

    def _saved(self, stream: Stream, fact: CheckpointSaved) -> None:
        for entry in channel_entries(fact, stream):
            self._channels.fold(fact.thread_id, fact.checkpoint_ns, entry, self._seq)
        key = CheckpointKey(fact.thread_id, fact.checkpoint_ns, fact.checkpoint_id)
        earlier = self._checkpoints.pop(key, None)  # a checkpoint that is saved again becomes the newest
        self._checkpoints[key] = stored = StoredCheckpoint(
            *key,
            parent_checkpoint_id=fact.parent_checkpoint_id,
            run_id=fact.run_id,
            seq=self._seq,
            checkpoint=fact.checkpoint,
            metadata=fact.metadata,
            channels={},
            writes=(),
        )
        self._channels.name(stored)
        if earlier is not None:
            self._channels.release(earlier)
        self._grow(key, size_of(fact.checkpoint) + size_of(fact.metadata))

    def _grow(self, key: CheckpointKey, size_bytes: int) -> None:
        self._sizes[key] = self._sizes.get(key, 0) + size_bytes
        self._size_bytes += size_bytes

    def _written(self, fact: WritesSaved) -> None:
        key = CheckpointKey(fact.thread_id, fact.checkpoint_ns, fact.checkpoint_id)
        self._grow(key, sum(map(size_of, fact.writes)))
        self._writes.setdefault(key, []).extend(
            StoredWrite(fact.task_id, index, channel, value, fact.task_path, fact.run_id, self._seq)
            for index, channel, value in write_entries(fact)
        )


def _is_wanted(stored: StoredCheckpoint, query: CheckpointQuery) -> bool:
    if query.exclude_run is not None and stored.run_id == query.exclude_run:
        return False
    return all(stored.metadata.get(name) == value for name, value in (query.metadata or {}).items())
