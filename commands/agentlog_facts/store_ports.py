"""Ports to the store (items, searches under a prefix, namespaces), and the checks of their arguments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Protocol, TypeAlias, get_args

from pydantic_core import to_json

from agentlog_facts.envelope import Cause
from agentlog_facts.json_value import Json, JsonObject, as_object, load_value
from agentlog_facts.store import StoreItemFact

Namespace: TypeAlias = tuple[str, ...]
Comparison: TypeAlias = Literal["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]
COMPARISONS: Mapping[str, Comparison] = {name: name for name in get_args(Comparison)}

MOST_KEY_BYTES = 2_000
MOST_NAMESPACE_BYTES = 2_000
_LABEL_BYTES = 8
"""Bytes that a label takes besides its text."""
_MOST_ROWS = 2**63 - 1
_MOST_DEPTH = 2**31 - 1


class BadItem(ValueError):
    """The caller gave a namespace, key, value or filter that the store does not accept; nothing was written."""


class UnsupportedOperator(BadItem):
    """A filter has an operator that the store does not know."""


@dataclass(frozen=True, slots=True)
class StoredItem:
    """Item with its present value; `updated_at` is the time of its last put."""

    namespace: Namespace
    key: str
    value: JsonObject
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Condition:
    """Condition on a top-level field of the value, which an item without the field never meets.

    `$gt`, `$gte`, `$lt` and `$lte` compare numbers only.
    """

    field: str
    comparison: Comparison
    value: Json


def conditions(wanted: JsonObject | None) -> list[Condition]:
    """Return the conditions of a filter {field: value} or {field: {operator: value}}. Raises: BadItem.

    Source: docs/http-api.md, section 16.
    """
    found: list[Condition] = []
    for field, value in (wanted or {}).items():
        if isinstance(value, dict) and any(name.startswith("$") for name in value):
            found += [Condition(field, _comparison(name), operand) for name, operand in value.items()]
        else:
            found.append(Condition(field, "$eq", value))
    found = [replace(one, value=_checked_operand(one)) for one in found]
    for one in found:
        number = isinstance(one.value, int | float) and not isinstance(one.value, bool)
        if one.comparison not in ("$eq", "$ne") and not number:
            raise BadItem(f"filter {one.field}: {one.comparison} compares numbers, found {type(one.value).__name__}")
    return found


def _comparison(name: str) -> Comparison:
    found = COMPARISONS.get(name)
    if found is None:
        raise UnsupportedOperator(f"Unsupported operator: {name}")
    return found


def _checked_operand(condition: Condition) -> Json:
    """Return the value of a condition as rows hold it. Raises: BadItem."""
    name = _field_name(condition.field)
    return checked_value({name: condition.value})[name]


def _field_name(name: object) -> str:
    if not isinstance(name, str):
        raise BadItem(f"filter: expected names of fields, found {type(name).__name__}")
    return name


def check_paths(*paths: Namespace) -> None:
    """Check that prefixes and suffixes of namespaces are Unicode text. Raises: BadItem."""
    for label in (label for path in paths for label in path):
        _size_bytes(label)


def check_page(limit: int, offset: int) -> None:
    """Check that the limit and the offset of a page fit into 64 bits and are not negative. Raises: BadItem."""
    for name, number in (("limit", limit), ("offset", offset)):
        if not 0 <= number <= _MOST_ROWS:
            raise BadItem(f"store: expected a {name} of 0 to {_MOST_ROWS}, found {number}")


def check_depth(max_depth: int | None) -> None:
    """Check that a depth fits into 32 bits and is not negative. Raises: BadItem."""
    if max_depth is not None and not 0 <= max_depth <= _MOST_DEPTH:
        raise BadItem(f"store: expected a max_depth of 0 to {_MOST_DEPTH}, found {max_depth}")


def check_place(namespace: Namespace, key: str) -> None:
    """Check that rows can hold an item of this namespace and key. Raises: BadItem."""
    if "\0" in key or any("\0" in label for label in namespace):
        raise BadItem("store: names cannot contain NUL")
    of_key = _size_bytes(key)
    of_namespace = sum(_size_bytes(label) + _LABEL_BYTES for label in namespace)
    if of_key > MOST_KEY_BYTES:
        raise BadItem(f"store: expected a key of at most {MOST_KEY_BYTES} bytes, found {of_key}")
    if of_namespace > MOST_NAMESPACE_BYTES:
        raise BadItem(f"store: expected a namespace of at most {MOST_NAMESPACE_BYTES} bytes, found {of_namespace}")


def _size_bytes(name: str) -> int:
    try:
        return len(name.encode())
    except UnicodeEncodeError as error:
        raise BadItem(f"store: a name is not Unicode text: {error}") from error


def checked_value(value: object) -> JsonObject:
    """Return a value as the log holds it. Raises: BadItem unless it is a JSON object of permitted depth."""
    if not isinstance(value, Mapping):
        raise BadItem(f"store: expected an object as value, found {type(value).__name__}")
    try:
        data = to_json(value, inf_nan_mode="null")
        return as_object(load_value(data))
    except (ValueError, RecursionError) as error:
        raise BadItem(f"store: a value is not JSON that the log can hold: {error}") from error


class StoreReads(Protocol):
    """Reads of the store. Each raises Unavailable when the database does not answer or its rows are being built."""

    async def item(self, namespace: Namespace, key: str) -> StoredItem | None:
        """Return an item, None if there is none."""
        ...

    async def search(
        self, prefix: Namespace, where: Sequence[Condition], limit: int, offset: int
    ) -> Sequence[StoredItem]:
        """Return items of namespaces that begin with `prefix`, latest put first."""
        ...

    async def namespaces(
        self,
        prefixes: Sequence[Namespace],
        suffixes: Sequence[Namespace],
        max_depth: int | None,
        limit: int,
        offset: int,
    ) -> Sequence[Namespace]:
        """Return the distinct namespaces that have items, in order, cut to `max_depth` labels.

        A label `*` of a prefix or suffix matches any label.
        """
        ...


class StoreRows(StoreReads, Protocol):
    """Reads of the store, and the check before a write."""

    async def check_writable(self, namespace: Namespace, partition: int) -> None:
        """Check that puts of a namespace, whose aggregate lies in `partition`, become visible.

        Raises: Quarantined if its items wait in quarantine; Unavailable if the rows cannot tell.
        """
        ...


class StoreWrites(Protocol):
    """Writes of the store."""

    async def write(self, facts: Sequence[StoreItemFact], cause: Cause) -> None:
        """Append the facts, in one commit per namespace if a record can hold them.

        When this returns, they are accepted and projected.

        Raises: Unavailable; Quarantined, and nothing is written, if a namespace is in quarantine.
        """
        ...


class StoreAccess(StoreReads, StoreWrites, Protocol):
    """Store for the code of runs, to be called from any event loop."""
