"""Streams of threads of a gateway: each begins at the live end, or after what its client has seen."""

from typing import Protocol

from agentlog_facts.ids import RunId, ThreadId
from agentlog_gateway.streaming.cursor import After, FromStart, begin
from agentlog_gateway.streaming.run_stream import Sources
from agentlog_gateway.streaming.threads.thread_order import record_position
from agentlog_gateway.streaming.threads.thread_stream import ThreadStart, ThreadStream


class ThreadPlaces(Protocol):
    """Places of a thread's runs on `outputs`."""

    async def first_output(self, thread_id: ThreadId) -> int | None:
        """Return the position at which the output of the thread's first run begins. Raises: Unavailable."""
        ...

    async def last_claim(self, thread_id: ThreadId) -> tuple[int, RunId | None]:
        """Return the epoch of the claimed run with its id, or else the version of the thread. Raises: Unavailable."""
        ...


class ThreadStreams:
    """All streams of threads of a gateway."""

    def __init__(self, sources: Sources, places: ThreadPlaces) -> None:
        self._sources = sources
        self._places = places

    def open(self, thread_id: ThreadId, last_event_id: str | None = None) -> ThreadStream:
        """Return the events of a thread after a cursor, or from now on; also of a thread that does not exist yet."""

        async def start() -> ThreadStart:
            return await self._start(thread_id, last_event_id)

        return ThreadStream(self._sources, thread_id, start)

    async def _start(self, thread_id: ThreadId, last_event_id: str | None) -> ThreadStart:
        """Read the place before the tail is opened: no run that is claimed in between is left out."""
        match begin(last_event_id):
            case FromStart():
                first = await self._places.first_output(thread_id)
                if first is not None:
                    return ThreadStart(first)
            case After(position=position):
                at = record_position(position)
                if at < await self._sources.frames.end(thread_id):
                    return ThreadStart(at, position)
            case _:
                pass
        epoch, running = await self._places.last_claim(thread_id)
        return ThreadStart(last=(epoch, -1), running=running)
