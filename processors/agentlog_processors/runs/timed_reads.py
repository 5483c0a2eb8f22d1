"""Decides for how long nobody but the rows is to blame for a view that does not come: questions without an answer."""

from collections.abc import Coroutine, Sequence
from typing import TypeVar

from agentlog_facts.checkpoint_ports import CheckpointReads, StoredCheckpoint
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.ports import Clock

Found = TypeVar("Found")


class TimedReads:
    """Keeps `CheckpointReads`, on the service loop, where no user code delays the look at an answer."""

    def __init__(self, reads: CheckpointReads, clock: Clock) -> None:
        self._reads = reads
        self._clock = clock
        self._open = 0
        self._since = 0.0
        self._waited_s = 0.0

    @property
    def waited_s(self) -> float:
        """Return for how long, in all, at least one question has been open."""
        return self._waited_s + (self._clock.monotonic() - self._since if self._open else 0.0)

    async def latest(self, thread_id: ThreadId, ns: str, exclude_run: RunId | None = None) -> StoredCheckpoint | None:
        """Return the checkpoint of the namespace that was accepted last. Raises: Unavailable."""
        return await self._asked(self._reads.latest(thread_id, ns, exclude_run))

    async def get(
        self, thread_id: ThreadId, ns: str, checkpoint_id: str, exclude_run: RunId | None = None
    ) -> StoredCheckpoint | None:
        """Return one checkpoint. Raises: Unavailable."""
        return await self._asked(self._reads.get(thread_id, ns, checkpoint_id, exclude_run))

    async def history(
        self,
        thread_id: ThreadId | None,
        ns: str | None,
        before_checkpoint_id: str | None = None,
        limit: int | None = None,
        metadata: JsonObject | None = None,
    ) -> Sequence[StoredCheckpoint]:
        """Return checkpoints, newest first. Raises: Unavailable."""
        return await self._asked(self._reads.history(thread_id, ns, before_checkpoint_id, limit, metadata))

    async def _asked(self, question: Coroutine[object, object, Found]) -> Found:
        if not self._open:
            self._since = self._clock.monotonic()
        self._open += 1
        try:
            return await question
        finally:
            self._open -= 1
            if not self._open:
                self._waited_s += self._clock.monotonic() - self._since
