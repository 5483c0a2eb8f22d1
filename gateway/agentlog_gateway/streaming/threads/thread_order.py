"""Order of a thread's flushes for a reader of all its runs: pure, the same from any cursor and for every reader.

The rules are those of `frame_filter` for one run: a flush counts only if its (epoch, n) is above the last one, no flush
of a fenced epoch counts unless its run ended in it, and an end flush waits until its `RunFinished` is known to be
accepted. A claim of a run follows only after the end or release of the one before, so one run at a time is current.
"""

from dataclasses import dataclass

from agentlog_facts.frame import SLOTS, SLOTS_A_FRAME
from agentlog_facts.ids import RunId
from agentlog_facts.ports import PositionedFrames
from agentlog_gateway.streaming.frame_filter import HELD, NOTHING_SEEN

ALL = 1 << 62
"""A number of a flush above all that exist."""
REMEMBERED = 256
"""Number of announcements and ends in memory, for dropping repeats."""


@dataclass(frozen=True, slots=True)
class _Fence:
    epoch: int = -1
    position: int = -1
    last: tuple[int, int] = NOTHING_SEEN


class ThreadOrder:
    """State of one reader of a thread's flushes."""

    def __init__(self, last: tuple[int, int] = NOTHING_SEEN) -> None:
        self.run_id: RunId | None = None
        """The run whose flushes are read now."""
        self._last = last
        self._held: list[PositionedFrames] = []
        self._fence = _Fence()
        self._fence_void = False
        self._told: dict[tuple[str, str], None] = {}

    @property
    def holds(self) -> bool:
        """Return whether an end waits for its verdict."""
        return bool(self._held)

    def is_new(self, flush: PositionedFrames) -> bool:
        """Return whether a flush of a worker counts at all; note fences."""
        record = flush.record
        if record.release is not None:
            if record.epoch > self._fence.epoch:
                self._fence = _Fence(record.epoch, flush.position, self._last)
            return False
        return (record.epoch, record.n) > self._last

    def follows(self, flush: PositionedFrames) -> bool:
        """Return whether a flush comes after the claim whose end waits, or belongs to another run."""
        record = flush.record
        held = self._held[-1].record.epoch if self._held else record.epoch
        return self.run_id is not None and (record.run_id != self.run_id or record.epoch > held)

    def accept(self, flush: PositionedFrames) -> bool:
        """Read a flush that is new; return whether it is shown now."""
        record = flush.record
        self._last, self.run_id = (record.epoch, record.n), record.run_id
        if record.end is not None:
            self._held = [*self._held, flush][-HELD:]
        return not self._held and (self._fence_void or record.epoch > self._fence.epoch)

    def drop_held(self) -> None:
        """Forget the ends that waited: none of them was accepted."""
        self._held = []

    def end(self, finished_event_id: str | None) -> PositionedFrames | None:
        """Return the flush of the accepted end, if it waits."""
        return next((flush for flush in self._held if flush.record.end == finished_event_id), None)

    def reopened(self, end: PositionedFrames) -> int | None:
        """Return the position from which the log must be read again, None if there is none: see `frame_filter`."""
        fence = self._fence
        if self._fence_void or end.record.epoch != fence.epoch or end.position < fence.position:
            return None
        self._fence_void, self._last, self._held = True, fence.last, []
        return fence.position

    def over(self) -> None:
        """Note that the current run is over; later flushes of its epoch do not count."""
        self.run_id, self._held, self._fence_void = None, [], False
        self._last = (self._last[0], ALL)

    def tells(self, kind: str, name: str) -> bool:
        """Return whether this is told for the first time."""
        if (kind, name) in self._told:
            return False
        self._told[kind, name] = None
        while len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        return True


def done_position(flush: PositionedFrames) -> int:
    """Return the position of the event after the last one of a flush: the end of its run."""
    return flush.position + max(0, len(flush.record.frames) - 1) * SLOTS_A_FRAME + 1


def record_position(position: int) -> int:
    """Return the position of the first slot of the record that has this position."""
    return position - position % SLOTS


def failed(status: str) -> bool:
    """Return whether a run with this status shows an error."""
    return status in ("error", "timeout")
