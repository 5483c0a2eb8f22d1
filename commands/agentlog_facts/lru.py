"""Cache that drops the least recently used entries once they weigh too much."""

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """A mapping whose entries weigh at most `limit` together; a single entry may weigh more."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._weight = 0
        self._items: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return the value of a key, None if it is not cached, and mark it as used."""
        found = self._items.get(key)
        if found is None:
            return None
        self._items.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Store a value; drop the least recently used ones while all weigh too much."""
        old = self._items.pop(key, None)
        self._weight += weight - (old[1] if old else 0)
        self._items[key] = (value, weight)
        while self._weight > self._limit and len(self._items) > 1:
            self._weight -= self._items.popitem(last=False)[1][1]

    def pop(self, key: K) -> None:
        """Drop one value."""
        old = self._items.pop(key, None)
        self._weight -= old[1] if old else 0

    def clear(self) -> None:
        """Drop all values."""
        self._items.clear()
        self._weight = 0

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __len__(self) -> int:
        return len(self._items)
