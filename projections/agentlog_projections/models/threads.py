"""Read model `threads`: one row a thread, folded by `thread_fold`, and its queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

import asyncpg

from agentlog_facts.ids import Key, ThreadId
from agentlog_facts.json_value import Json, JsonObject, load_object
from agentlog_facts.lru import Lru
from agentlog_facts.thread import ThreadCreated
from agentlog_postgres.connection import Pool, reading
from agentlog_projections.models.thread_fold import Activity, Change, ThreadRow, fold, moves_view
from agentlog_projections.sql.batch import Transaction
from agentlog_projections.sql.cache_shares import cache_shares
from agentlog_projections.sql.columns import Column, Columns, texts
from agentlog_projections.sql.json_bytes import json_bytes
from agentlog_projections.sql.read_model import Commit, by_key
from agentlog_projections.sql.schema import (
    PRELUDE,
    alternatives,
    contained,
    contains,
    has_lists,
    listed,
    matches_none,
    searchable,
)

ROW_BYTES = 2048
"""Weight of a cached row without its JSON."""

SortBy = Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"]


def _activities(stored: str) -> dict[str, Activity]:
    return {name: _activity(value) for name, value in load_object(stored).items()}


def _activity(stored: Json) -> Activity:
    match stored:
        case "interrupt" | "rollback":
            return stored
        case _:
            return bool(stored)


COLUMNS = Columns(
    Column("thread_id", "text PRIMARY KEY"),
    Column("partition", "int NOT NULL"),
    Column("created_at", "timestamptz NOT NULL"),
    Column("updated_at", "timestamptz NOT NULL"),
    Column("state_updated_at", "timestamptz NOT NULL"),
    Column("metadata", "json NOT NULL", load_object),
    Column("status", "text NOT NULL"),
    Column("config", "json NOT NULL", load_object),
    Column("values", "json"),  # as text: most batches neither read nor write it
    Column("error", "json", load_object),
    Column("interrupts", "json NOT NULL", load_object),
    Column("next", "json NOT NULL", texts),
    Column("last_run_id", "text"),
    Column("version", "bigint NOT NULL"),
    Column("meta_version", "bigint"),
    Column("temporary", "bool NOT NULL"),
    Column("deleted_at", "timestamptz"),
    Column("active", "json NOT NULL", _activities),
    Column("ttl", "json", load_object),
    Column("expires_at", "timestamptz"),
    Column("ordinal", "bigint NOT NULL"),
)
"""Columns of `ThreadRow`; those that `Thread` names are shown."""
_KEPT = COLUMNS.without("values")
_STAMPS = COLUMNS.only("thread_id", "version", "meta_version", "active", "ordinal")
_LOAD = f"""
SELECT {_KEPT.names}, CASE WHEN thread_id = ANY($2::text[]) THEN "values" END AS "values"
  FROM read_v1.threads WHERE thread_id = ANY($1::text[])
"""
_META_VERSIONS = """
SELECT key AS made_again, max(version) AS version FROM ledger.log_index
 WHERE key = ANY($1::text[]) AND stream = 'meta-' || key AND verdict = 'accepted' GROUP BY key
"""
_WRITE = f"""
INSERT INTO read_v1.threads AS t ({COLUMNS.names})
SELECT {COLUMNS.names} FROM {COLUMNS.unnested}
ON CONFLICT (thread_id) DO UPDATE SET {_KEPT.without("thread_id").assigned("excluded")},
       "values" = CASE WHEN excluded.thread_id = ANY(${len(COLUMNS) + 1}::text[]) THEN excluded."values"
                       ELSE t."values" END
"""
# By ctid: see `runs`.
_STAMP = f"""
UPDATE read_v1.threads t SET {_STAMPS.without("thread_id").assigned("r")}
  FROM {_STAMPS.unnested},
       LATERAL (SELECT ctid AS at FROM read_v1.threads o WHERE o.thread_id = r.thread_id LIMIT 1) o
 WHERE t.ctid = o.at
"""


class ThreadsModel:
    """Folds threads."""

    name: ClassVar[str] = "threads"
    version: ClassVar[int] = 2
    tables: ClassVar[tuple[str, ...]] = ("threads",)
    ddl: ClassVar[str] = f"""{PRELUDE}
