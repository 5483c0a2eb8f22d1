"""Decides where a joining client begins and which events it asked for, out of header and query text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from agentlog_facts.frame import START_CURSORS, parse_event_id
from agentlog_facts.json_value import load

KNOWN_MODES = frozenset(
    {"values", "messages", "messages-tuple", "tasks", "checkpoints", "updates", "events", "debug", "custom"}
)
CONTROL = frozenset({"metadata", "feedback"})


@dataclass(frozen=True, slots=True)
class FromStart:
    """Everything the run said."""


@dataclass(frozen=True, slots=True)
class LiveOnly:
    """What the run says from now on."""


@dataclass(frozen=True, slots=True)
class After:
    """What the run said behind this position."""

    position: int


Begin: TypeAlias = FromStart | LiveOnly | After


def begin(last_event_id: str | None) -> Begin:
    """Read `Last-Event-ID`; what cannot be read replays nothing. Source: docs/http-api.md, section 11."""
    if last_event_id is None:
        return LiveOnly()
    text = last_event_id.strip()
    if text in START_CURSORS:
        return FromStart()
    position = parse_event_id(text)
    return LiveOnly() if position is None else After(position)


@dataclass(frozen=True, slots=True)
class Modes:
    """The events a joining client wants; `error` and `gap` always pass, other control events with any known mode."""

    kinds: frozenset[str]
    control: bool

    def wants(self, kind: str) -> bool:
        """Tell whether an event of this kind (its name up to the first `|` or `/`) passes."""
        return kind in self.kinds or kind in ("error", "gap") or (self.control and kind in CONTROL)


def stream_modes(values: Sequence[str]) -> Modes | None:
    """Read the query's `stream_mode`: repeated, separated by commas, or a JSON list; None = no filter.

    Both names of the messages modes pass both forms of their events: a run has one of the two. Unknown names match
    nothing. Source: docs/http-api.md, section 11.
    """
    names = {name for value in values for name in _names(value)} - {""}
    if not names:
        return None
    known = names & KNOWN_MODES
    return Modes(frozenset("messages" if name == "messages-tuple" else name for name in known), bool(known))


def kind(event: str) -> str:
    """Return the mode that an event belongs to: `messages/partial` and `messages|child:1` both are `messages`."""
    return event.partition("|")[0].partition("/")[0]


def _names(value: str) -> Iterable[str]:
    text = value.strip()
    if text.startswith(("[", '"')):
        try:
            found = load(text)
        except ValueError:
            return [text]
        items = found if isinstance(found, list) else [found]
        return [item.strip() for item in items if isinstance(item, str)]
    return [name.strip() for name in text.split(",")]
