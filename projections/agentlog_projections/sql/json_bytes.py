"""Weight of JSON in memory, for caches with a budget in bytes."""

from agentlog_facts.json_value import Json

STR_BYTES, CONTAINER_BYTES, ENTRY_BYTES, ITEM_BYTES = 56, 72, 90, 8
"""Approximate sizes in CPython: a string without its characters, an empty object or list, an entry of an object with
its key, an item of a list."""


def json_bytes(value: Json) -> int:
    """Return about how many bytes a JSON value takes in memory."""
    size, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            size += STR_BYTES + len(one)
        elif isinstance(one, dict):
            size += CONTAINER_BYTES + ENTRY_BYTES * len(one) + sum(map(len, one))
            left += one.values()
        elif isinstance(one, list):
            size += CONTAINER_BYTES + ITEM_BYTES * len(one)
            left += one
    return size
