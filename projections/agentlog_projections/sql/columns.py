"""Columns of a read model's table, declared once: its DDL, its statements and its rows are made from them."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TypeVar

import asyncpg

from agentlog_facts.json_value import Json, dump, load

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and the attribute of rows with the same name; `definition` is its SQL type with its constraints.

    `decode` makes the attribute from stored JSON text; without it a value is stored as it is. NULL is None.
    """

    name: str
    definition: str
    decode: Callable[[str], object] | None = None


class Columns:
    """Columns in order. A statement takes one array per column, so it writes any number of rows."""

    def __init__(self, *columns: Column) -> None:
        self._columns = columns
        self._names = [f'"{column.name}"' for column in columns]  # quoted: "values" is a word of SQL
        self._json = [number for number, column in enumerate(columns) if column.decode is not None]
        self._get = attrgetter(*(column.name for column in columns))

    @property
    def definitions(self) -> str:
        """Return the column definitions of CREATE TABLE, without the parentheses."""
        parts = zip(self._names, self._columns, strict=True)
        return ",\n    ".join(f"{name} {column.definition}" for name, column in parts)

    @property
    def names(self) -> str:
        """Return the list of names."""
        return ", ".join(self._names)

    @property
    def unnested(self) -> str:
        """Return the parameters $1, $2, ... as a table `r` with these columns."""
        types = [column.definition.split()[0] for column in self._columns]
        arrays = ", ".join(f"${number}::{type_}[]" for number, type_ in enumerate(types, 1))
        return f"unnest({arrays}) AS r({self.names})"

    def assigned(self, source: str) -> str:
        """Return the SET list that takes every column from the row `source`."""
        return ", ".join(f"{name} = {source}.{name}" for name in self._names)

    def arguments(self, rows: Collection[object], **instead: Sequence[object]) -> list[Sequence[object]]:
        """Return the arrays of `unnested` for rows; `instead` names columns whose array is given."""
        found = [*zip(*map(self._get, rows), strict=True)]
        arrays: list[Sequence[object]] = [*found]
        for number in self._json:
            arrays[number] = [encoded(value) for value in found[number]]
        for name, array in instead.items():
            arrays[[*self].index(name)] = array
        return arrays

    def read(self, make: Callable[..., R], stored: asyncpg.Record, **others: object) -> R:
        """Make an object from a stored row; `others` are attributes that are no columns, or that replace one."""
        found = {one.name: _value(one, stored[one.name]) for one in self._columns if one.name not in others}
        return make(**found, **others)

    def of(self, cls: type) -> "Columns":
        """Return the columns that are fields of a dataclass."""
        return self.only(*(field.name for field in fields(cls)))

    def only(self, *names: str) -> "Columns":
        """Return the columns of these names."""
        return Columns(*(column for column in self._columns if column.name in names))

    def without(self, *names: str) -> "Columns":
        """Return the columns of all other names."""
        return Columns(*(column for column in self._columns if column.name not in names))

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return (column.name for column in self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __add__(self, other: "Columns") -> "Columns":
        """Return these columns, then the other ones."""
        return Columns(*self._columns, *other._columns)


def _value(column: Column, stored: str | None) -> object:
    return stored if stored is None or column.decode is None else column.decode(stored)


def encoded(value: Json) -> str | None:
    """Return a value as JSON text; None stays None."""
    return None if value is None else dump(value).decode()


def texts(stored: str) -> tuple[str, ...]:
    """Return a stored list of texts."""
    value = load(stored)
    return tuple(str(item) for item in value) if isinstance(value, list) else ()
