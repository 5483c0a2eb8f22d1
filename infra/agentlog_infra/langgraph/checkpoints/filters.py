"""Projected checkpoints without some of what was written: without a run, or without values that cannot be applied."""

from collections.abc import Sequence
from dataclasses import replace

from langgraph.checkpoint.serde.types import ERROR, INTERRUPT

from agentlog_facts.checkpoint_ports import CheckpointReads, StoredCheckpoint
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject

TOLD = frozenset({ERROR, INTERRUPT})
"""Pending writes that tell how a task ended; no channel takes them."""


class ExcludeRun:
    """Projected checkpoints as if one run had never been."""

    def __init__(self, reads: CheckpointReads, run_id: RunId) -> None:
        self._reads = reads
        self._run_id = run_id

    async def latest(self, thread_id: ThreadId, ns: str, exclude_run: RunId | None = None) -> StoredCheckpoint | None:
        """Return the last checkpoint of the namespace that another run wrote. Raises: Unavailable."""
        return await self._reads.latest(thread_id, ns, exclude_run or self._run_id)

    async def get(
        self, thread_id: ThreadId, ns: str, checkpoint_id: str, exclude_run: RunId | None = None
    ) -> StoredCheckpoint | None:
        """Return one checkpoint, unless the run wrote it. Raises: Unavailable."""
        return await self._reads.get(thread_id, ns, checkpoint_id, exclude_run or self._run_id)

    async def history(
        self,
        thread_id: ThreadId | None,
        ns: str | None,
        before_checkpoint_id: str | None = None,
        limit: int | None = None,
        metadata: JsonObject | None = None,
    ) -> Sequence[StoredCheckpoint]:
        """Return the checkpoints of other runs, newest first. Raises: Unavailable."""
        found = await self._reads.history(thread_id, ns, before_checkpoint_id, None, metadata)
        return [one for one in found if one.run_id != self._run_id][:limit]


class ExcludePendingWrites:
    """Projected checkpoints with no pending values: the state before a step that the graph could not finish."""

    def __init__(self, reads: CheckpointReads) -> None:
        self._reads = reads

    async def latest(self, thread_id: ThreadId, ns: str, exclude_run: RunId | None = None) -> StoredCheckpoint | None:
        """Return the last checkpoint of the namespace. Raises: Unavailable."""
        return _bare(await self._reads.latest(thread_id, ns, exclude_run))

    async def get(
        self, thread_id: ThreadId, ns: str, checkpoint_id: str, exclude_run: RunId | None = None
    ) -> StoredCheckpoint | None:
        """Return one checkpoint. Raises: Unavailable."""
        return _bare(await self._reads.get(thread_id, ns, checkpoint_id, exclude_run))

    async def history(
        self,
        thread_id: ThreadId | None,
        ns: str | None,
        before_checkpoint_id: str | None = None,
        limit: int | None = None,
        metadata: JsonObject | None = None,
    ) -> Sequence[StoredCheckpoint]:
        """Return checkpoints, newest first. Raises: Unavailable."""
        found = await self._reads.history(thread_id, ns, before_checkpoint_id, limit, metadata)
        return [bare for one in found if (bare := _bare(one)) is not None]


def _bare(stored: StoredCheckpoint | None) -> StoredCheckpoint | None:
    if stored is None:
        return None
    return replace(stored, writes=tuple(write for write in stored.writes if write.channel in TOLD))
