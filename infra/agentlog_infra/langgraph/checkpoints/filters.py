"""Projected checkpoints without some of what was written: without a run, or without values that cannot be applied."""

from collections.abc import Sequence
from dataclasses import replace

from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from agentlog_facts.checkpoint_ports import CheckpointQuery, CheckpointReads, StoredCheckpoint
from agentlog_facts.ids import RunId

TOLD = frozenset({ERROR, INTERRUPT})
"""Pending writes that tell how a task ended; no channel takes them."""


class ExcludeRun:
    """Checkpoints as if one run had never been. Implements `CheckpointReads`."""

    def __init__(self, reads: CheckpointReads, run_id: RunId) -> None:
        self._reads = reads
        self._run_id = run_id

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        """Return checkpoints of other runs. Raises: Unavailable."""
        return await self._reads.find(replace(query, exclude_run=query.exclude_run or self._run_id))


class ExcludePendingWrites:
    """Checkpoints with no pending values: the state before a step that failed. Implements `CheckpointReads`."""

    def __init__(self, reads: CheckpointReads) -> None:
        self._reads = reads

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        """Return checkpoints with the outcomes of tasks only. Raises: Unavailable."""
        return [_without_values(one) for one in await self._reads.find(query)]


def _without_values(stored: StoredCheckpoint) -> StoredCheckpoint:
    return replace(stored, writes=tuple(write for write in stored.writes if write.channel in TOLD))
