"""Cursor of a client that joins a stream, read from the header `Last-Event-ID`."""

from dataclasses import dataclass
from typing import TypeAlias

from agentlog_facts.frame import START_CURSORS, parse_event_id


@dataclass(frozen=True, slots=True)
class FromStart:
    """Begin with the first event of the run."""


@dataclass(frozen=True, slots=True)
class LiveOnly:
    """Begin with the next event of the run."""


@dataclass(frozen=True, slots=True)
class After:
    """Begin after this position."""

    position: int


Begin: TypeAlias = FromStart | LiveOnly | After


def begin(last_event_id: str | None) -> Begin:
    """Parse `Last-Event-ID`; invalid text replays nothing. Source: docs/http-api.md, section 11."""
    if last_event_id is None:
        return LiveOnly()
    text = last_event_id.strip()
    if text in START_CURSORS:
        return FromStart()
    position = parse_event_id(text)
    return LiveOnly() if position is None else After(position)
