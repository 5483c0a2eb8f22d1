"""The read model `threads`: one row a thread, how facts change it (see `thread_rows`), and the questions it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

import asyncpg

from agentlog_facts.ids import Key, ThreadId
from agentlog_facts.json_value import JsonObject, dump, load, load_object
from agentlog_projections.models.thread_fold import Change, ThreadRow, fold, moves_view
from agentlog_projections.sql.batch import Transaction
from agentlog_projections.sql.database import Pool, reading
from agentlog_projections.sql.lru import Lru
from agentlog_projections.sql.read_model import Commit, by_key
from agentlog_projections.sql.schema import PRELUDE, contained

REMEMBERED_BYTES = 64 * 1024 * 1024
ROW_BYTES = 2048
"""What a remembered row weighs beside its values."""

SortBy = Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"]

_LOAD = """
SELECT thread_id, partition, created_at, updated_at, state_updated_at, metadata, status, config, error, interrupts,
       next, last_run_id, version, meta_version, temporary, deleted_at, active, ordinal,
       CASE WHEN thread_id = ANY($2::text[]) THEN "values" END AS "values"
  FROM read_v1.threads WHERE thread_id = ANY($1::text[])
"""
_WRITE = """
INSERT INTO read_v1.threads AS t (
       thread_id, partition, created_at, updated_at, state_updated_at, metadata, status, config, "values", error,
       interrupts, next, last_run_id, version, meta_version, temporary, deleted_at, active, ordinal)
SELECT thread_id, partition, created_at, updated_at, state_updated_at, metadata, status, config, "values", error,
       interrupts, next, last_run_id, version, meta_version, temporary, deleted_at, active, ordinal
  FROM unnest($1::text[], $2::int[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::json[], $7::text[],
              $8::json[], $9::json[], $10::json[], $11::json[], $12::json[], $13::text[], $14::bigint[], $15::bigint[],
              $16::bool[], $17::timestamptz[], $18::json[], $19::bigint[])
       AS r(thread_id, partition, created_at, updated_at, state_updated_at, metadata, status, config, "values", error,
            interrupts, next, last_run_id, version, meta_version, temporary, deleted_at, active, ordinal)
ON CONFLICT (thread_id) DO UPDATE SET
       partition = excluded.partition, created_at = excluded.created_at, updated_at = excluded.updated_at,
       state_updated_at = excluded.state_updated_at, metadata = excluded.metadata, status = excluded.status,
       config = excluded.config, error = excluded.error, interrupts = excluded.interrupts, next = excluded.next,
       last_run_id = excluded.last_run_id, version = excluded.version, meta_version = excluded.meta_version,
       temporary = excluded.temporary, deleted_at = excluded.deleted_at, active = excluded.active,
       ordinal = excluded.ordinal,
       "values" = CASE WHEN excluded.thread_id = ANY($20::text[]) THEN excluded."values" ELSE t."values" END
"""
_MARKS = """
UPDATE read_v1.threads t SET version = r.version, meta_version = r.meta_version, active = r.active, ordinal = r.ordinal
  FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::json[], $5::bigint[])
       AS r(thread_id, version, meta_version, active, ordinal),
       LATERAL (SELECT ctid AS at FROM read_v1.threads o WHERE o.thread_id = r.thread_id LIMIT 1) o
 WHERE t.ctid = o.at
"""


class ThreadsModel:
    """Folds threads."""

    name: ClassVar[str] = "threads"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[str, ...]] = ("threads",)
    ddl: ClassVar[str] = f"""{PRELUDE}
