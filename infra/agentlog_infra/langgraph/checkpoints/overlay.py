"""Overlay of a saver's own facts, which are not projected yet, over projected checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from agentlog_facts.checkpoint import CheckpointFact, CheckpointKey
from agentlog_facts.checkpoint_ports import CheckpointQuery, CheckpointReads, StoredCheckpoint, StoredWrite, find_one
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId, Stream
from agentlog_infra.langgraph.checkpoints.checkpoint_fold import FoldedCheckpoints
from agentlog_infra.langgraph.checkpoints.filters import ExcludeRun

Counted: TypeAlias = Callable[[Sequence[StoredWrite]], Sequence[StoredWrite]]
"""Selection of the pending writes on a checkpoint that count."""
FIRST_OWN_SEQ = 1 << 62
"""Own facts are newer than all facts that were projected when their claim was accepted."""


class OverlaidReads:
    """Checkpoint reads that show own facts at once. Implements `checkpoint_ports.CheckpointReads`."""

    def __init__(self, reads: CheckpointReads) -> None:
        self._reads = reads
        self._counted: Counted | None = None
        self._own = FoldedCheckpoints(FIRST_OWN_SEQ)

    def count_only(self, counted: Counted) -> None:
        """Show only those projected writes on a checkpoint that `counted` returns of them."""
        self._counted = counted

    def exclude(self, run_id: RunId) -> None:
        """Show no projected checkpoint or write of a run; own facts stay."""
        self._reads = ExcludeRun(self._reads, run_id)

    def add(self, stream: Stream, facts: Sequence[CheckpointFact]) -> None:
        """Add own facts; every later read shows them."""
        for fact in facts:
            self._own.apply(stream, fact)

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        """Return own checkpoints, which are newer, and then the other projected ones. Raises: Unavailable."""
        own = [await self._completed(one, query) for one in self._own.find(query)]
        if len(own) == query.limit:
            return own
        known = set(self._own.keys(query, query.checkpoint_id))
        limit = None if query.limit is None else query.limit + len(known)
        before_own = query.before is not None and any(self._own.keys(query, query.before))
        projected = replace(query, limit=limit, before=None if before_own else query.before)
        stored = await self._reads.find(projected)
        return [*own, *(self._with_own_writes(one, query) for one in stored if one.key not in known)][: query.limit]

    async def _completed(self, own: StoredCheckpoint, query: CheckpointQuery) -> StoredCheckpoint:
        """Fetch the channels that an own checkpoint shares with projected parents. Raises: Unavailable."""
        parent = own
        while self._own.lacks(own) and parent.parent_checkpoint_id:
            key = CheckpointKey(own.thread_id, own.checkpoint_ns, parent.parent_checkpoint_id)
            parent = self._own.get(key) or await self._projected(key, own)
        return own if parent is own else self._own.get(own.key, query) or own

    async def _projected(self, key: CheckpointKey, child: StoredCheckpoint) -> StoredCheckpoint:
        found = await find_one(self._reads, *key)
        if found is None:  # an incomplete state would be stored as the thread's view
            raise Unavailable(f"checkpoint {child.checkpoint_id}: channels of its parent cannot be read")
        return self._with_own_writes(found, CheckpointQuery())

    def _with_own_writes(self, stored: StoredCheckpoint, query: CheckpointQuery) -> StoredCheckpoint:
        self._own.remember(stored)
        pending = self._counted is not None and query.as_of is None
        kept = self._counted(stored.writes) if self._counted is not None and pending else stored.writes
        return replace(stored, writes=(*kept, *self._own.writes(stored.key, query)))
