"""Decides how events look on the wire as server-sent events, and how a response of them is sent and given up.

Source of the framing: docs/http-api.md, section 10.1.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentlog_facts.frame import event_id, wire_events
from agentlog_facts.ids import RunId
from agentlog_facts.json_value import Json, dump
from agentlog_facts.ports import PositionedFrames
from agentlog_gateway.http.server import stays_open, was_cut
from agentlog_gateway.streaming.cursor import Modes, kind

log = logging.getLogger(__name__)

HEARTBEAT = b": heartbeat\r\n\r\n"
HEARTBEAT_S = 5.0
CACHE_BYTES = 32 * 1024 * 1024
Known: TypeAlias = tuple[int, int, RunId, int, int, int, bool]
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


def frame(event: str, data: Json, position: int | None = None) -> bytes:
    """Return one event: lines event, data and, where a position is given, id; each ends with CRLF."""
    name = event.replace("\r", " ").replace("\n", " ").encode()
    id_line = b"" if position is None else b"id: %s\r\n" % event_id(position).encode()
    return b"event: %s\r\ndata: %s\r\n%s\r\n" % (name, dump(data), id_line)


@dataclass(frozen=True, slots=True)
class FramedEvent:
    """One event as bytes; `kind` is the mode it belongs to."""

    kind: str
    position: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Framed:
    """All events of a flush as bytes, apart and together."""

    events: tuple[FramedEvent, ...]
    whole: bytes

    def select(self, modes: Modes | None, after: int = -1) -> bytes:
        """Return the events of these modes behind a position."""
        if modes is None and (not self.events or self.events[0].position > after):
            return self.whole
        wanted = (event for event in self.events if event.position > after)
        return b"".join(event.data for event in wanted if modes is None or modes.wants(event.kind))


class Framer:
    """Frames each flush once and hands the same bytes to every reader, as long as they are recent.

    What was framed is known by what it is, not by its place alone: at the same place of a log that was restored lies
    the output of somebody else.
    """

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self._cache: OrderedDict[Known, Framed] = OrderedDict()
        self._room = cache_bytes

    def framed(self, flush: PositionedFrames, with_ids: bool) -> Framed:
        """Return the events of a flush as bytes."""
        record = flush.record
        at = (flush.partition, flush.position, record.run_id, record.epoch, record.n, flush.checksum, with_ids)
        found = self._cache.get(at)
        if found is None:
            found = self._cache[at] = _framed(flush, with_ids)
            self._room -= len(found.whole)
            while self._room < 0 and len(self._cache) > 1:
                self._room += len(self._cache.popitem(last=False)[1].whole)
        return found


def _framed(flush: PositionedFrames, with_ids: bool) -> Framed:
    events = tuple(
        FramedEvent(
            kind(event.event),
            flush.position + event.index,
            frame(event.event, event.data, flush.position + event.index if with_ids else None),
        )
        for event in wire_events(flush.record.frames)
    )
    return Framed(events, b"".join(event.data for event in events))


class Events(Protocol):
    """A stream of bytes that knows whether it came to its end."""

    @property
    def ended(self) -> bool:
        """Tell whether everything was delivered."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield chunks of whole events."""
        ...

    def close(self) -> None:
        """Give everything back; the iteration ends. May be called at any time."""
        ...

    async def aclose(self) -> None:
        """Close and wait until nothing of it runs; for the task that iterates."""
        ...


class SseResponse(Response):
    """Send events as they come; notice at once when the client goes away.

    `on_gone` is awaited when it went away before the end. It is not when the server stops: then the run goes on.
    """

    def __init__(
        self,
        events: Events,
        headers: Mapping[str, str] | None = None,
        on_gone: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(headers={**HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._events = events
        self._on_gone = on_gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; returns when the events ended or the client is gone."""
        stays_open(scope)
        gone = asyncio.ensure_future(self._leaves(receive))
        try:
            await self._send(send)
        finally:
            left = gone.done() and not gone.cancelled() and gone.exception() is None
            gone.cancel()
            await self._events.aclose()
        if left and not self._events.ended and not was_cut(scope) and self._on_gone is not None:
            log.info("stream.client_gone")
            await self._on_gone()

    async def _leaves(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._events.close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._events:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
