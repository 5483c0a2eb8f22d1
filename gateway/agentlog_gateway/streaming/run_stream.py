"""Stream of one run for one client: ranges from the log, then the live tail, then the end, as typed events in order.

Progress and reading are separate, so that every step can be repeated after a fault. Heartbeats and the run's end
arrive as pokes of the tail: there is no task and no timer per event.
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
from agentlog_facts.ports import FrameReads, FrameTail
from agentlog_gateway import timeouts
from agentlog_gateway.streaming.cursor import Begin
from agentlog_gateway.streaming.run_watcher import RunWatcher
from agentlog_gateway.streaming.stream_event import (
    EventBatch,
    StreamEnd,
    StreamEvent,
    StreamGap,
    StreamHeartbeat,
    StreamNotFound,
)
from agentlog_gateway.streaming.stream_progress import StreamProgress
from agentlog_projections.queries.run_status import RunStatusRow

log = logging.getLogger(__name__)

SEARCHED = 4096 * SLOTS
"""Length of the range after a finished run's last flush in which its announcement is searched."""
BATCH_BYTES = 64 * 1024
"""Approximate size of a batch of a range, so that a slow client occupies little memory."""
INTERNAL: JsonObject = {"error": "InternalError", "message": "An internal error occurred"}


@dataclass(frozen=True, slots=True)
class Sources:
    """Ports and intervals that all streams of a gateway share."""

    frames: FrameReads
    run_watcher: RunWatcher
    heartbeat_s: float


