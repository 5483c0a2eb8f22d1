"""Recent end offsets of the partitions of `outputs`, from which readers of a claimed run start."""

import logging
from collections.abc import Callable

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import Key, ThreadId
from agentlog_facts.ports import Clock, FrameLog
from agentlog_processors import timeouts

log = logging.getLogger(__name__)


class CachedEndOffsets:
    """Keeps the end of each partition for `END_OFFSET_FRESH_S`.

    A reader starts at most this much too early, which is harmless.
    """

    def __init__(self, outputs: FrameLog, partition_of: Callable[[Key], int], clock: Clock) -> None:
        self._outputs = outputs
        self._partition_of = partition_of
        self._clock = clock
        self._ends: dict[int, tuple[float, int]] = {}

    async def at_most(self, thread_id: ThreadId) -> int:
        """Return a position at or shortly before the end; while `outputs` is away, the last known end.

        An outage so delays no claim. Raises: Unavailable if `outputs` is away and no end is known.
        """
        partition = self._partition_of(Key(thread_id))
        now = self._clock.monotonic()
        known = self._ends.get(partition)
        if known is not None and now - known[0] < timeouts.END_OFFSET_FRESH_S:
            return known[1]
        try:
            end = await self._outputs.end(thread_id)
        except Unavailable as error:
            if known is None:
                raise
            log.warning("outputs.end_unknown", extra={"partition": partition, "error": str(error)})
            now, end = self._clock.monotonic(), known[1]  # so that not every claim queries again
        self._ends[partition] = (now, end)
        return end
