"""Encoder of the states that a run streams one after the other: list items that did not change are not encoded again.

A state is streamed whole after each superstep, and most of it is a long list that has grown by an item. Pydantic's JSON
of a list is cheap, but it is not always the form of the API. So that form is made for new items only, and kept for
items that are the same objects with the same pydantic JSON: user code may change an object in place.
"""

from dataclasses import dataclass
from operator import is_
from typing import TypeGuard

from agentlog_facts.json_value import TooDeep, dump, dump_object
from agentlog_infra.langgraph.checkpoints.channel_codec import is_list
from agentlog_infra.langgraph.value_json import clean_text, pydantic_json, to_json_whole


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A list that was encoded: its items, their JSON by pydantic, and their JSON in the form of the API."""

    items: list[object]
    raw: bytes
    shown: bytes


class GrowingStateJson:
    """Encodes states; the result equals the JSON of `to_json_whole` with the same `most_levels`."""

    def __init__(self, most_levels: int) -> None:
        self._most_levels = most_levels
        self._lists: dict[str, _Encoded] = {}

    def encode(self, state: object) -> bytes:
        """Return a state as JSON. Raises: TooDeep."""
        if _has_plain_keys(state):
            try:
                return dump_object({name: self._value(name, value) for name, value in state.items()})
            except TooDeep:
                self._lists.clear()  # and let the error below name the levels of the whole state
        return dump(to_json_whole(state, self._most_levels))

    def _value(self, name: str, value: object) -> bytes:
        raw = pydantic_json(value) if is_list(value) else None
        if raw is None or not is_list(value):
            self._lists.pop(name, None)
            return self._whole(value)
        known = self._lists.get(name)
        shown = None if known is None else self._grown(known, value, raw)
        if shown is None:
            shown = self._whole(value)
        self._lists[name] = _Encoded(list(value), raw, raw if raw == shown else shown)
        return shown

    def _grown(self, known: _Encoded, value: list[object], raw: bytes) -> bytes | None:
        """Return the JSON of a list that begins with the known items, None for another list."""
        length, end = len(known.items), len(known.raw) - 1
        if not 0 < length <= len(value) or not raw.startswith(known.raw[:end]) or raw[end : end + 1] not in b",]":
            return None
        if not all(map(is_, known.items, value)):
            return None
        if length == len(value):
            return known.shown
        return known.shown[:-1] + b"," + self._whole(value[length:])[1:]

    def _whole(self, value: object) -> bytes:
        return dump(to_json_whole(value, self._most_levels - 1))


def _has_plain_keys(state: object) -> TypeGuard[dict[str, object]]:
    return _is_dict(state) and all(type(name) is str and clean_text(name) == name for name in state)


def _is_dict(state: object) -> TypeGuard[dict[object, object]]:
    return type(state) is dict