class RunStream:
    """One client's events of one run, in batches; one task iterates it, once."""

    def __init__(self, sources: Sources, thread_id: ThreadId, run_id: RunId, *, resumable: bool = False) -> None:
        self.ended = False
        self._sources = sources
        self._frames = sources.frames
        self._thread_id = thread_id
        self._progress = StreamProgress(run_id, resumable=resumable)
        self._tail: FrameTail | None = None
        self._enter: Callable[[], Awaitable[None]] | None = None  # calls `listen` and `begin` at the first read
        self._closed = False
        self._away_since: float | None = None
        self._beat_due = False
        self._heartbeat: asyncio.TimerHandle | None = None
        self._row_timer: asyncio.TimerHandle | None = None
        self._subscription = sources.run_watcher.subscribe(run_id, self._poke)
        self._batches = self._run()

    def enter_by(self, enter: Callable[[], Awaitable[None]]) -> None:
        """Call `enter` at the first read; it calls `listen` and `begin`, and is retried while rows or log are away."""
        self._enter = enter

    def listen(self, tail: FrameTail) -> None:
        """Read the thread's flushes from this tail."""
        self._tail = tail
        self._progress.cursor = tail.start

    def begin(self, where: Begin, row: RunStatusRow | None) -> None:
        """Set the position at which the client begins; `row` is None if there is no such run."""
        row = None if row is None or row.thread_id != self._thread_id else row
        self._subscription.settle(row)
        if row is not None and not self._subscription.gone:
            self._progress.begin(where, row)

    def __aiter__(self) -> AsyncIterator[EventBatch]:
        """Yield events and heartbeats until the run's end, or until closed."""
        return self._batches

    def close(self) -> None:
        """Release all resources and end the iteration. May be called at any time."""
        self._closed = True
        self._sources.run_watcher.unsubscribe(self._subscription)
        for timer in (self._heartbeat, self._row_timer):
            if timer is not None:
                timer.cancel()
        self._poke()
        self._drop_tail()

    async def aclose(self) -> None:
        """Close, and wait until the generators have ended; only for the task that iterates."""
        self.close()
        await self._batches.aclose()

    async def _run(self) -> AsyncGenerator[EventBatch]:
        """Read the parts to the end of the run; restart from the cursor after each fault."""
        self._next_heartbeat()
        try:
            while not self._closed and not self.ended:
                try:
                    async with aclosing(self._parts()) as parts:
                        async for part in parts:
                            if self._closed:
                                return
                            async with aclosing(part) as batches:
                                async for batch in batches:
                                    self._away_since = None
                                    yield self._with_heartbeat(batch) if self._beat_due else batch
                    self.ended = not self._closed
                except (SlowReader, Gap, Unavailable) as fault:
                    for event in await self._recovered(fault):
                        yield [event]
        finally:
            self.close()

    async def _recovered(self, fault: SlowReader | Gap | Unavailable) -> EventBatch:
        """Prepare to continue after a fault, or give up; return the events that announce it to the client."""
        match fault:
            case SlowReader():
                self._drop_tail()
                return []
            case Gap():
                return [self._skip(fault)]
            case Unavailable():
                self._drop_tail()
                if self._gives_up(fault):
                    self.close()
                    return []
                await asyncio.sleep(timeouts.STREAM_RETRY_S)  # back-off before the log is read again
                return [StreamHeartbeat()]

    async def _parts(self) -> AsyncGenerator[AsyncGenerator[EventBatch]]:
        """Yield the parts: the range up to the tail, the tail until the run is over, the rest of the run, its end."""
        if self._enter is not None:
            await self._enter()
            self._enter = None
        while not self._subscription.over:
            if self._tail is None:
                self._tail = await self._frames.tail(self._thread_id)
            yield self._range(self._tail.start)
            yield self._listened(self._tail, lambda: self._subscription.over)
        row = self._subscription.row
        if row is None or self._subscription.gone:
            yield _only(StreamNotFound())
        elif self._progress.silent:
            yield _only(StreamEnd(row.status))
        else:
            async with aclosing(self._rest(row)) as parts:
                async for part in parts:
                    yield part

    async def _rest(self, row: RunStatusRow) -> AsyncGenerator[AsyncGenerator[EventBatch]]:
        """Yield the remaining parts of a run that has ended, and its end."""
        progress, until = self._progress, self._progress.until
        if until is None:
            until = await self._frames.end(self._thread_id) if row.outputs_to is None else row.outputs_to
            progress.finish(row.finished_event_id, until)
        if self._tail is not None and row.outputs_to is not None:  # the log has all of it, so the tail brings it now
            yield self._range(min(self._tail.start, until))
            yield self._listened(self._tail, lambda: progress.cursor >= until, timeouts.END_TAIL_S)
        if progress.cursor < until and (end_of_log := await self._frames.end(self._thread_id)) < until:
            yield self._range(end_of_log)
            gap = Gap(f"{end_of_log} is the end of the log", until)
            yield _only(self._skip(gap))  # the log was restored or cut: the rest is lost
        yield self._range(until)
        if progress.reopen():
            yield self._range(until)
        end = progress.end_flush()
        if end is not None:
            yield _only(end)
        elif row.status in ("error", "timeout") and not progress.announced:
            yield await self._announcement(until)
            if not progress.announced:
                yield _only(StreamEnd(row.status, INTERNAL if row.error is None else row.error))
                return
        yield _only(StreamEnd(row.status))

    async def _announcement(self, until: int) -> AsyncGenerator[EventBatch]:
        """Return the part after the run's last flush, in which a process other than the worker announces the end."""
        if self._tail is None:
            return self._range(min(await self._frames.end(self._thread_id), until + SEARCHED))
        ended_at = self._subscription.ended_at or 0.0
        left = timeouts.END_ANNOUNCEMENT_S - (asyncio.get_running_loop().time() - ended_at)
        return self._listened(self._tail, lambda: self._progress.announced, left)

    async def _range(self, end: int) -> AsyncGenerator[EventBatch]:
        """Read the log from the cursor up to `end`."""
        progress = self._progress
        if progress.cursor >= end:
            return
        batch: EventBatch = []
        size_bytes = 0
        fault: Unavailable | None = None
        async with aclosing(self._frames.read(self._thread_id, progress.cursor, end)) as flushes:
            try:
                async for flush in flushes:
                    shown = progress.show(flush)
                    if shown is not None:
                        batch.append(shown)
                        size_bytes += flush.size_bytes
                    if size_bytes > BATCH_BYTES or self._beat_due:
                        yield batch
                        batch, size_bytes = [], 0
                    if self._closed:
                        return
                progress.cursor = max(progress.cursor, end)
            except Unavailable as error:
                fault = error
        if batch:
            yield batch
        if fault is not None:
            raise fault

    async def _listened(
        self, tail: FrameTail, enough: Callable[[], bool], seconds: float | None = None
    ) -> AsyncGenerator[EventBatch]:
        """Read the tail until `enough` is true, for at most `seconds`."""
        loop, show = asyncio.get_running_loop(), self._progress.show
        until = None if seconds is None else loop.time() + seconds
        alarm = None if until is None else loop.call_at(until, tail.poke)
        try:
            while not self._closed and not enough() and (until is None or loop.time() < until):
                batch: EventBatch = [shown for flush in await tail.next() if (shown := show(flush)) is not None]
                if self._progress.holds and self._row_timer is None:
                    self._row_timer = loop.call_later(timeouts.END_HINT_S, self._refresh_row)
                if batch or self._beat_due:
                    yield batch
        finally:
            if alarm is not None:
                alarm.cancel()

    def _with_heartbeat(self, batch: EventBatch) -> EventBatch:
        self._next_heartbeat()
        return [*batch, StreamHeartbeat()]

    def _gives_up(self, error: Unavailable) -> bool:
        now = asyncio.get_running_loop().time()
        self._away_since = self._away_since or now
        late = now - self._away_since > timeouts.OUTAGE_S
        if late:
            log.error("stream.given_up", extra={"stream": self._thread_id, "error": str(error)})
        return late

    def _skip(self, gap: Gap) -> StreamGap:
        log.warning("stream.gap", extra={"stream": self._thread_id, "to": gap.available_from})
        return self._progress.skip(gap)

    def _refresh_row(self) -> None:
        self._row_timer = None
        self._sources.run_watcher.refresh([self._subscription.run_id])

    def _next_heartbeat(self) -> None:
        self._beat_due = False
        self._heartbeat = asyncio.get_running_loop().call_later(self._sources.heartbeat_s, self._beat)

    def _beat(self) -> None:
        self._beat_due = True
        self._poke()

    def _poke(self) -> None:
        if self._tail is not None:
            self._tail.poke()

    def _drop_tail(self) -> None:
        tail, self._tail = self._tail, None
        if tail is not None:
            tail.close()


async def _only(event: StreamEvent) -> AsyncGenerator[EventBatch]:
    yield [event]
