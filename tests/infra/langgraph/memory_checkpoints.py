"""Projected checkpoints in memory: the facts folded by the functions that the saver's overlay uses."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from agentlog_facts.checkpoint import CheckpointSaved, CheckpointsHidden, WritesSaved
from agentlog_facts.checkpoint_ports import StoredCheckpoint
from agentlog_facts.envelope import Draft, Fact, LogPosition, Recorded
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import Key, RunId, Stream, ThreadId, stream
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import ThreadDeleted
from agentlog_facts.vocabulary import decode_fact, encode_fact
from agentlog_infra.langgraph.checkpoints.checkpoint_fold import CheckpointKey, FoldedCheckpoints


def carried(fact: Fact) -> Fact:
    """Return the fact as it comes back from the log."""
    return decode_fact(encode_fact(fact))


class MemoryCheckpoints:
    """Keeps `CheckpointReads`; `fold` takes commits in log order."""

    def __init__(self) -> None:
        self.folded = FoldedCheckpoints()

    def fold(self, on: Stream, facts: Sequence[Fact]) -> None:
        for fact in map(carried, facts):
            match fact:
                case CheckpointSaved() | WritesSaved() | CheckpointsHidden():
                    self.folded.apply(on, fact)
                case ThreadDeleted():
                    self.folded.forget(fact.thread_id)
                case _:
                    continue

    async def latest(self, thread_id: ThreadId, ns: str, exclude_run: RunId | None = None) -> StoredCheckpoint | None:
        if exclude_run is None:
            return self.folded.latest(thread_id, ns)
        found = (one for one in self.folded.all(thread_id, ns) if one.run_id != exclude_run)
        return _without(next(found, None), exclude_run)

    async def get(
        self, thread_id: ThreadId, ns: str, checkpoint_id: str, exclude_run: RunId | None = None
    ) -> StoredCheckpoint | None:
        found = self.folded.get(CheckpointKey(thread_id, ns, checkpoint_id))
        if found is None or (exclude_run is not None and found.run_id == exclude_run):
            return None
        return _without(found, exclude_run)

    async def history(
        self,
        thread_id: ThreadId | None,
        ns: str | None,
        before_checkpoint_id: str | None = None,
        limit: int | None = None,
        metadata: JsonObject | None = None,
    ) -> Sequence[StoredCheckpoint]:
        found = self.folded.all(thread_id, ns)
        if before_checkpoint_id is not None:
            seqs = [one.seq for one in found if one.checkpoint_id == before_checkpoint_id]
            found = [one for one in found if seqs and one.seq < seqs[0]]
        wanted = (metadata or {}).items()
        return [one for one in found if all(one.metadata.get(name) == value for name, value in wanted)][:limit]


def _without(found: StoredCheckpoint | None, run_id: RunId | None) -> StoredCheckpoint | None:
    if found is None or run_id is None:
        return found
    return replace(found, writes=tuple(write for write in found.writes if write.run_id != run_id))


class MemoryThreads:
    """Commits facts on `thread-` and folds them at once."""

    def __init__(self, reads: MemoryCheckpoints) -> None:
        self._reads = reads

    async def commit(self, thread_id: ThreadId, facts: Sequence[Fact]) -> None:
        self._reads.fold(stream("thread", thread_id), facts)


class MemoryLog:
    """Keeps `EventLog`; folds what is appended when `project` is called, or at once."""

    def __init__(self, reads: MemoryCheckpoints, *, at_once: bool = True) -> None:
        self._reads = reads
        self._at_once = at_once
        self.drafts: list[Draft] = []
        self.fails = False

    def partition_of(self, key: Key) -> int:
        return 0

    async def append(self, draft: Draft) -> LogPosition:
        if self.fails:
            raise Unavailable("the log is away")
        self.drafts.append(draft)
        if self._at_once:
            self._reads.fold(draft.stream, draft.facts)
        return LogPosition(0, len(self.drafts))

    async def read(self, place: LogPosition) -> Recorded:
        raise Unavailable("not kept")


class SlowLog(MemoryLog):
    """Acknowledges only when it is let."""

    def __init__(self, reads: MemoryCheckpoints) -> None:
        super().__init__(reads)
        self.gate = asyncio.Event()

    async def append(self, draft: Draft) -> LogPosition:
        await self.gate.wait()
        return await super().append(draft)
