"""Encoder of the states that a run streams one after the other: list items that cannot differ are not encoded again.

A state is streamed whole after each superstep, and most of it is a long list that has grown by an item. The items at
the beginning that are the same objects as before keep their JSON, if they are immutable, or messages with the same
`message_digest`. Any other object is encoded each time: user code may have changed it in place.
"""

from dataclasses import dataclass
from operator import is_
from typing import TypeGuard

from agentlog_facts.json_value import TooDeep, dump, dump_object
from agentlog_infra.langgraph.checkpoints.channel_codec import IMMUTABLE, is_list
from agentlog_infra.langgraph.checkpoints.message_digest import Digest, message_digest
from agentlog_infra.langgraph.value_json import clean_text, to_json_whole


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A list that was encoded: its items and the JSON of each.

    `digests` holds the places of the items that user code may change in place, with their digests before the encoding,
    None for an item without one.
    """

    items: list[object]
    json: list[bytes]
    digests: dict[int, Digest | None]


_NOTHING = _Encoded([], [], {})


class GrowingStateJson:
    """Encodes states; the result equals the JSON of `to_json_whole` with the same `most_levels`."""

    def __init__(self, most_levels: int) -> None:
        self._most_levels = most_levels
        self._known: dict[str, _Encoded] = {}

    def encode(self, state: object) -> bytes:
        """Return a state as JSON. Raises: TooDeep."""
        if _has_plain_keys(state):
            kept: dict[str, _Encoded] = {}
            try:
                shown = dump_object({name: self._value(name, value, kept) for name, value in state.items()})
            except TooDeep:
                pass  # the error below names the levels of the whole state
            else:
                self._known = kept
                return shown
        return dump(to_json_whole(state, self._most_levels))

    def _value(self, name: str, value: object, kept: dict[str, _Encoded]) -> bytes:
        """Return the JSON of a value of the state; put a list that the next state may begin with into `kept`."""
        if not is_list(value):
            return dump(to_json_whole(value, self._most_levels - 1))
        items = [*value]
        known = self._known.get(name, _NOTHING)
        same = _same_items(known.items, items)
        mutable = [at for at in known.digests if at < same]
        mutable += [at for at in range(same, len(items)) if type(items[at]) not in IMMUTABLE]
        digests = {at: message_digest(items[at]) for at in mutable}
        changed = [at for at in mutable if at < same and (digests[at] is None or digests[at] != known.digests[at])]
        fresh = self._each([*(items[at] for at in changed), *items[same:]])
        shown = [*known.json[:same], *fresh[len(changed) :]]
        for at, one in zip(changed, fresh, strict=False):
            shown[at] = one
        kept[name] = _Encoded(items, shown, digests)
        return b"[%s]" % b",".join(shown)

    def _each(self, items: list[object]) -> list[bytes]:
        shown = to_json_whole(items, self._most_levels - 1)
        if not isinstance(shown, list):
            raise TypeError(f"a list became {type(shown).__name__} in JSON")
        return [dump(one) for one in shown]


def _same_items(before: list[object], now: list[object]) -> int:
    """Return how many items at the beginning of both lists are the same objects."""
    if all(map(is_, before, now)):
        return min(len(before), len(now))
    return next(at for at, (old, new) in enumerate(zip(before, now, strict=False)) if old is not new)


def _has_plain_keys(state: object) -> TypeGuard[dict[str, object]]:
    return _is_dict(state) and all(type(name) is str and clean_text(name) == name for name in state)


def _is_dict(state: object) -> TypeGuard[dict[object, object]]:
    return type(state) is dict
