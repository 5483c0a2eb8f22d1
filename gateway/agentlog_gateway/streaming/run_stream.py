"""Decides, for one client of one run, which bytes come next: ranges from the log, then the tail, then the end.

What was shown is kept in the cursor and the order, so that every step can be taken again after a fault. Heartbeats and
the run's end arrive as pokes of the tail: no task and no timer per event.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from agentlog_facts.errors import Gap, SlowReader, Unavailable
from agentlog_facts.frame import SLOTS, event_id
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json
from agentlog_facts.ports import FrameReads, FrameTail, PositionedFrames
from agentlog_gateway.streaming.cursor import After, Begin, LiveOnly, Modes
from agentlog_gateway.streaming.frame_filter import EpochFilter
from agentlog_gateway.streaming.run_watcher import RunWatcher
from agentlog_gateway.streaming.sse import HEARTBEAT, Framer, frame
from agentlog_projections.queries.run_status import RunStatusRow

log = logging.getLogger(__name__)

ASK_S = 0.25
"""An end was seen but no hint came: ask for the run's row after this long."""
LATE_S = 0.1
"""How long flushes that the log already has may take to come by the tail; then they are read as a range."""
ANNOUNCED_S = 2.0
"""How long a failed run's missing end flush is waited for; then the end is told from the facts."""
SEARCHED = 4096 * SLOTS
"""How far behind a finished run's last flush its announcement is looked for."""
AWAY_S = 60.0
"""A log that stays away longer ends the stream; the client comes back by itself."""
RETRY_S = 0.5
CHUNK_BYTES = 64 * 1024
NOWHERE = 1 << 62
"""Cursor of a run that never put anything on the log."""
NOT_FOUND: Json = {"error": "HTTPException", "message": "404: Run not found"}
INTERNAL: Json = {"error": "InternalError", "message": "An internal error occurred"}


@dataclass(frozen=True, slots=True)
class Sources:
    """What all streams of a gateway share."""

    frames: FrameReads
    ends: RunWatcher
    framer: Framer
    heartbeat_s: float


