"""Filters over checkpoint reads: without one run or thread, or without pending values that a graph cannot apply."""

from collections.abc import Sequence
from dataclasses import replace

from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from agentlog_facts.checkpoint_ports import CheckpointQuery, CheckpointReads, StoredCheckpoint
from agentlog_facts.ids import RunId, ThreadId

OUTCOMES = frozenset({ERROR, INTERRUPT})
"""Channels of pending writes with the outcome of a task; no channel of the graph takes them."""


class ExcludeRun:
    """Checkpoint reads without the checkpoints and writes of one run. Implements `checkpoint_ports.CheckpointReads`.

    A checkpoint of another run that was built on them keeps them.
    """

    def __init__(self, reads: CheckpointReads, run_id: RunId) -> None:
        self._reads = reads
        self._run_id = run_id

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        """Return checkpoints of other runs, with their writes. Raises: Unavailable."""
        if query.as_of is not None:
            return await self._reads.find(query)
        return await self._reads.find(replace(query, exclude_run=query.exclude_run or self._run_id))


class ExcludeThread:
    """Checkpoint reads of other threads; for a thread without checkpoints, nothing is read.

    Implements `checkpoint_ports.CheckpointReads`.
    """

    def __init__(self, reads: CheckpointReads, thread_id: ThreadId) -> None:
        self._reads = reads
        self._thread_id = thread_id

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        """Return checkpoints, none for the thread. Raises: Unavailable."""
        return () if query.thread_id == self._thread_id else await self._reads.find(query)


class ExcludePendingWrites:
    """Checkpoint reads without pending values, so that a checkpoint shows the state before a step that failed.

    Values on which a later checkpoint was built are not pending.
    Implements `checkpoint_ports.CheckpointReads`.
    """

    def __init__(self, reads: CheckpointReads) -> None:
        self._reads = reads

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        """Return checkpoints whose only writes are outcomes of tasks. Raises: Unavailable."""
        found = await self._reads.find(query)
        return found if query.as_of is not None else [without_values(one) for one in found]


def without_values(stored: StoredCheckpoint) -> StoredCheckpoint:
    """Return the checkpoint with the outcomes of its tasks as the only writes."""
    return replace(stored, writes=tuple(write for write in stored.writes if write.channel in OUTCOMES))