CREATE TABLE IF NOT EXISTS read_v1.threads (
    {COLUMNS.definitions}
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS threads_updated ON read_v1.threads (updated_at, thread_id) WHERE deleted_at IS NULL;
CREATE INDEX IF NOT EXISTS threads_expire ON read_v1.threads (expires_at)
    WHERE deleted_at IS NULL AND expires_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS threads_metadata ON read_v1.threads
    USING gin (read_v1.searchable(metadata) jsonb_path_ops) WHERE deleted_at IS NULL;
"""

    def __init__(self, cache_bytes: int = cache_shares().threads) -> None:
        self._rows: Lru[str, ThreadRow] = Lru(cache_bytes)

    def forget(self) -> None:
        """Drop all cached rows."""
        self._rows.clear()

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        """Collect one row per touched thread."""
        groups = by_key([commit for commit in batch if commit.draft.stream.startswith(("thread-", "meta-"))])
        rows = await self._load(tx, groups)
        purged = await _purged_versions(tx, groups, rows)
        changed: list[ThreadRow] = []
        for key, commits in groups.items():
            row = rows.get(key)
            for commit in commits:
                row = fold(row, commit, purged.get(key))
            if row is not None and row.change is not Change.NOTHING:
                changed.append(row)
        self._write(tx, changed)

    async def _load(self, tx: Transaction, groups: Mapping[Key, Sequence[Commit]]) -> dict[str, ThreadRow]:
        rows: dict[str, ThreadRow] = {}
        missing: list[str] = []
        moved: list[str] = []
        for key, commits in groups.items():
            if commits[0].ordinal == 0:
                continue  # nothing was accepted of this aggregate before
            row = self._rows.get(key)
            moves = any(moves_view(fact) for commit in commits for fact in commit.draft.facts)
            if row is None or (moves and not row.loaded):
                missing.append(key)
                if moves:
                    moved.append(key)
            else:
                rows[key] = row
        if missing:
            for found in await tx.fetch(_LOAD, missing, moved):
                rows[found["thread_id"]] = COLUMNS.read(ThreadRow, found, loaded=found["thread_id"] in moved)
        return rows

    def _write(self, tx: Transaction, changed: Sequence[ThreadRow]) -> None:
        rows = [row for row in changed if row.change > Change.STAMPS]
        if rows:
            whole = [row.thread_id for row in rows if row.change is Change.VALUES]
            values = [row.values if row.change is Change.VALUES else None for row in rows]
            tx.write(_WRITE, *COLUMNS.arguments(rows, values=values), whole)
        stamps = [row for row in changed if row.change is Change.STAMPS]
        if stamps:
            tx.write(_STAMP, *_STAMPS.arguments(stamps))
        for row in changed:
            row.change = Change.NOTHING
            self._rows.put(row.thread_id, row, row_bytes(row))


async def _purged_versions(
    tx: Transaction, groups: Mapping[Key, Sequence[Commit]], rows: Mapping[str, ThreadRow]
) -> dict[str, int]:
    """Return the versions of `meta-` of ids that are used again after the row of their thread was purged."""
    again = [
        key
        for key, commits in groups.items()
        if commits[0].ordinal > 0
        and key not in rows
        and any(isinstance(fact, ThreadCreated) for commit in commits for fact in commit.draft.facts)
    ]
    if not again:
        return {}
    return {found["made_again"]: found["version"] for found in await tx.fetch(_META_VERSIONS, again)}


def row_bytes(row: ThreadRow) -> int:
    """Return about how many bytes a row takes in memory."""
    parts = (row.metadata, row.config, row.interrupts, row.error)
    return ROW_BYTES + len(row.values or "") + sum(map(json_bytes, parts))


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as the API shows it, with the versions that deciders need: those of `thread-` and of `meta-`.

    `values` is None before the first state; `last_run_id` names the run whose end last moved it.
    """

    thread_id: ThreadId
    partition: int
    created_at: datetime
    updated_at: datetime
    state_updated_at: datetime
    metadata: JsonObject
    status: str
    config: JsonObject
    values: JsonObject | None
    error: JsonObject | None
    interrupts: JsonObject
    next: tuple[str, ...]
    last_run_id: str | None
    version: int
    meta_version: int | None
    temporary: bool
    ttl: JsonObject | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ThreadText:
    """A thread whose values are JSON text, as they are stored; its `thread.values` is None.

    `size_bytes` is the length of the text, None if the thread has no state or it was not asked for. `values` is None
    too if the text is longer than the query wanted.
    """

    thread: Thread
    values: bytes | None
    size_bytes: int | None

    @property
    def left_out(self) -> bool:
        """Return whether there are values that were not read."""
        return self.values is None and self.size_bytes is not None


@dataclass(frozen=True, slots=True)
class ThreadFilter:
    """Filter of threads: empty `ids` means any id; `metadata` and `values` by containment, their lists whole.

    Threads whose metadata match one of `exclude_metadata` are left out; an empty one of these matches none.
    """

    ids: tuple[str, ...] = ()
    metadata: JsonObject | None = None
    values: JsonObject | None = None
    status: str | None = None
    exclude_metadata: tuple[JsonObject, ...] = ()


_SHOWN = COLUMNS.of(Thread)


class Threads:
    """Queries on threads, without deleted ones. All raise Unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, thread_id: ThreadId, *, with_values: bool = True) -> Thread | None:
        """Return a thread; `with_values=False` avoids reading a large state."""
        shown = f"SELECT {_SHOWN.names}" if with_values else f'{_WITHOUT}, NULL::json AS "values"'
        sql = f"{shown} FROM read_v1.threads WHERE thread_id = $1 AND deleted_at IS NULL"
        async with reading(self._pool, "threads.get") as connection:
            row = await connection.fetchrow(sql, thread_id)
        return None if row is None else _thread(row)

    async def settled(self, thread_id: ThreadId) -> tuple[Thread, int] | None:
        """Return a thread, and the end of what its values show: the place of the first fact that is not part of it.

        That is the first checkpoint or write of a run that has not ended, or else the end of all facts.
        """
        async with reading(self._pool, "threads.settled") as connection:
            row = await connection.fetchrow(_SETTLED, thread_id)
        return None if row is None else (_thread(row), row["settled"])

    async def text(self, thread_id: ThreadId) -> ThreadText | None:
        """Return a thread with its values as text, whatever their size."""
        sql = f"{_TEXT} FROM read_v1.threads WHERE thread_id = $2 AND deleted_at IS NULL"
        async with reading(self._pool, "threads.text") as connection:
            row = await connection.fetchrow(sql, None, thread_id)
        return None if row is None else _text(row)

    async def search(
        self,
        where: ThreadFilter,
        *,
        sort_by: SortBy,
        descending: bool,
        limit: int,
        offset: int,
        with_values: bool,
        longest: int,
    ) -> list[ThreadText]:
        """Return matching threads; ties are broken by thread_id.

        Values are text of at most `longest` bytes; longer ones are left out.
        """
        arguments, conditions = _conditions(where)
        shown = f"{_WITHOUT}, NULL::int AS size, NULL::bytea AS text"
        if with_values:
            arguments.append(longest)
            shown = _TEXT.replace("$1", f"${len(arguments)}")
        page = f"LIMIT ${len(arguments) + 1} OFFSET ${len(arguments) + 2}"
        sql = f"{shown} {conditions} ORDER BY {_order(sort_by, descending=descending)} {page}"
        async with reading(self._pool, "threads.search") as connection:
            rows = await connection.fetch(sql, *arguments, limit, offset)
        return [_text(row) for row in rows]

    async def count(self, where: ThreadFilter) -> int:
        """Return the number of matching threads."""
        arguments, conditions = _conditions(where)
        async with reading(self._pool, "threads.count") as connection:
            found: int = await connection.fetchval(f"SELECT count(*) {conditions}", *arguments)
        return found


_SETTLED = f"""
SELECT {_SHOWN.names},
       least(ordinal, (SELECT min(f.seq) FROM read_v1.runs r, LATERAL (
           SELECT c.seq FROM read_v1.checkpoints c WHERE c.thread_id = r.thread_id AND c.run_id = r.run_id
           UNION ALL
           SELECT w.seq FROM read_v1.writes w WHERE w.thread_id = r.thread_id AND w.run_id = r.run_id) f
         WHERE r.thread_id = $1 AND r.status IN ('pending', 'running'))) AS settled
  FROM read_v1.threads WHERE thread_id = $1 AND deleted_at IS NULL
"""
_WITHOUT = f"SELECT {_SHOWN.without('values').names}"
_TEXT = f"""{_WITHOUT}, octet_length("values"::text) AS size,
       CASE WHEN $1::int IS NULL OR octet_length("values"::text) <= $1::int
            THEN convert_to("values"::text, 'UTF8') END AS text"""


def _order(sort_by: SortBy, *, descending: bool) -> str:
    way = "DESC" if descending else "ASC"
    return f"{sort_by} {way}" if sort_by == "thread_id" else f"{sort_by} {way}, thread_id {way}"


def _conditions(where: ThreadFilter) -> tuple[list[object], str]:
    """Return the arguments and the SQL from FROM on, with a condition for each field that is set.

    A condition that is always there, but for a null parameter, would keep PostgreSQL from using an index.
    """
    arguments: list[object] = []
    conditions = ["deleted_at IS NULL"]

    def given(value: object) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    if where.ids:
        conditions.append(f"thread_id = ANY({given([*where.ids])}::text[])")
    if where.status is not None:
        conditions.append(f"status = {given(where.status)}")
    for stored, wanted in ((_METADATA, where.metadata), (_VALUES, where.values)):
        if wanted:
            conditions.append(contains(stored, given(contained(wanted))))
            if (lists := listed(wanted)) is not None:
                conditions.append(has_lists(stored, given(lists)))
    if unwanted := [one for one in where.exclude_metadata if one]:
        conditions.append(matches_none(_METADATA, given(alternatives(unwanted))))
    return arguments, f"FROM read_v1.threads t WHERE {' AND '.join(conditions)}"


_METADATA, _VALUES = "read_v1.searchable(metadata)", searchable('"values"')


def _thread(row: asyncpg.Record) -> Thread:
    return _SHOWN.read(Thread, row, values=None if row["values"] is None else load_object(row["values"]))


def _text(row: asyncpg.Record) -> ThreadText:
    return ThreadText(_SHOWN.read(Thread, row, values=None), row["text"], row["size"])
