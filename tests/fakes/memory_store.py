"""In-memory store: implements `StoreAccess` by folding facts in the order of their arrival."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeGuard

from agentlog_facts.envelope import Cause
from agentlog_facts.errors import Quarantined
from agentlog_facts.json_value import Json
from agentlog_facts.store import StoreItemDeleted, StoreItemFact
from agentlog_facts.store_ports import Comparison, Condition, Namespace, StoredItem
from agentlog_facts.vocabulary import decode_fact, encode_fact

_ORDERS: dict[Comparison, Callable[[float, float], bool]] = {
    "$gt": lambda a, b: a > b,
    "$gte": lambda a, b: a >= b,
    "$lt": lambda a, b: a < b,
    "$lte": lambda a, b: a <= b,
}


class MemoryStore:
    """Facts as they were written, and the items that follow from them."""

    def __init__(self) -> None:
        self.facts: list[StoreItemFact] = []
        self.causes: list[Cause] = []
        self.quarantined: set[Namespace] = set()
        self._items: dict[tuple[Namespace, str], StoredItem] = {}

    def fold(self, fact: StoreItemFact, at: datetime) -> None:
        place = (fact.namespace, fact.key)
        if isinstance(fact, StoreItemDeleted):
            self._items.pop(place, None)
            return
        old = self._items.pop(place, None)  # so that the last item put comes last
        new = StoredItem(*place, fact.value, at, at)
        self._items[place] = new if old is None else replace(new, created_at=old.created_at)

    async def write(self, facts: Sequence[StoreItemFact], cause: Cause) -> None:
        for fact in facts:
            carried = decode_fact(encode_fact(fact))
            assert carried == fact
            self.facts.append(fact)
            self.causes.append(cause)
            self.fold(fact, datetime.now(UTC))

    async def check_writable(self, namespace: Namespace, partition: int) -> None:
        if namespace in self.quarantined:
            raise Quarantined(f"store {list(namespace)}: in quarantine")

    async def item(self, namespace: Namespace, key: str) -> StoredItem | None:
        return self._items.get((namespace, key))

    async def search(
        self, prefix: Namespace, where: Sequence[Condition], limit: int, offset: int
    ) -> Sequence[StoredItem]:
        under = [one for one in reversed(self._items.values()) if one.namespace[: len(prefix)] == prefix]
        return [one for one in under if all(_holds(one, condition) for condition in where)][offset:][:limit]

    async def namespaces(
        self,
        prefixes: Sequence[Namespace],
        suffixes: Sequence[Namespace],
        max_depth: int | None,
        limit: int,
        offset: int,
    ) -> Sequence[Namespace]:
        found = {
            namespace[:max_depth]
            for namespace, _ in self._items
            if all(_begins(namespace, path) for path in prefixes)
            and all(_begins(namespace[::-1], path[::-1]) for path in suffixes)
        }
        return sorted(found)[offset:][:limit]


def _begins(namespace: Namespace, path: Namespace) -> bool:
    fits = all(label in ("*", found) for found, label in zip(namespace, path, strict=False))
    return fits and len(path) <= len(namespace)


def _holds(item: StoredItem, condition: Condition) -> bool:
    held, wanted = item.value.get(condition.field), condition.value
    match condition.comparison:
        case "$eq":
            return condition.field in item.value and _same(held, wanted)
        case "$ne":
            return condition.field in item.value and not _same(held, wanted)
        case order:
            numbers = [value for value in (held, wanted) if _is_number(value)]
            return len(numbers) == 2 and _ORDERS[order](*numbers)


def _same(one: Json, other: Json) -> bool:
    """Compare as JSON does: 1 and 1.0 are the same number, and true is no number."""
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
        case list(), list():
            return len(one) == len(other) and all(map(_same, one, other))
        case _:
            return isinstance(one, bool) == isinstance(other, bool) and one == other


def _is_number(value: Json) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
