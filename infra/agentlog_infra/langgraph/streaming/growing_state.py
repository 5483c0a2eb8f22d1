"""Encoder of the states that a run streams one after the other: list items that cannot differ are not encoded again.

A state is streamed whole after each superstep, and most of it is a long list that has grown by an item. The JSON of an
item is kept for the next state if the item is immutable, or a message with the same `message_digest`. Any
other object is encoded each time: user code may have changed it in place.
"""

from dataclasses import dataclass
from typing import TypeGuard

from agentlog_facts.json_value import TooDeep, dump, dump_object
from agentlog_infra.langgraph.checkpoints.channel_codec import IMMUTABLE, is_list
from agentlog_infra.langgraph.checkpoints.message_digest import message_digest
from agentlog_infra.langgraph.value_json import clean_text, to_json_whole

_SAME = b""
"""Digest of an immutable object."""


@dataclass(frozen=True, slots=True)
class _Encoded:
    """An item that was encoded: the object, its digest before that, and its JSON."""

    item: object
    digest: bytes | None
    json: bytes


class GrowingStateJson:
    """Encodes states; the result equals the JSON of `to_json_whole` with the same `most_levels`."""

    def __init__(self, most_levels: int) -> None:
        self._most_levels = most_levels
        self._known: dict[int, _Encoded] = {}  # by the identity of the item, which lives as long as its entry

    def encode(self, state: object) -> bytes:
        """Return a state as JSON. Raises: TooDeep."""
        if _has_plain_keys(state):
            kept: dict[int, _Encoded] = {}
            try:
                shown = dump_object({name: self._value(value, kept) for name, value in state.items()})
            except TooDeep:
                pass  # the error below names the levels of the whole state
            else:
                self._known = kept
                return shown
        return dump(to_json_whole(state, self._most_levels))

    def _value(self, value: object, kept: dict[int, _Encoded]) -> bytes:
        """Return the JSON of a value of the state; put the items of a list that the next state may use into `kept`."""
        if not is_list(value):
            return dump(to_json_whole(value, self._most_levels - 1))
        items = [*value]
        digests = [_SAME if type(item) in IMMUTABLE else message_digest(item) for item in items]
        known = list(map(self._find, items, digests))
        fresh = iter(self._each([item for item, one in zip(items, known, strict=True) if one is None]))
        shown: list[bytes] = []
        for item, digest, one in zip(items, digests, known, strict=True):
            encoded = one or _Encoded(item, digest, next(fresh))
            shown.append(encoded.json)
            if digest is not None:
                kept[id(item)] = encoded
        return b"[%s]" % b",".join(shown)

    def _each(self, items: list[object]) -> list[bytes]:
        shown = to_json_whole(items, self._most_levels - 1)
        return [dump(one) for one in shown] if isinstance(shown, list) else []

    def _find(self, item: object, digest: bytes | None) -> _Encoded | None:
        known = self._known.get(id(item))
        return known if known is not None and known.digest == digest else None


def _has_plain_keys(state: object) -> TypeGuard[dict[str, object]]:
    return _is_dict(state) and all(type(name) is str and clean_text(name) == name for name in state)


def _is_dict(state: object) -> TypeGuard[dict[object, object]]:
    return type(state) is dict