class RunEvents:
    """One client's events of one run, as bytes; one task iterates it, once."""

    def __init__(
        self, sources: Sources, thread_id: ThreadId, run_id: RunId, modes: Modes | None, with_ids: bool = False
    ) -> None:
        self.ended = False
        self._sources = sources
        self._frames = sources.frames
        self._thread_id = thread_id
        self._modes = modes
        self._with_ids = with_ids
        self._order = EpochFilter(run_id)
        self._tail: FrameTail | None = None
        self._enter: Callable[[], Awaitable[None]] | None = None  # listens and begins, when that is left to the reader
        self._cursor = NOWHERE  # no flush before it is looked at again
        self._after = -1  # no event up to it is shown
        self._until: int | None = None  # where the run's flushes end, once that is known
        self._silent = False
        self._closed = False
        self._beat_due = False
        self._heartbeat: asyncio.TimerHandle | None = None
        self._question: asyncio.TimerHandle | None = None
        self._watch = sources.ends.subscribe(run_id, self._poke)
        self._chunks = self._run()

    def enter_by(self, enter: Callable[[], Awaitable[None]]) -> None:
        """Let the reader call `listen` and `begin` by this, again and again while rows or log are away."""
        self._enter = enter

    def listen(self, tail: FrameTail) -> None:
        """Take what the thread says from here on."""
        self._tail = tail
        self._cursor = tail.start

    def begin(self, where: Begin, row: RunStatusRow | None) -> None:
        """Set where the client begins, by the run's row; None when there is no such run."""
        row = None if row is None or row.thread_id != self._thread_id else row
        self._watch.settle(row)
        if row is None or self._watch.gone:
            return
        self._with_ids = row.resumable
        if isinstance(where, LiveOnly):
            self._silent = row.ended
            # without a claim, none of the epochs so far counts any more
            self._order = EpochFilter(self._watch.run_id, (row.version if row.epoch is None else row.epoch, -1))
        elif row.outputs_from is not None:
            self._cursor = row.outputs_from
            if isinstance(where, After) and where.position >= row.outputs_from:
                # the flush at the cursor is read again: it tells which (epoch, n) the client has seen
                self._cursor, self._after = where.position - where.position % SLOTS, where.position

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield chunks of whole events and heartbeats until the run's end, or until closed."""
        return self._chunks

    def close(self) -> None:
        """Give everything back; the iteration ends."""
        self._closed = True
        self._sources.ends.unsubscribe(self._watch)
        for timer in (self._heartbeat, self._question):
            if timer is not None:
                timer.cancel()
        self._poke()
        self._drop_tail()

    async def aclose(self) -> None:
        """Close, and wait until nothing of it runs; for the task that iterates."""
        self.close()
        await self._chunks.aclose()

    async def _run(self) -> AsyncGenerator[bytes]:
        self._next_heartbeat()
        away_since: float | None = None
        try:
            while not self._closed and not self.ended:
                try:
                    async with aclosing(self._attempt()) as chunks:
                        async for chunk in chunks:
                            away_since = None
                            yield chunk
                except SlowReader:
                    self._drop_tail()
                except Gap as gap:
                    yield self._skip(gap)
                except Unavailable as error:
                    self._drop_tail()
                    away_since = away_since or asyncio.get_running_loop().time()
                    if self._gives_up(away_since, error):
                        return
                    await asyncio.sleep(RETRY_S)  # back-off before the log is asked again
                    yield HEARTBEAT
        finally:
            self.close()

    def _gives_up(self, away_since: float, error: Unavailable) -> bool:
        late = asyncio.get_running_loop().time() - away_since > AWAY_S
        if late:
            log.error("stream.given_up", extra={"stream": self._thread_id, "error": str(error)})
        return late

    async def _attempt(self) -> AsyncGenerator[bytes]:
        """Go on from the cursor to the end of the run."""
        if self._enter is not None:
            await self._enter()
            self._enter = None
        while not self._closed and not self._watch.over:
            if self._tail is None:
                self._tail = await self._frames.tail(self._thread_id)
            async for chunk in self._range(self._tail.start):
                yield chunk
            async for chunk in self._listened(self._tail, lambda: self._watch.over):
                yield chunk
        if self._closed:
            return
        row = self._watch.row
        if row is None or self._watch.gone:
            yield frame("error", NOT_FOUND)
        elif not self._silent:
            async for chunk in self._rest(row):
                yield chunk
        self.ended = not self._closed

    async def _rest(self, row: RunStatusRow) -> AsyncGenerator[bytes]:
        """Show what is left of a run that has ended, and its end."""
        if self._until is None:
            self._until = await self._frames.end(self._thread_id) if row.outputs_to is None else row.outputs_to
        until = self._until
        if self._tail is not None and row.outputs_to is not None:  # all of it is on the log, so the tail brings it now
            async for chunk in self._range(min(self._tail.start, until)):
                yield chunk
            async for chunk in self._listened(self._tail, lambda: self._cursor >= until, LATE_S):
                yield chunk
        if self._cursor < until and (end_of_log := await self._frames.end(self._thread_id)) < until:
            async for chunk in self._range(end_of_log):
                yield chunk
            yield self._skip(Gap(f"{end_of_log} is the end of the log", until))  # restored, or cut: the rest is gone
        async for chunk in self._range(until):
            yield chunk
        fence = self._order.reopened(row.finished_event_id)
        if fence is not None:
            self._cursor = fence
            async for chunk in self._range(until):
                yield chunk
        end = self._order.settle(row.finished_event_id)
        if end is not None:
            yield self._bytes(end)
        elif row.status in ("error", "timeout") and not self._announced():
            async for chunk in self._announcement(until):
                yield chunk
            if not self._announced() and not self._closed:
                yield frame("error", INTERNAL if row.error is None else row.error)

    async def _announcement(self, until: int) -> AsyncGenerator[bytes]:
        """Show the end that somebody else than the worker announces behind the run's last flush."""
        if self._tail is None:
            end = min(await self._frames.end(self._thread_id), until + SEARCHED)
            async for chunk in self._range(end):
                yield chunk
            return
        left = ANNOUNCED_S - (asyncio.get_running_loop().time() - (self._watch.ended_at or 0.0))
        async for chunk in self._listened(self._tail, self._announced, left):
            yield chunk

    async def _range(self, end: int) -> AsyncGenerator[bytes]:
        """Show what the log holds from the cursor up to `end`."""
        if self._cursor >= end:
            return
        ready = bytearray()
        fault: Unavailable | None = None
        async with aclosing(self._frames.read(self._thread_id, self._cursor, end)) as flushes:
            try:
                async for flush in flushes:
                    ready += self._show(flush)
                    if len(ready) > CHUNK_BYTES or self._beat_due:
                        yield self._flushed(ready)
                    if self._closed:
                        return
                self._cursor = max(self._cursor, end)
            except Unavailable as error:
                fault = error
        if ready:
            yield self._flushed(ready)
        if fault is not None:
            raise fault

    async def _listened(
        self, tail: FrameTail, enough: Callable[[], bool], seconds: float | None = None
    ) -> AsyncGenerator[bytes]:
        """Show what the tail brings until there is enough, or for so many seconds."""
        loop = asyncio.get_running_loop()
        until = None if seconds is None else loop.time() + seconds
        alarm = None if until is None else loop.call_at(until, tail.poke)
        try:
            while not self._closed and not enough() and (until is None or loop.time() < until):
                flushes = await tail.next()
                chunk = self._show(flushes[0]) if len(flushes) == 1 else b"".join(map(self._show, flushes))
                if self._beat_due:
                    chunk = self._flushed(bytearray(chunk))
                if self._order.holds and self._question is None:
                    self._question = loop.call_later(ASK_S, self._ask)
                if chunk:
                    yield chunk
        finally:
            if alarm is not None:
                alarm.cancel()

    def _show(self, flush: PositionedFrames) -> bytes:
        """Return what the client is to see of a flush now; its end waits in the order."""
        if flush.position < self._cursor:
            return b""
        self._cursor = flush.position + SLOTS
        of = flush.record.of
        if self._until is not None and flush.position >= self._until and (of is None or of != self._finished()):
            return b""
        return self._bytes(flush) if self._order.accepts(flush) else b""

    def _bytes(self, flush: PositionedFrames) -> bytes:
        return self._sources.framer.framed(flush, self._with_ids).select(self._modes, self._after)

    def _flushed(self, ready: bytearray) -> bytes:
        if self._beat_due:
            ready += HEARTBEAT
            self._next_heartbeat()
        chunk = bytes(ready)
        ready.clear()
        return chunk

    def _skip(self, gap: Gap) -> bytes:
        """Go on behind what has expired, and say so."""
        missing: Json = {"from": event_id(self._cursor), "to": event_id(gap.available_from)}
        log.warning("stream.gap", extra={"stream": self._thread_id, "to": gap.available_from})
        self._cursor = max(gap.available_from, self._cursor + SLOTS)
        return frame("gap", missing)

    def _finished(self) -> str | None:
        return None if self._watch.row is None else self._watch.row.finished_event_id

    def _announced(self) -> bool:
        return self._order.announced(self._finished())

    def _ask(self) -> None:
        self._question = None
        self._sources.ends.ask([self._watch.run_id])

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
