"""Reads with retries, so that a rebuild of the rows does not cost a run an attempt."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from agentlog_facts.back_off import back_off
from agentlog_facts.checkpoint_ports import CheckpointQuery, CheckpointReads, StoredCheckpoint
from agentlog_facts.errors import Unavailable
from agentlog_facts.ports import Clock
from agentlog_processors import timeouts

log = logging.getLogger(__name__)


Found = TypeVar("Found")


class RetryingReads:
    """Implements `checkpoint_ports.CheckpointReads`; retries with growing pauses, for as long as `patience`."""

    def __init__(self, reads: CheckpointReads, clock: Clock, patience: timedelta = timeouts.READS_PATIENCE) -> None:
        self._reads = reads
        self._clock = clock
        self._patience_s = patience.total_seconds()

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        """Find checkpoints. Raises: Unavailable."""
        return await retrying("checkpoints", lambda: self._reads.find(query), self._clock, self._patience_s)


async def retrying(what: str, query: Callable[[], Awaitable[Found]], clock: Clock, patience_s: float) -> Found:
    """Return the result of a query; retry with growing pauses. Raises: Unavailable after `patience_s`."""
    until = clock.monotonic() + patience_s
    pauses = back_off(timeouts.READS_FIRST_PAUSE_S, timeouts.READS_LONGEST_PAUSE_S)
    while True:
        try:
            return await query()
        except Unavailable as error:
            pause_s = next(pauses)
            if clock.monotonic() + pause_s >= until:
                raise
            log.warning(f"{what}.away", extra={"error": str(error), "again_in_secs": pause_s})
        await asyncio.sleep(pause_s)  # the rows are being rebuilt, or PostgreSQL is away
