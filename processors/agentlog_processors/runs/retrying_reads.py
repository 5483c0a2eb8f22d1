"""Decides how long a run waits for checkpoints that cannot be read now: a rebuild must not cost an attempt."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from agentlog_facts.back_off import back_off
from agentlog_facts.checkpoint_ports import CheckpointReads, StoredCheckpoint
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.ports import Clock

log = logging.getLogger(__name__)

PATIENCE = timedelta(minutes=5)
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

Found = TypeVar("Found")


class RetryingReads:
    """Keeps `CheckpointReads`; asks again with growing pauses, and raises Unavailable only after `patience`."""

    def __init__(self, reads: CheckpointReads, clock: Clock, patience: timedelta = PATIENCE) -> None:
        self._reads = reads
        self._clock = clock
        self._patience_s = patience.total_seconds()

    async def latest(self, thread_id: ThreadId, ns: str, exclude_run: RunId | None = None) -> StoredCheckpoint | None:
        """Return the checkpoint of the namespace that was accepted last. Raises: Unavailable."""
        return await self._asked(lambda: self._reads.latest(thread_id, ns, exclude_run))

    async def get(
        self, thread_id: ThreadId, ns: str, checkpoint_id: str, exclude_run: RunId | None = None
    ) -> StoredCheckpoint | None:
        """Return one checkpoint. Raises: Unavailable."""
        return await self._asked(lambda: self._reads.get(thread_id, ns, checkpoint_id, exclude_run))

    async def history(
        self,
        thread_id: ThreadId | None,
        ns: str | None,
        before_checkpoint_id: str | None = None,
        limit: int | None = None,
        metadata: JsonObject | None = None,
    ) -> Sequence[StoredCheckpoint]:
        """Return checkpoints, newest first. Raises: Unavailable."""
        return await self._asked(lambda: self._reads.history(thread_id, ns, before_checkpoint_id, limit, metadata))

    async def _asked(self, question: Callable[[], Awaitable[Found]]) -> Found:
        return await retrying("checkpoints", question, self._clock, self._patience_s)


async def retrying(what: str, question: Callable[[], Awaitable[Found]], clock: Clock, patience_s: float) -> Found:
    """Ask again with growing pauses. Raises: Unavailable after `patience_s`."""
    until = clock.monotonic() + patience_s
    pauses = back_off(FIRST_PAUSE_S, LONGEST_PAUSE_S)
    while True:
        try:
            return await question()
        except Unavailable as error:
            pause_s = next(pauses)
            if clock.monotonic() + pause_s >= until:
                raise
            log.warning(f"{what}.away", extra={"error": str(error), "again_in_secs": pause_s})
        await asyncio.sleep(pause_s)  # the rows are being built, or PostgreSQL is away
