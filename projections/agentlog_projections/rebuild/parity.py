"""Comparison of two sets of tables: counts and digests per table and partition, and the aggregates that differ.

A digest is the sum of two 64-bit hashes over the text of each row, so it needs no order. The comparison leaves
out data that the log does not determine: the owners of partitions, the number of failed retries, the index of blobs (a
cache), and deleted threads that the housekeeper may already have erased.
"""

import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from agentlog_postgres.connection import Connection
from agentlog_projections.queries.purge import ERASED
from agentlog_projections.rebuild.shadow_schema import LEDGER
from agentlog_projections.sql.read_model import ReadModel
from agentlog_projections.sql.schema import SCHEMA

_LEFT_OUT: Mapping[str, frozenset[str]] = {
    "positions": frozenset({"owner", "present", "stopped", "moved_at"}),
    "quarantine": frozenset({"attempts"}),
}
_LEDGER_TABLES = ("heads", "log_index", "positions", "quarantine")
_COLUMNS = """
SELECT column_name FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2 ORDER BY column_name
"""
_KEY = """
SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
 WHERE i.indrelid = $1::regclass AND i.indisprimary ORDER BY a.attname
"""
_SUMS = """
SELECT {partition} AS partition, count(*) AS rows,
       sum(hashtextextended({row}, 0)::numeric)::text || ' ' || sum(hashtextextended({row}, 1)::numeric)::text AS digest
  FROM {table} t {join} WHERE {kept} GROUP BY 1
"""
_ROWS = """
SELECT md5({key}) COLLATE "C" AS key, md5({row}) AS row, left({key}, 200) AS shown
  FROM {table} t {join} WHERE {kept} AND coalesce({partition}, -1) = ANY($2::int[]) ORDER BY 1
"""
_KEPT = """
NOT EXISTS (SELECT FROM {schema}.threads d WHERE d.thread_id = t.thread_id AND d.deleted_at < $1::timestamptz)
"""
UNKNOWN = -1
"""Partition of rows whose aggregate the ledger does not know."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Number and digest of rows."""

    rows: int
    digest: str


EMPTY = Sum(0, "")


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is compared. `columns` are those of both sides; `changed` is the reason why it cannot be."""

    name: str
    columns: Sequence[str] = ()
    changed: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """Differences of a table: rows missing among the live ones, surplus rows, rows with other contents."""

    table: str
    missing: int
    surplus: int
    changed: int
    first: str

    @property
    def rows(self) -> int:
        """Return how many rows differ."""
        return self.missing + self.surplus + self.changed


@dataclass(frozen=True, slots=True)
class Parity:
    """Result of a comparison; `live` and `anew` hold the sums by (table, partition)."""

    live: Mapping[tuple[str, int], Sum]
    anew: Mapping[tuple[str, int], Sum]
    tables: Sequence[Table]
    differences: Sequence[Difference] = field(default=())

    @property
    def equal(self) -> bool:
        """Tell whether all rows that can be compared are the same."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class Side:
    """One set of tables, and the connection that reads it inside a transaction."""

    connection: Connection
    suffix: str

    def qualified(self, table: str) -> str:
        """Return the full name of a table."""
        return f"{self.schema(table)}.{table}"

    def schema(self, table: str) -> str:
        """Return the schema of a table."""
        return (LEDGER if table in _LEDGER_TABLES else SCHEMA) + self.suffix


async def tables_of(live: Side, anew: Side, models: Sequence[ReadModel]) -> list[Table]:
    """Return all tables of ledger and models; those whose columns differ cannot be compared."""
    names = [*_LEDGER_TABLES, *(table for model in models for table in model.tables)]
    return [await _table(live, anew, name) for name in names]


async def _table(live: Side, anew: Side, name: str) -> Table:
    theirs, ours = await _columns(live, name), await _columns(anew, name)
    if not theirs:
        return Table(name, changed="the live rows lack it")
    if theirs != ours:
        return Table(name, changed=f"its columns change: {', '.join(sorted(set(theirs) ^ set(ours)))}")
    return Table(name, [column for column in ours if column not in _LEFT_OUT.get(name, ())])


