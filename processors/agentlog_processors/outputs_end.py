"""Where a claim says that its frames begin: a recent end of the thread's partition of `outputs`, never a later one."""

from collections.abc import Callable

from agentlog_facts.ids import Key, ThreadId
from agentlog_facts.ports import Clock, FrameLog

FRESH_S = 1.0


class RecentEnds:
    """Remembers the end of each partition for FRESH_S: readers start at most that much too early, which is harmless."""

    def __init__(self, outputs: FrameLog, partition_of: Callable[[Key], int], clock: Clock) -> None:
        self._outputs = outputs
        self._partition_of = partition_of
        self._clock = clock
        self._ends: dict[int, tuple[float, int]] = {}

    async def before(self, thread_id: ThreadId) -> int:
        """Return a position at or shortly before the end. Raises: Unavailable."""
        partition = self._partition_of(Key(thread_id))
        now = self._clock.monotonic()
        known = self._ends.get(partition)
        if known is not None and now - known[0] < FRESH_S:
            return known[1]
        end = await self._outputs.end(thread_id)
        self._ends[partition] = (now, end)
        return end
