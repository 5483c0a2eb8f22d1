"""Stream of a thread for one client: ranges from the log, then the live tail, without an end.

A run is over when its row says so and its last flush was delivered; `ThreadOrder` tells which flushes count. Every step
can be repeated after a fault, since the cursor moves only with what was processed.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from agentlog_facts.errors import Gap, SlowReader, Unavailable
from agentlog_facts.frame import SLOTS
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.ports import FrameTail, PositionedFrames
from agentlog_gateway import timeouts
from agentlog_gateway.streaming.frame_filter import NOTHING_SEEN
from agentlog_gateway.streaming.run_stream import BATCH_BYTES, INTERNAL, Sources
from agentlog_gateway.streaming.run_watcher import RunSubscription
from agentlog_gateway.streaming.stream_event import StreamFlush, StreamGap, StreamHeartbeat
from agentlog_gateway.streaming.threads.announcer import NO_RUN
from agentlog_gateway.streaming.threads.thread_modes import StreamRunDone, ThreadBatch
from agentlog_gateway.streaming.threads.thread_order import REMEMBERED, ThreadOrder, done_position, failed
from agentlog_projections.queries.run_status import RunStatusRow

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ThreadStart:
    """The place at which a client begins.

    `cursor` is a position of the log, None for the live end; events up to `after` were seen. `last` is the last
    (epoch, n) that does not count any more, `running` the run that is executed now.
    """

    cursor: int | None = None
    after: int = -1
    last: tuple[int, int] = NOTHING_SEEN
    running: RunId | None = None


class _Reread(Exception):
    """The log must be read again from the cursor."""


class ThreadStream:
    """One client's events of a thread, in batches; one task iterates it, once. It ends only when it is closed."""

    ended = False

    def __init__(self, sources: Sources, thread_id: ThreadId, begin: Callable[[], Awaitable[ThreadStart]]) -> None:
        """`begin` reads the place at which the client begins; it is repeated while rows or log are away."""
        self._watcher = sources.run_watcher
        self._frames = sources.frames
        self._heartbeat_s = sources.heartbeat_s
        self._thread_id = thread_id
        self._begin: Callable[[], Awaitable[ThreadStart]] | None = begin
        self._order = ThreadOrder()
        self._cursor = 0
        self._after = -1
        self._replayed_to = 0  # before it only resumable runs are shown
        self._tail: FrameTail | None = None
        self._subscription: RunSubscription | None = None
        self._waiting: list[PositionedFrames] = []
        self._ready: ThreadBatch = []
        self._shows = True  # whether the current run is shown
        self._closed = False
        self._away_since: float | None = None
        self._beat_due = False
        self._timers: list[asyncio.TimerHandle] = []
        self._batches = self._run()

    def __aiter__(self) -> AsyncIterator[ThreadBatch]:
        """Yield events and heartbeats until closed."""
        return self._batches

    def close(self) -> None:
        """Release all resources and end the iteration. May be called at any time."""
        self._closed = True
        self._watch(None)
        for timer in self._timers:
            timer.cancel()
        self._poke()
        self._drop_tail()

    async def aclose(self) -> None:
        """Close, and wait until the generators have ended; only for the task that iterates."""
        self.close()
        await self._batches.aclose()

    async def _run(self) -> AsyncGenerator[ThreadBatch]:
        self._next_heartbeat()
        try:
            while not self._closed:
                try:
                    async with aclosing(self._read()) as batches:
                        async for batch in batches:
                            self._away_since = None
                            yield self._with_heartbeat(batch)
                except (SlowReader, _Reread):
                    self._drop_tail()
                except Gap as gap:
                    start, self._cursor = self._cursor, max(gap.available_from, self._cursor + SLOTS)
                    yield [*self._taken(), StreamGap(start, gap.available_from)]
                except Unavailable as fault:
                    self._drop_tail()
                    if self._gives_up(fault):
                        return
                    yield [*self._taken(), StreamHeartbeat()]
                    await asyncio.sleep(timeouts.STREAM_RETRY_S)  # back-off before the log is read again
        finally:
            self.close()

    async def _read(self) -> AsyncGenerator[ThreadBatch]:
        """Read the range up to the tail, then the tail."""
        start = None if self._begin is None else await self._begin()
        if self._tail is None:
            self._tail = await self._frames.tail(self._thread_id)
        if start is not None:
            self._start(start, self._tail.start)
        size_bytes = 0
        if self._cursor < self._tail.start:
            async with aclosing(self._frames.read(self._thread_id, self._cursor, self._tail.start)) as flushes:
                async for flush in flushes:
                    await self._next(flush)
                    size_bytes += flush.size_bytes
                    if self._closed:
                        return
                    if size_bytes > BATCH_BYTES or self._beat_due:
                        yield self._taken()
                        size_bytes = 0
            self._cursor = max(self._cursor, self._tail.start)
        await self._settle()
        if self._ready:
            yield self._taken()
        while not self._closed and (tail := self._current_tail()) is not None:
            for flush in await tail.next():
                await self._next(flush)
            await self._settle()
            if self._ready or self._beat_due:
                yield self._taken()

    def _taken(self) -> ThreadBatch:
        """Return the events that are ready; a fault between two flushes loses none of them."""
        taken, self._ready = self._ready, []
        return taken

    def _start(self, start: ThreadStart, live_from: int) -> None:
        self._begin = None
        self._cursor = live_from if start.cursor is None else min(start.cursor, live_from)
        self._after, self._replayed_to = start.after, live_from
        self._order = ThreadOrder(start.last)
        if start.running is not None:
            self._order.run_id = start.running
            self._watch(start.running)

    async def _next(self, flush: PositionedFrames) -> None:
        """Read the next flush of the thread, which may also show that the run before is over."""
        if flush.position < self._cursor:
            return
        await self._process(flush)
        self._cursor = flush.position + SLOTS
        await self._settle()

    async def _settle(self) -> None:
        """Add the end of the current run once it is known, and the announcements that waited for it.

        So the positions of the events only grow.
        """
        self._ready += self._settled()
        while self._waiting and not self._order.holds:
            flush = self._waiting[0]
            self._ready += await self._announced(flush, str(flush.record.of))
            self._waiting = self._waiting[1:]

    async def _process(self, flush: PositionedFrames) -> None:
        record, order = flush.record, self._order
        if record.of is not None:
            self._waiting = [*self._waiting, flush][-REMEMBERED:]
            if order.holds:
                self._refresh()
            return
        if not order.is_new(flush):
            return
        if order.follows(flush):
            self._ready += await self._end_of_earlier(record.run_id)
        if order.run_id != record.run_id:
            await self._enter(flush)
        shown = order.accept(flush)
        if order.holds:
            self._later(timeouts.END_HINT_S, self._refresh)
        elif shown:
            self._ready += self._visible(flush)

    async def _announced(self, flush: PositionedFrames, event_id: str) -> ThreadBatch:
        """Return what another process than the worker tells: an update of the state, or the end of a run."""
        run_id = flush.record.run_id
        if run_id == NO_RUN:
            return self._visible(flush, always=True) if self._order.tells("state", event_id) else []
        row = await self._watcher.look(run_id)
        if row is None or row.thread_id != self._thread_id or row.finished_event_id != event_id:
            return []
        shows = self._shows_run(flush, row)
        return self._over(run_id, [StreamFlush(flush, True, self._after)], done_position(flush), shows=shows)

    async def _enter(self, flush: PositionedFrames) -> None:
        """Begin a run; what a replay shows depends on its row."""
        run_id = flush.record.run_id
        replayed = flush.position < self._replayed_to
        row = await self._watcher.look(run_id) if replayed else None
        self._shows = not replayed or self._shows_run(flush, row)
        self._watch(run_id)
        if row is not None and self._subscription is not None:
            self._subscription.settle(row)

    def _shows_run(self, flush: PositionedFrames, row: RunStatusRow | None) -> bool:
        live = flush.position >= self._replayed_to
        return live or (row is not None and row.thread_id == self._thread_id and row.resumable)

    async def _end_of_earlier(self, run_id: RunId) -> ThreadBatch:
        """Return the end of the run before; a later claim shows that it has ended, or that its end is void."""
        earlier = self._order.run_id
        if earlier is None or earlier == run_id:
            self._order.drop_held()
            return []
        return self._end(earlier, await self._watcher.look(earlier), complete=True)

    def _settled(self) -> ThreadBatch:
        """Return the end of the current run, if its row tells it and its last flush is there."""
        current = self._subscription
        if current is None or not current.over or current.run_id != self._order.run_id:
            return []
        left = timeouts.END_ANNOUNCEMENT_S - (asyncio.get_running_loop().time() - (current.ended_at or 0.0))
        events = self._end(current.run_id, current.row, complete=left <= 0)
        if not events and self._order.run_id is not None:
            self._later(left, self._poke)
        return events

    def _end(self, run_id: RunId, row: RunStatusRow | None, *, complete: bool) -> ThreadBatch:
        """Return the end of a run; none if its last flush may still come, unless the log is `complete`."""
        end = None if row is None or row.finished_event_id is None else self._order.end(row.finished_event_id)
        if end is not None:
            fence = self._order.reopened(end)
            if fence is not None:
                self._cursor = fence
                raise _Reread
            shows = self._is_shown(end.position)
            return self._over(run_id, [StreamFlush(end, True, self._after)], done_position(end), shows=shows)
        if row is not None and row.ended:
            self._order.drop_held()  # none of them was accepted
        if not complete:
            return []
        error = None if row is None or not failed(row.status) else row.error or INTERNAL
        return self._over(run_id, [], None, shows=self._is_shown(None), error=error)

    def _over(
        self,
        run_id: RunId,
        last: ThreadBatch,
        position: int | None,
        *,
        shows: bool,
        error: JsonObject | None = None,
    ) -> ThreadBatch:
        """Return the last events of a run and the event that it is over, once."""
        if run_id == self._order.run_id:
            self._order.over()
            self._watch(None)
        seen = position is not None and position <= self._after
        if not self._order.tells("run", run_id) or not shows or seen:
            return []
        return [*last, StreamRunDone(run_id, position, error)]

    def _visible(self, flush: PositionedFrames, *, always: bool = False) -> ThreadBatch:
        return [StreamFlush(flush, True, self._after)] if always or self._is_shown(flush.position) else []

    def _is_shown(self, position: int | None) -> bool:
        """Return whether the client gets what the current run tells at a position, None for now."""
        return self._shows or (self._cursor if position is None else position) >= self._replayed_to

    def _watch(self, run_id: RunId | None) -> None:
        """Watch the end of this run, and of no other."""
        if self._subscription is not None:
            self._watcher.unsubscribe(self._subscription)
        self._subscription = None if run_id is None else self._watcher.subscribe(run_id, self._poke)

    def _refresh(self) -> None:
        if self._subscription is not None:
            self._watcher.refresh([self._subscription.run_id])

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._timers = [timer for timer in self._timers if not timer.cancelled() and timer.when() > loop.time()]
        self._timers.append(loop.call_later(max(0.0, seconds), call))

    def _with_heartbeat(self, batch: ThreadBatch) -> ThreadBatch:
        if not self._beat_due:
            return batch
        self._next_heartbeat()
        return [*batch, StreamHeartbeat()]

    def _next_heartbeat(self) -> None:
        self._beat_due = False
        self._later(self._heartbeat_s, self._beat)

    def _beat(self) -> None:
        self._beat_due = True
        self._poke()

    def _gives_up(self, error: Unavailable) -> bool:
        now = asyncio.get_running_loop().time()
        self._away_since = self._away_since or now
        late = now - self._away_since > timeouts.OUTAGE_S
        if late:
            log.error("thread_stream.given_up", extra={"stream": self._thread_id, "error": str(error)})
        return late

    def _poke(self) -> None:
        if self._tail is not None:
            self._tail.poke()

    def _current_tail(self) -> FrameTail | None:
        return self._tail

    def _drop_tail(self) -> None:
        tail, self._tail = self._tail, None
        if tail is not None:
            tail.close()
