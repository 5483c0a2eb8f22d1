"""Streams of runs: opened before the run exists, replayed from its start, or joined after a cursor."""

from agentlog_facts.frame import SLOTS
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.ports import FrameReads, FrameTail
from agentlog_gateway import timeouts
from agentlog_gateway.streaming.cursor import After, Begin, FromStart, LiveOnly, begin
from agentlog_gateway.streaming.run_stream import RunStream, Sources
from agentlog_gateway.streaming.run_watcher import RunWatcher


class RunStreams:
    """All streams of runs of a gateway."""

    def __init__(self, frames: FrameReads, run_watcher: RunWatcher, heartbeat_s: float = timeouts.HEARTBEAT_S) -> None:
        self._run_watcher = run_watcher
        self._frames = frames
        self.sources = Sources(frames, run_watcher, heartbeat_s)

    async def open(self, thread_id: ThreadId) -> "OpenStream":
        """Open the tail of a thread before its run is created. Raises: Unavailable."""
        return OpenStream(self.sources, thread_id, await self._frames.tail(thread_id))

    def replay(self, thread_id: ThreadId, run_id: RunId) -> RunStream:
        """Return the events of a run from its start, resumable or not; the first read of it reads rows and log."""
        events = RunStream(self.sources, thread_id, run_id)
        events.enter_by(lambda: self._enter(events, thread_id, run_id, FromStart()))
        return events

    async def join(self, thread_id: ThreadId, run_id: RunId, *, last_event_id: str | None = None) -> RunStream:
        """Return the events of a run after a cursor, or from now on. Raises: Unavailable."""
        events = RunStream(self.sources, thread_id, run_id)
        try:
            await self._enter(events, thread_id, run_id, begin(last_event_id), only_resumable=True)
        except BaseException:
            events.close()
            raise
        return events

    async def _enter(
        self, events: RunStream, thread_id: ThreadId, run_id: RunId, where: Begin, only_resumable: bool = False
    ) -> None:
        """Open the tail, then read the row: so the tail brings every flush that is younger than the row."""
        row = await self._run_watcher.look(run_id)
        if row is not None and row.thread_id == thread_id and not row.ended:
            events.listen(await self._frames.tail(thread_id))
            row = await self._run_watcher.look(run_id)
        if row is not None and only_resumable and not row.resumable:
            where = LiveOnly()
        events.begin(await self._known(thread_id, where), row)

    async def _known(self, thread_id: ThreadId, where: Begin) -> Begin:
        """Return the cursor; one that the log has not reached replays nothing."""
        if isinstance(where, After) and where.position - where.position % SLOTS >= await self._frames.end(thread_id):
            return LiveOnly()
        return where


class OpenStream:
    """The tail of a thread, opened before its run exists."""

    def __init__(self, sources: Sources, thread_id: ThreadId, tail: FrameTail) -> None:
        self._sources = sources
        self._thread_id = thread_id
        self._tail = tail

    def events(self, run_id: RunId, *, resumable: bool) -> RunStream:
        """Return all events of a run that was created after this was opened."""
        events = RunStream(self._sources, self._thread_id, run_id, resumable=resumable)
        events.listen(self._tail)
        return events

    def close(self) -> None:
        """Stop listening: there is no run to follow."""
        self._tail.close()