CREATE TABLE IF NOT EXISTS read_v1.threads (
    thread_id text PRIMARY KEY, partition int NOT NULL, created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL, state_updated_at timestamptz NOT NULL,
    metadata json NOT NULL, status text NOT NULL, config json NOT NULL,
    "values" json, error json, interrupts json NOT NULL, next json NOT NULL, last_run_id text, version bigint NOT NULL,
    meta_version bigint, temporary bool NOT NULL, deleted_at timestamptz, active json NOT NULL, ordinal bigint NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS threads_updated ON read_v1.threads (updated_at, thread_id) WHERE deleted_at IS NULL;
CREATE INDEX IF NOT EXISTS threads_metadata ON read_v1.threads
    USING gin (read_v1.searchable(metadata) jsonb_path_ops) WHERE deleted_at IS NULL;
"""

    def __init__(self) -> None:
        self._rows: Lru[str, ThreadRow] = Lru(REMEMBERED_BYTES)

    def forget(self) -> None:
        """Drop what is remembered of rows."""
        self._rows.clear()

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        """Collect one row per touched thread."""
        groups = by_key([commit for commit in batch if commit.draft.stream.startswith(("thread-", "meta-"))])
        rows = await self._load(tx, groups)
        changed: list[ThreadRow] = []
        for key, commits in groups.items():
            row = rows.get(key)
            for commit in commits:
                row = fold(row, commit)
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
            loaded = [_loaded(found, moved) for found in await tx.fetch(_LOAD, missing, moved)]
            rows |= {row.thread_id: row for row in loaded}
        return rows

    def _write(self, tx: Transaction, changed: Sequence[ThreadRow]) -> None:
        rows = [row for row in changed if row.change > Change.MARKS]
        if rows:
            whole = [row.thread_id for row in rows if row.change is Change.VALUES]
            tx.write(_WRITE, *zip(*(_arguments(row) for row in rows), strict=True), whole)
        marks = [row for row in changed if row.change is Change.MARKS]
        if marks:
            tx.write(_MARKS, *zip(*(_marks(row) for row in marks), strict=True))
        for row in changed:
            row.change = Change.NOTHING
            self._rows.put(row.thread_id, row, ROW_BYTES + len(row.values_json or ""))


def _loaded(found: asyncpg.Record, moved: Sequence[str]) -> ThreadRow:
    return ThreadRow(
        thread_id=found["thread_id"],
        partition=found["partition"],
        created_at=found["created_at"],
        updated_at=found["updated_at"],
        state_updated_at=found["state_updated_at"],
        metadata=load_object(found["metadata"]),
        temporary=found["temporary"],
        status=found["status"],
        config=load_object(found["config"]),
        values_json=found["values"],
        error=None if found["error"] is None else load_object(found["error"]),
        interrupts=load_object(found["interrupts"]),
        next=_texts(found["next"]),
        last_run_id=found["last_run_id"],
        version=found["version"],
        meta_version=found["meta_version"],
        deleted_at=found["deleted_at"],
        active={run_id: bool(ran) for run_id, ran in load_object(found["active"]).items()},
        ordinal=found["ordinal"],
        loaded=found["thread_id"] in moved,
    )


def _texts(stored: str) -> tuple[str, ...]:
    value = load(stored)
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _arguments(row: ThreadRow) -> tuple[object, ...]:
    return (
        row.thread_id,
        row.partition,
        row.created_at,
        row.updated_at,
        row.state_updated_at,
        dump(row.metadata).decode(),
        row.status,
        dump(row.config).decode(),
        row.values_json if row.change is Change.VALUES else None,
        None if row.error is None else dump(row.error).decode(),
        dump(row.interrupts).decode(),
        dump(list(row.next)).decode(),
        row.last_run_id,
        row.version,
        row.meta_version,
        row.temporary,
        row.deleted_at,
        _active(row),
        row.ordinal,
    )


def _marks(row: ThreadRow) -> tuple[object, ...]:
    return row.thread_id, row.version, row.meta_version, _active(row), row.ordinal


def _active(row: ThreadRow) -> str:
    return dump(dict(row.active.items())).decode()


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as the API shows it, with what deciders need: `version` of `thread-`, `meta_version` of `meta-`.

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
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True)
class ThreadFilter:
    """Which threads: empty `ids` is no filter; `metadata` and `values` by containment."""

    ids: tuple[str, ...] = ()
    metadata: JsonObject | None = None
    values: JsonObject | None = None
    status: str | None = None


_COLUMNS = """thread_id, partition, created_at, updated_at, state_updated_at, metadata, status, config, error,
interrupts, next, last_run_id, version, meta_version, temporary, deleted_at"""
_FILTER = """
  FROM read_v1.threads t WHERE deleted_at IS NULL
   AND (cardinality($1::text[]) = 0 OR thread_id = ANY($1::text[]))
   AND ($2::jsonb IS NULL OR read_v1.searchable(metadata) @> $2::jsonb)
   AND ($3::text IS NULL OR status = $3)
   AND ($4::jsonb IS NULL OR ("values" IS NOT NULL AND read_v1.searchable("values") @> $4::jsonb))
"""


class Threads:
    """Questions about threads; deleted ones show only with `include_deleted`. All raise Unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(
        self, thread_id: ThreadId, *, include_deleted: bool = False, with_values: bool = True
    ) -> Thread | None:
        """Return a thread; `with_values=False` spares reading a large state."""
        values = '"values"' if with_values else 'NULL::json AS "values"'
        sql = f"SELECT {_COLUMNS}, {values} FROM read_v1.threads WHERE thread_id = $1 AND ($2 OR deleted_at IS NULL)"
        async with reading(self._pool, "threads.get") as connection:
            row = await connection.fetchrow(sql, thread_id, include_deleted)
        return None if row is None else _thread(row)

    async def search(
        self,
        where: ThreadFilter,
        *,
        sort_by: SortBy = "updated_at",
        descending: bool = True,
        limit: int = 10,
        offset: int = 0,
        with_values: bool = True,
    ) -> list[Thread]:
        """Return matching threads; ties are broken by thread_id."""
        values = '"values"' if with_values else 'NULL::json AS "values"'
        way = "DESC" if descending else "ASC"
        order = f"{sort_by} {way}" if sort_by == "thread_id" else f"{sort_by} {way}, thread_id {way}"
        sql = f"SELECT {_COLUMNS}, {values} {_FILTER} ORDER BY {order} LIMIT $5 OFFSET $6"
        async with reading(self._pool, "threads.search") as connection:
            rows = await connection.fetch(sql, *_wanted(where), limit, offset)
        return [_thread(row) for row in rows]

    async def count(self, where: ThreadFilter) -> int:
        """Count matching threads."""
        async with reading(self._pool, "threads.count") as connection:
            found: int = await connection.fetchval(f"SELECT count(*) {_FILTER}", *_wanted(where))
        return found


def _wanted(where: ThreadFilter) -> tuple[object, ...]:
    return list(where.ids), contained(where.metadata), where.status, contained(where.values)


def _thread(row: asyncpg.Record) -> Thread:
    return Thread(
        thread_id=ThreadId(row["thread_id"]),
        partition=row["partition"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        state_updated_at=row["state_updated_at"],
        metadata=load_object(row["metadata"]),
        status=row["status"],
        config=load_object(row["config"]),
        values=None if row["values"] is None else load_object(row["values"]),
        error=None if row["error"] is None else load_object(row["error"]),
        interrupts=load_object(row["interrupts"]),
        next=_texts(row["next"]),
        last_run_id=row["last_run_id"],
        version=row["version"],
        meta_version=row["meta_version"],
        temporary=row["temporary"],
        deleted_at=row["deleted_at"],
    )
