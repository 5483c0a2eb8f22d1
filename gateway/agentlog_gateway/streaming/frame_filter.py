"""Filter of a thread's flushes for a reader of one run: pure, the same from any cursor and for every reader.

A flush counts only if its (epoch, n) is above the last one seen on the thread, so a flush of a late worker or a
repeated one is never shown. A flush that names its `RunFinished` waits for the verdict on that fact. Later flushes of
the same epoch are not shown: the epoch is over or its attempt has stopped. A flush `of` a fact counts once.

Before a claim is revoked, a fence record is appended. Flushes of the epoch after the fence are not shown, even before
a reader knows of the release. If the release turns out void and the run ends in that same epoch, they are shown then.
"""

from dataclasses import dataclass

from agentlog_facts.frame import FrameRecord
from agentlog_facts.ids import RunId
from agentlog_facts.ports import PositionedFrames

HELD = 8
"""Most end flushes of one epoch that wait for a verdict; a worker repeats its end only while an outcome is unknown."""
NOTHING_SEEN = (-1, -1)


@dataclass(frozen=True, slots=True)
class _Fence:
    """The first fence of an epoch, and the last flush before it."""

    epoch: int = -1
    position: int = -1
    last: tuple[int, int] = NOTHING_SEEN


class EpochFilter:
    """State of one reader: the last flush of the thread it has seen, and the end flushes that wait."""

    def __init__(self, run_id: RunId, last: tuple[int, int] = NOTHING_SEEN) -> None:
        self._run_id = run_id
        self._last = last
        self._held: list[PositionedFrames] = []
        self._announced: set[str] = set()
        self._fence = _Fence()
        self._fence_void = False

    @property
    def holds(self) -> bool:
        """Return whether an end waits for its verdict."""
        return bool(self._held)

    def announced(self, event_id: str | None) -> bool:
        """Return whether a flush `of` this fact was shown."""
        return event_id in self._announced

    def accepts(self, flush: PositionedFrames) -> bool:
        """Read the next flush of the thread; return whether it is shown now."""
        record = flush.record
        if record.of is not None:
            return record.run_id == self._run_id and self._announces(record.of)
        if record.release is not None:
            if record.epoch > self._fence.epoch:
                self._fence = _Fence(record.epoch, flush.position, self._last)
            return False
        if (record.epoch, record.n) <= self._last:
            return False
        self._last = (record.epoch, record.n)
        return record.run_id == self._run_id and self._is_shown(flush, record)

    def settle(self, finished_event_id: str | None) -> PositionedFrames | None:
        """Return the flush that ends the run, after its end is known; drop the others that waited."""
        end = self._end(finished_event_id)
        self._held = []
        return None if finished_event_id in self._announced else end

    def reopened(self, finished_event_id: str | None) -> int | None:
        """Return the position of the fence from which the log must be read again, None if there is none.

        The run ended in the fenced epoch, so the flushes of that epoch after the fence count from now on.
        """
        end, fence = self._end(finished_event_id), self._fence
        if self._fence_void or end is None or end.record.epoch != fence.epoch or end.position < fence.position:
            return None
        self._fence_void, self._last, self._held = True, fence.last, []
        return fence.position

    def _end(self, finished_event_id: str | None) -> PositionedFrames | None:
        if finished_event_id is None:
            return None
        return next((flush for flush in self._held if flush.record.end == finished_event_id), None)

    def _announces(self, event_id: str) -> bool:
        known = event_id in self._announced
        self._announced.add(event_id)
        return not known

    def _is_shown(self, flush: PositionedFrames, record: FrameRecord) -> bool:
        if self._held and self._held[-1].record.epoch < record.epoch:
            self._held.clear()  # a later claim: no end of the earlier epoch was accepted
        if record.end is not None:
            self._held = [*self._held, flush][-HELD:]
        return not self._held and (self._fence_void or record.epoch > self._fence.epoch)
