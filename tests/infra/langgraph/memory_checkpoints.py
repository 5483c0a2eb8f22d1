"""Projected checkpoints in memory, folded by the class that the saver's overlay uses."""

import asyncio
from collections.abc import Sequence

from agentlog_facts.checkpoint import CheckpointFact, CheckpointSaved, CheckpointsHidden, WritesSaved
from agentlog_facts.checkpoint_ports import CheckpointQuery, StoredCheckpoint
from agentlog_facts.envelope import Draft, Fact, LogPosition, Recorded
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import Key, RunId, Stream, ThreadId, stream
from agentlog_facts.thread import ThreadDeleted
from agentlog_facts.vocabulary import decode_fact, encode_fact
from agentlog_infra.langgraph.checkpoints.checkpoint_fold import FoldedCheckpoints


def carried(fact: Fact) -> Fact:
    """Return the fact after its way through the bytes of the log."""
    return decode_fact(encode_fact(fact))


class MemoryCheckpoints:
    """Checkpoints folded in memory, from commits in log order. Implements `checkpoint_ports.CheckpointReads`."""

    def __init__(self) -> None:
        self._facts: list[tuple[Stream, CheckpointFact]] = []
        self.folded = FoldedCheckpoints()
        self.queries: list[CheckpointQuery] = []

    def has_checkpoints(self, thread_id: ThreadId) -> bool:
        return any(fact.thread_id == thread_id for _, fact in self._facts)

    def fold(self, on: Stream, facts: Sequence[Fact]) -> None:
        for fact in map(carried, facts):
            match fact:
                case CheckpointSaved() | WritesSaved() | CheckpointsHidden():
                    self._facts.append((on, fact))
                    self.folded.apply(on, fact)
                case ThreadDeleted():
                    self._begin_again([one for one in self._facts if one[1].thread_id != fact.thread_id])
                case _:
                    continue

    def begin_again(self) -> None:
        self._begin_again([])

    def _begin_again(self, facts: list[tuple[Stream, CheckpointFact]]) -> None:
        self._facts, self.folded = facts, FoldedCheckpoints()
        for on, fact in facts:
            self.folded.apply(on, fact)

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        self.queries.append(query)
        return self.folded.find(query)


class MemoryThreads:
    """Committer that folds facts on `thread-<id>` at once."""

    def __init__(self, reads: MemoryCheckpoints) -> None:
        self._reads = reads

    async def commit(self, thread_id: ThreadId, facts: Sequence[Fact]) -> None:
        self._reads.fold(stream("thread", thread_id), facts)


class MemoryLog:
    """Log that folds appended facts at once unless `at_once` is False. Implements `ports.EventLog`."""

    def __init__(self, reads: MemoryCheckpoints, *, at_once: bool = True) -> None:
        self.rows = reads
        self._at_once = at_once
        self.drafts: list[Draft] = []
        self._waiting = 0
        self.fails = False

    def partition_of(self, key: Key) -> int:
        return 0

    async def append(self, draft: Draft) -> LogPosition:
        if self.fails:
            raise Unavailable("the log is unavailable")
        self.drafts.append(draft)
        self._waiting += 1
        if self._at_once:
            self.project()
        return LogPosition(0, len(self.drafts))

    def project(self) -> None:
        """Fold all drafts that were not folded yet."""
        waiting, self._waiting = self.drafts[len(self.drafts) - self._waiting :], 0
        for draft in waiting:
            self.rows.fold(draft.stream, draft.facts)

    async def run_version(self, thread_id: ThreadId, run_id: RunId) -> int | None:
        """Return the version of the folded drafts of a run. Implements `checkpoint_ports.RunVersions`."""
        folded = self.drafts[: len(self.drafts) - self._waiting]
        commits = sum(draft.stream == stream("run", run_id) for draft in folded)
        return commits - 1 if commits else None

    async def read(self, place: LogPosition) -> Recorded:
        raise Unavailable("not kept")


class SlowLog(MemoryLog):
    """Log that acknowledges appends only after its gate is open."""

    def __init__(self, reads: MemoryCheckpoints) -> None:
        super().__init__(reads)
        self.gate = asyncio.Event()

    async def append(self, draft: Draft) -> LogPosition:
        await self.gate.wait()
        return await super().append(draft)


class CutLog(MemoryLog):
    """Log that takes `left` more commits and then is unavailable, as for a worker that was killed; None: no limit.

    Without `answers_last`, the worker dies before it has the answer for the last of these commits.
    """

    def __init__(self, reads: MemoryCheckpoints, *, at_once: bool = True) -> None:
        super().__init__(reads, at_once=at_once)
        self.left: int | None = None
        self.answers_last = True
        self._grown = asyncio.Event()

    async def append(self, draft: Draft) -> LogPosition:
        if self.left is not None:
            if self.left <= 0:
                raise Unavailable("the worker is dead")
            self.left -= 1
        place = await super().append(draft)
        self._grown.set()
        if self.left == 0 and not self.answers_last:
            raise Unavailable("the worker died before the answer")
        return place

    async def grows_to(self, commits: int) -> None:
        """Wait until the log has so many commits."""
        while len(self.drafts) < commits:
            self._grown.clear()
            await self._grown.wait()
