"""Checkpoint reads that measure how long they wait for rows."""

from collections.abc import Sequence

from agentlog_facts.checkpoint_ports import CheckpointQuery, CheckpointReads, StoredCheckpoint
from agentlog_facts.ports import Clock


class TimedReads:
    """Implements `checkpoint_ports.CheckpointReads`; measures on the service loop, where no user code delays reads."""

    def __init__(self, reads: CheckpointReads, clock: Clock) -> None:
        self._reads = reads
        self._clock = clock
        self._open = 0
        self._since = 0.0
        self._waited_s = 0.0

    @property
    def waited_s(self) -> float:
        """Return the total time in which at least one read was open, in seconds."""
        return self._waited_s + (self._clock.monotonic() - self._since if self._open else 0.0)

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        """Find checkpoints and measure the time. Raises: Unavailable."""
        if not self._open:
            self._since = self._clock.monotonic()
        self._open += 1
        try:
            return await self._reads.find(query)
        finally:
            self._open -= 1
            if not self._open:
                self._waited_s += self._clock.monotonic() - self._since
