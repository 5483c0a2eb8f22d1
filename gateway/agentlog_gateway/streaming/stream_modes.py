"""Selection of stream modes: the events that a joining client wants, read from the query."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentlog_facts.json_value import load

KNOWN_MODES = frozenset(
    {"values", "messages", "messages-tuple", "tasks", "checkpoints", "updates", "events", "debug", "custom", "tools"}
)


@dataclass(frozen=True, slots=True)
class Modes:
    """The events a joining client wants; `error` and `gap` always pass, `metadata` does not."""

    kinds: frozenset[str]

    def wants(self, kind: str) -> bool:
        """Return whether an event of this kind (its name up to the first `|` or `/`) passes."""
        return kind in self.kinds or kind in ("error", "gap")


def stream_modes(values: Sequence[str]) -> Modes | None:
    """Parse the query's `stream_mode`: repeated, separated by commas, or a JSON list; None = no filter.

    Both names of the messages modes pass both forms of their events: a run has one of the two. Unknown names match
    nothing. Source: docs/http-api.md, section 11.
    """
    names = {name for value in values for name in names_of(value)} - {""}
    if not names:
        return None
    known = names & KNOWN_MODES
    return Modes(frozenset("messages" if name == "messages-tuple" else name for name in known))


def kind(event: str) -> str:
    """Return the mode that an event belongs to: `messages/partial` and `messages|child:1` both are `messages`."""
    return event.partition("|")[0].partition("/")[0]


def names_of(value: str) -> Iterable[str]:
    """Return the names in one value of a query: a name, names separated by commas, or a JSON list of them."""
    text = value.strip()
    if text.startswith(("[", '"')):
        try:
            found = load(text)
        except ValueError:
            return [text]
        items = found if isinstance(found, list) else [found]
        return [item.strip() for item in items if isinstance(item, str)]
    return [name.strip() for name in text.split(",")]
