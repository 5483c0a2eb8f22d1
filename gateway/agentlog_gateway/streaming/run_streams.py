"""Decides what a client of a run's stream is sent, from where, and when the stream ends.

For the routes (`runs.py`) this is all:

    streams = RunStreams(frames, rows, hints)          # composition root; `streams.run()` under its task group

    # POST .../runs/stream: enter before the run exists, so that nothing of it can be missed
    live = await streams.open(thread_id)                # Unavailable -> 503
    try:
        ... create the run; on refusal or duplicate `live.close()` ...
    except BaseException:
        live.close()
        raise
    events = live.events(run_id, resumable=resumable)   # RunEvents

    # a repeated Idempotency-Key on POST .../runs/stream: the first run from its start
    events = streams.replay(thread_id, run_id)          # never fails: the run exists, so the answer is 200

    # GET .../runs/{run_id}/stream: `last_event_id` = header or None, `modes` = join.stream_modes(values) or None
    events = await streams.join(thread_id, run_id, last_event_id=last_event_id, modes=modes)

    # each way; `on_gone` is awaited once when the client goes away before the run's end (cancel_on_disconnect)
    return SseResponse(events, headers={"Location": ..., "Content-Location": ...}, on_gone=cancel or None)

`RunEvents` is an async iterator of bytes (whole SSE events, heartbeat comments every 5 s of connection time); its
`ended` tells whether the run's end was delivered; `close()` gives everything back and may be called at any time.
It never raises for an unknown run: the contract has an `error` event for that (docs/http-api.md, sections 10.1 and 11).

    # wait and join (blocking calls) share the same watch: `.row` and `.gone` once the run is over, None when not yet
    watch = await streams.ends.wait(run_id, patience=timedelta(seconds=5))
"""

from datetime import timedelta

from agentlog_facts.frame import SLOTS
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.ports import FrameReads, FrameTail, HintFeed
from agentlog_gateway.streaming.cursor import After, Begin, FromStart, LiveOnly, Modes, begin
from agentlog_gateway.streaming.run_stream import RunEvents, Sources
from agentlog_gateway.streaming.run_watch import LOOK_EVERY, RunRows, RunStatusRow, RunWatcher
from agentlog_gateway.streaming.sse import HEARTBEAT_S, Framer

__all__ = ["OpenStream", "RunEvents", "RunRows", "RunStatusRow", "RunStreams"]


class RunStreams:
    """All streams of runs of a gateway; `run()` is to be supervised by the composition root."""

    def __init__(
        self,
        frames: FrameReads,
        rows: RunRows,
        hints: HintFeed,
        look_every: timedelta = LOOK_EVERY,
        heartbeat: timedelta = timedelta(seconds=HEARTBEAT_S),
    ) -> None:
        self.ends = RunWatcher(rows, hints, look_every)
        self._frames = frames
        self._sources = Sources(frames, self.ends, Framer(), heartbeat.total_seconds())

    async def run(self) -> None:
        """Serve the watches until cancelled."""
        await self.ends.run()

    async def open(self, thread_id: ThreadId) -> "OpenStream":
        """Listen to a thread before a run of it is created. Raises: Unavailable."""
        return OpenStream(self._sources, thread_id, await self._frames.tail(thread_id))

    def replay(self, thread_id: ThreadId, run_id: RunId) -> RunEvents:
        """Return the events of a run from its start, resumable or not; rows and log are first asked by its reader."""
        events = RunEvents(self._sources, thread_id, run_id, None)
        events.enter_by(lambda: self._enter(events, thread_id, run_id, FromStart()))
        return events

    async def join(
        self, thread_id: ThreadId, run_id: RunId, *, last_event_id: str | None = None, modes: Modes | None = None
    ) -> RunEvents:
        """Return the events of a run behind a cursor, or from now on. Raises: Unavailable."""
        events = RunEvents(self._sources, thread_id, run_id, modes)
        try:
            await self._enter(events, thread_id, run_id, begin(last_event_id), only_resumable=True)
        except BaseException:
            events.close()
            raise
        return events

    async def _enter(
        self, events: RunEvents, thread_id: ThreadId, run_id: RunId, where: Begin, only_resumable: bool = False
    ) -> None:
        """The tail is entered before the row is read: what the row does not know of yet comes by the tail."""
        row = await self.ends.look(run_id)
        if row is not None and row.thread_id == thread_id and not row.ended:
            events.listen(await self._frames.tail(thread_id))
            row = await self.ends.look(run_id)
        if row is not None and only_resumable and not row.resumable:
            where = LiveOnly()
        events.begin(await self._known(thread_id, where), row)

    async def _known(self, thread_id: ThreadId, where: Begin) -> Begin:
        """A cursor that the log has not reached replays nothing."""
        if isinstance(where, After) and where.position - where.position % SLOTS >= await self._frames.end(thread_id):
            return LiveOnly()
        return where


class OpenStream:
    """A thread's live end, entered before its run exists."""

    def __init__(self, sources: Sources, thread_id: ThreadId, tail: FrameTail) -> None:
        self._sources = sources
        self._thread_id = thread_id
        self._tail = tail

    def events(self, run_id: RunId, *, resumable: bool) -> RunEvents:
        """Return all events of a run that was created after this was opened."""
        events = RunEvents(self._sources, self._thread_id, run_id, None, with_ids=resumable)
        events.listen(self._tail)
        return events

    def close(self) -> None:
        """Stop listening: there is no run to follow."""
        self._tail.close()
