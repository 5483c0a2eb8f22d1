"""Progress of one reader through the flushes of a run: its cursor, and the flushes that it is shown."""

from agentlog_facts.errors import Gap
from agentlog_facts.frame import SLOTS
from agentlog_facts.ids import RunId
from agentlog_facts.ports import PositionedFrames
from agentlog_gateway.streaming.cursor import After, Begin, LiveOnly
from agentlog_gateway.streaming.frame_filter import EpochFilter
from agentlog_gateway.streaming.stream_event import StreamFlush, StreamGap
from agentlog_projections.queries.run_status import RunStatusRow

NOWHERE = 1 << 62
"""Cursor of a run that has no flush on the log."""


class StreamProgress:
    """Position, order and end of one reader; pure, so that every read can be repeated after a fault."""

    def __init__(self, run_id: RunId, *, resumable: bool) -> None:
        self.cursor = NOWHERE  # flushes before it are skipped
        self.silent = False  # the client asked for the live stream of a run that had ended
        self.until: int | None = None  # the position after the run's last flush, once that is known
        self._run_id = run_id
        self._resumable = resumable
        self._order = EpochFilter(run_id)
        self._after = -1  # events up to it are not shown
        self._finished: str | None = None

    def begin(self, where: Begin, row: RunStatusRow) -> None:
        """Set the position at which the client begins, from the run's row."""
        self._resumable = row.resumable
        if isinstance(where, LiveOnly):
            self.silent = row.ended
            # without a claim, none of the epochs so far counts any more
            self._order = EpochFilter(self._run_id, (row.version if row.epoch is None else row.epoch, -1))
        elif row.outputs_from is not None:
            self.cursor = row.outputs_from
            if isinstance(where, After) and where.position >= row.outputs_from:
                # the flush at the cursor is read again: it tells which (epoch, n) the client has seen
                self.cursor, self._after = where.position - where.position % SLOTS, where.position

    @property
    def holds(self) -> bool:
        """Return whether an end flush waits for its verdict."""
        return self._order.holds

    @property
    def announced(self) -> bool:
        """Return whether a flush that announces the run's end was shown."""
        return self._order.announced(self._finished)

    def show(self, flush: PositionedFrames) -> StreamFlush | None:
        """Read the next flush; return it if the client gets it now. An end flush waits for its verdict."""
        if flush.position < self.cursor:
            return None
        self.cursor = flush.position + SLOTS
        of = flush.record.of
        if self.until is not None and flush.position >= self.until and (of is None or of != self._finished):
            return None
        return StreamFlush(flush, self._resumable, self._after) if self._order.accepts(flush) else None

    def skip(self, gap: Gap) -> StreamGap:
        """Continue after a gap."""
        start, self.cursor = self.cursor, max(gap.available_from, self.cursor + SLOTS)
        return StreamGap(start, gap.available_from)

    def finish(self, finished_event_id: str | None, until: int) -> None:
        """Set the run's end: its fact, and the position after its last flush."""
        self._finished, self.until = finished_event_id, until

    def reopen(self) -> bool:
        """Go back to the fence of the epoch in which the run ended after all; return whether there is one."""
        fence = self._order.reopened(self._finished)
        if fence is not None:
            self.cursor = fence
        return fence is not None

    def end_flush(self) -> StreamFlush | None:
        """Return the flush that ends the run, if it waits and no other flush has announced the end."""
        end = self._order.settle(self._finished)
        return None if end is None else StreamFlush(end, self._resumable, self._after)
