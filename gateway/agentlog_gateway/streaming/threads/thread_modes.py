"""Modes of a thread's stream, and its encoding as server-sent events. Source: docs/http-api.md, section 12."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from agentlog_facts.frame import STATE_UPDATE, event_id
from agentlog_facts.ids import RunId
from agentlog_facts.json_value import JsonObject
from agentlog_gateway.http.errors import invalid
from agentlog_gateway.streaming.sse import HEARTBEAT, Framer, frame
from agentlog_gateway.streaming.stream_event import StreamFlush, StreamGap, StreamHeartbeat
from agentlog_gateway.streaming.stream_modes import names_of

RUN_MODES, LIFECYCLE = "run_modes", "lifecycle"
THREAD_MODES = frozenset({RUN_MODES, LIFECYCLE, STATE_UPDATE})


@dataclass(frozen=True, slots=True)
class StreamRunDone:
    """A run of the thread is over; `error` is set if it failed and no flush has told so.

    `position` is None if no flush has announced the end, so that no client can resume from here.
    """

    run_id: RunId
    position: int | None = None
    error: JsonObject | None = None


ThreadEvent: TypeAlias = StreamFlush | StreamRunDone | StreamGap | StreamHeartbeat
ThreadBatch: TypeAlias = list[ThreadEvent]


@dataclass(frozen=True, slots=True)
class ThreadModes:
    """The modes that a client of a thread's stream wants."""

    names: frozenset[str]

    @property
    def runs(self) -> bool:
        """Return whether the client wants the start and the end of runs."""
        return bool(self.names & {RUN_MODES, LIFECYCLE})

    def wants(self, kind: str) -> bool:
        """Return whether an event of this kind (its name up to the first `|` or `/`) passes."""
        if kind == STATE_UPDATE:
            return kind in self.names
        return RUN_MODES in self.names or (kind == "metadata" and LIFECYCLE in self.names)


def thread_modes(values: Sequence[str]) -> ThreadModes:
    """Parse `stream_modes` and `stream_mode`: repeated, separated by commas, or a JSON list. Raises: Problem 422."""
    names = {name for value in values for name in names_of(value)} - {""}
    unknown = sorted(names - THREAD_MODES)
    if unknown:
        raise invalid(f"Invalid stream mode: {unknown[0]}")
    return ThreadModes(frozenset(names or {RUN_MODES}))


class ThreadEncoder:
    """Encodes the events of one client of a thread's stream; every event of a run has an id."""

    def __init__(self, framer: Framer, modes: ThreadModes) -> None:
        self._framer = framer
        self._modes = modes

    def encode(self, events: Sequence[ThreadEvent]) -> bytes:
        """Return complete server-sent events and comments; empty if the client wants none of them."""
        return b"".join(map(self._encoded, events))

    def _encoded(self, event: ThreadEvent) -> bytes:
        match event:
            case StreamFlush():
                framed = self._framer.framed(event.flush, with_ids=True)
                wanted = (one for one in framed.events if one.position > event.after and self._modes.wants(one.kind))
                return b"".join(one.data for one in wanted)
            case StreamRunDone():
                return self._done(event)
            case StreamHeartbeat():
                return HEARTBEAT
            case StreamGap():
                return frame("gap", {"from": event_id(event.start), "to": event_id(event.to)})
            case _:
                assert_never(event)

    def _done(self, event: StreamRunDone) -> bytes:
        if not self._modes.runs:
            return b""
        error = b"" if event.error is None or not self._modes.wants("error") else frame("error", event.error)
        return error + frame("metadata", {"status": "run_done", "run_id": event.run_id}, event.position)
