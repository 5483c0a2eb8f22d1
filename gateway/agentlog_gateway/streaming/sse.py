"""Encoding of stream events as server-sent events.

Source of the framing: docs/http-api.md, section 10.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from agentlog_facts.frame import event_id, wire_events
from agentlog_facts.ids import RunId
from agentlog_facts.json_value import Json, dump
from agentlog_facts.lru import Lru
from agentlog_facts.ports import PositionedFrames
from agentlog_gateway.streaming.stream_event import (
    StreamEnd,
    StreamEvent,
    StreamFlush,
    StreamGap,
    StreamHeartbeat,
    StreamNotFound,
)
from agentlog_gateway.streaming.stream_modes import Modes, kind

HEARTBEAT = b": heartbeat\r\n\r\n"
CACHE_BYTES = 32 * 1024 * 1024
ENTRY_BYTES = 600
"""Memory of a cached flush beside its events: the key, the entry, the objects."""
EVENT_BYTES = 200
"""Memory of a cached event beside its text."""
Known: TypeAlias = tuple[int, int, RunId, int, int, int, bool]
NOT_FOUND: Json = {"error": "HTTPException", "message": "404: Run not found"}


def frame(event: str, data: Json, position: int | None = None) -> bytes:
    """Return one event: lines event, data and, where a position is given, id; each ends with CRLF."""
    name = event.replace("\r", " ").replace("\n", " ").encode()
    id_line = b"" if position is None else b"id: %s\r\n" % event_id(position).encode()
    return b"event: %s\r\ndata: %s\r\n%s\r\n" % (name, dump(data), id_line)


@dataclass(frozen=True, slots=True)
class FramedEvent:
    """One event as bytes; `kind` is its mode."""

    kind: str
    position: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Framed:
    """All events of a flush as bytes, separate and joined."""

    events: tuple[FramedEvent, ...]
    joined: bytes

    @property
    def weight(self) -> int:
        """Return about how many bytes of memory it takes: the events are there twice, separate and joined."""
        return 2 * len(self.joined) + ENTRY_BYTES + EVENT_BYTES * len(self.events)

    def select(self, modes: Modes | None, after: int = -1) -> bytes:
        """Return the events of these modes after a position."""
        if modes is None and (not self.events or self.events[0].position > after):
            return self.joined
        wanted = (event for event in self.events if event.position > after)
        return b"".join(event.data for event in wanted if modes is None or modes.wants(event.kind))


class Framer:
    """Frames each flush once; a cache serves the same bytes to every reader while they are recent.

    The cache key names the flush and the checksum of its bytes, not its position alone: after a log is restored, the
    same position can hold the output of another run.
    """

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self._cache: Lru[Known, Framed] = Lru(cache_bytes)
        self._last: tuple[PositionedFrames | None, bool, Framed] = (None, False, Framed((), b""))

    def framed(self, flush: PositionedFrames, with_ids: bool) -> Framed:
        """Return the events of a flush as bytes."""
        last, had_ids, found = self._last
        if last is not flush or had_ids is not with_ids:  # all readers of a tail get the same object, one by one
            found = self._cached(flush, with_ids)
            self._last = (flush, with_ids, found)
        return found

    def _cached(self, flush: PositionedFrames, with_ids: bool) -> Framed:
        record = flush.record
        at = (flush.partition, flush.position, record.run_id, record.epoch, record.n, flush.checksum, with_ids)
        found = self._cache.get(at)
        if found is None:
            found = _framed(flush, with_ids)
            self._cache.put(at, found, found.weight)
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


class SseEncoder:
    """Encodes the events of one client; `modes` are those that it wants, None for all."""

    def __init__(self, framer: Framer, modes: Modes | None = None) -> None:
        self._framer = framer
        self._modes = modes

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        """Return complete server-sent events and comments; empty if the client wants none of them."""
        return self._encoded(events[0]) if len(events) == 1 else b"".join(map(self._encoded, events))

    def _encoded(self, event: StreamEvent) -> bytes:
        match event:
            case StreamFlush():
                return self._framer.framed(event.flush, event.resumable).select(self._modes, event.after)
            case StreamHeartbeat():
                return HEARTBEAT
            case StreamGap():
                return frame("gap", {"from": event_id(event.start), "to": event_id(event.to)})
            case StreamEnd():
                return b"" if event.error is None else frame("error", event.error)
            case StreamNotFound():
                return frame("error", NOT_FOUND)
            case _:
                assert_never(event)