async def _columns(side: Side, table: str) -> list[str]:
    return [row["column_name"] for row in await side.connection.fetch(_COLUMNS, side.schema(table), table)]


async def sums(
    side: Side, tables: Sequence[Table], partitions: Sequence[int], erased_before: datetime
) -> dict[tuple[str, int], Sum]:
    """Return the sums of all comparable tables, for these partitions and for rows of an unknown one.

    Threads deleted before `erased_before` are left out.
    """
    found: dict[tuple[str, int], Sum] = {}
    for table in tables:
        if table.changed is None:
            for row in await side.connection.fetch(_filled(_SUMS, side, table), erased_before):
                number = UNKNOWN if row["partition"] is None else row["partition"]
                if number not in {*partitions, UNKNOWN}:
                    continue
                text = f"{row['rows']} {row['digest']}".encode()
                found[table.name, number] = Sum(row["rows"], hashlib.sha256(text).hexdigest()[:16])
    return found


async def differences(live: Side, anew: Side, found: Parity, erased_before: datetime) -> list[Difference]:
    """Count the rows that differ, in the tables and partitions whose sums do."""
    differing: dict[str, list[int]] = {}
    for place in sorted(found.live.keys() | found.anew.keys()):
        if found.live.get(place, EMPTY) != found.anew.get(place, EMPTY):
            differing.setdefault(place[0], []).append(place[1])
    return [
        await _difference(live, anew, table, sorted({*differing[table.name], UNKNOWN}), erased_before)
        for table in found.tables
        if table.name in differing
    ]


async def _difference(
    live: Side, anew: Side, table: Table, partitions: Sequence[int], erased_before: datetime
) -> Difference:
    """Walk both sides in the order of their keys."""
    theirs, ours = (_rows(side, table, partitions, erased_before) for side in (live, anew))
    missing = surplus = changed = 0
    first = ""
    left, right = await anext(theirs, None), await anext(ours, None)
    while left is not None or right is not None:
        shown = (left or right or ("", "", ""))[2]
        if right is None or (left is not None and left[0] < right[0]):
            surplus, left = surplus + 1, await anext(theirs, None)
        elif left is None or right[0] < left[0]:
            shown = right[2]
            missing, right = missing + 1, await anext(ours, None)
        else:
            same = left[1] == right[1]
            left, right = await anext(theirs, None), await anext(ours, None)
            if same:
                continue
            changed += 1
        first = first or shown
    return Difference(table.name, missing, surplus, changed, first)


async def _rows(
    side: Side, table: Table, partitions: Sequence[int], erased_before: datetime
) -> AsyncGenerator[tuple[str, str, str]]:
    key = [row["attname"] for row in await side.connection.fetch(_KEY, side.qualified(table.name))]
    sql = _filled(_ROWS, side, table, key)
    async for row in side.connection.cursor(sql, erased_before, list(partitions), prefetch=1000):
        yield row["key"], row["row"], row["shown"]


def _filled(sql: str, side: Side, table: Table, key: Sequence[str] = ()) -> str:
    partition, join = _partition(side, table)
    kept = "$1::timestamptz IS NOT NULL"
    if table.name in ERASED:
        kept = _KEPT.format(schema=SCHEMA + side.suffix)
    row, named = _text(table.columns), _text(key)
    return sql.format(partition=partition, join=join, row=row, key=named, table=side.qualified(table.name), kept=kept)


def _partition(side: Side, table: Table) -> tuple[str, str]:
    """Return the expression for a row's partition, and the join it needs."""
    if "partition" in table.columns:
        return "t.partition", ""
    column = "thread_id" if "thread_id" in table.columns else "assistant_id"
    return "h.partition", f"LEFT JOIN {LEDGER}{side.suffix}.heads h ON h.key = t.{column}"


def _text(columns: Sequence[str]) -> str:
    names = ", ".join(f't."{column}"' for column in columns)
    return f"row({names})::text"
