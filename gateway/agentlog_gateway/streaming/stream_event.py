"""Typed events of a run's stream, in the order in which a client gets them and before any encoding."""

from dataclasses import dataclass
from typing import TypeAlias

from agentlog_facts.json_value import JsonObject
from agentlog_facts.ports import PositionedFrames
from agentlog_facts.thread import RunStatus


@dataclass(frozen=True, slots=True)
class StreamFlush:
    """The frames of one flush after the position `after`; all events of a flush reach the client together.

    `resumable`: a client may resume from the position of an event, so an encoding shows it.
    """

    flush: PositionedFrames
    resumable: bool
    after: int = -1


@dataclass(frozen=True, slots=True)
class StreamGap:
    """The positions from `start` up to `to` have expired or are lost; the stream continues at `to`."""

    start: int
    to: int


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The run is over and all its events were delivered; `error` is set if no flush has announced it."""

    status: RunStatus
    error: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class StreamNotFound:
    """There is no such run, or it was deleted; nothing follows."""


@dataclass(frozen=True, slots=True)
class StreamHeartbeat:
    """The connection is alive."""


StreamEvent: TypeAlias = StreamFlush | StreamGap | StreamEnd | StreamNotFound | StreamHeartbeat
EventBatch: TypeAlias = list[StreamEvent]
"""Events that are ready at the same time, never none."""
