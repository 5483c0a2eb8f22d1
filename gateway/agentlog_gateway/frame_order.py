"""Decides which flushes of a thread a reader of one run is shown: pure, the same from any cursor and for every reader.

A flush counts only if its (epoch, n) is above the last one seen on the thread, so a late worker's or a repeated flush
never shows. A flush that names its `RunFinished` waits for the verdict over that fact, and what a worker says in the
same epoch after it is not shown: its epoch is over or its attempt has stopped. A flush `of` a fact counts once.
"""

from agentlog_facts.frame import FrameRecord
from agentlog_facts.ids import RunId
from agentlog_facts.ports import PositionedFrames

HELD = 8
"""Most end flushes of one epoch that wait for a verdict; a worker repeats its end only while an outcome is unknown."""
NOTHING_SEEN = (-1, -1)


class FrameOrder:
    """What one reader has seen of a thread, and which end flushes wait."""

    def __init__(self, run_id: RunId, last: tuple[int, int] = NOTHING_SEEN) -> None:
        self._run_id = run_id
        self._last = last
        self._held: list[PositionedFrames] = []
        self._announced: set[str] = set()

    @property
    def holds(self) -> bool:
        """Tell whether an end waits for its verdict."""
        return bool(self._held)

    def announced(self, event_id: str | None) -> bool:
        """Tell whether somebody's flush `of` this fact was shown."""
        return event_id in self._announced

    def shows(self, flush: PositionedFrames) -> bool:
        """Take the next flush of the thread; tell whether it is shown now."""
        record = flush.record
        if record.of is not None:
            return record.run_id == self._run_id and self._announces(record.of)
        if (record.epoch, record.n) <= self._last:
            return False
        self._last = (record.epoch, record.n)
        return record.run_id == self._run_id and self._speaks(flush, record)

    def settle(self, finished_event_id: str | None) -> PositionedFrames | None:
        """Return the flush that ends the run, now that its end is known; forget the others that waited."""
        held, self._held = self._held, []
        if finished_event_id is None or finished_event_id in self._announced:
            return None
        return next((flush for flush in held if flush.record.end == finished_event_id), None)

    def _announces(self, event_id: str) -> bool:
        known = event_id in self._announced
        self._announced.add(event_id)
        return not known

    def _speaks(self, flush: PositionedFrames, record: FrameRecord) -> bool:
        if self._held and self._held[-1].record.epoch < record.epoch:
            self._held.clear()  # a later claim: no end of the earlier epoch was accepted
        if record.end is not None:
            self._held = [*self._held, flush][-HELD:]
        return not self._held
