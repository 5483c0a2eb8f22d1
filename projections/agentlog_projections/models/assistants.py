"""Read model `assistants`: the current version and all versions of each assistant, and the queries on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Literal

import asyncpg

from agentlog_facts.assistant import AssistantDeletionAsked
from agentlog_facts.ids import AssistantId, RunId, ThreadId
from agentlog_facts.json_value import JsonObject, dump, load_object
from agentlog_postgres.connection import Pool, reading
from agentlog_projections.models.assistant_fold import AssistantFold, AssistantRow, VersionRow, asked_of
from agentlog_projections.sql.batch import Transaction
from agentlog_projections.sql.columns import Column, Columns
from agentlog_projections.sql.read_model import Commit, by_key
from agentlog_projections.sql.schema import PRELUDE, contained, listed, matches

SortBy = Literal["assistant_id", "created_at", "updated_at", "name", "graph_id"]

COLUMNS = Columns(
    Column("assistant_id", "text PRIMARY KEY"),
    Column("version", "int NOT NULL"),
    Column("graph_id", "text NOT NULL"),
    Column("name", "text NOT NULL"),
    Column("description", "text"),
    Column("config", "json NOT NULL", load_object),
    Column("context", "json NOT NULL", load_object),
    Column("metadata", "json NOT NULL", load_object),
    Column("created_at", "timestamptz NOT NULL"),
    Column("updated_at", "timestamptz NOT NULL"),
    Column("deleted", "bool NOT NULL"),
    Column("newest", "int NOT NULL"),
    Column("revision", "bigint NOT NULL"),
    Column("system_description", "text"),
    Column("deletion", "json", load_object),
    Column("deletion_asked_at", "timestamptz"),
)
"""Columns of `AssistantRow`; those that `Assistant` names are shown."""
_VERSION = COLUMNS.of(VersionRow)
_LOAD = f"SELECT {COLUMNS.names} FROM read_v1.assistants WHERE assistant_id = ANY($1::text[])"
_WRITE = f"""
INSERT INTO read_v1.assistants ({COLUMNS.names}) SELECT {COLUMNS.names} FROM {COLUMNS.unnested}
ON CONFLICT (assistant_id) DO UPDATE SET {COLUMNS.without("assistant_id").assigned("excluded")}
"""
_STATE = f"""
INSERT INTO read_v1.assistant_versions ({_VERSION.names}) SELECT {_VERSION.names} FROM {_VERSION.unnested}
ON CONFLICT DO NOTHING
"""
_CLEAR = "DELETE FROM read_v1.assistant_versions WHERE assistant_id = ANY($1::text[])"


class AssistantsModel:
    """Folds assistants; it caches no rows between batches."""

    name: ClassVar[str] = "assistants"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[str, ...]] = ("assistants", "assistant_versions")
    ddl: ClassVar[str] = f"""{PRELUDE}
CREATE TABLE IF NOT EXISTS read_v1.assistants (
    {COLUMNS.definitions}
);
CREATE TABLE IF NOT EXISTS read_v1.assistant_versions (
    assistant_id text NOT NULL, version int NOT NULL, graph_id text NOT NULL, name text NOT NULL, description text,
    config json NOT NULL, context json NOT NULL, metadata json NOT NULL, created_at timestamptz NOT NULL,
    PRIMARY KEY (assistant_id, version)
);
CREATE INDEX IF NOT EXISTS assistants_created ON read_v1.assistants (created_at, assistant_id) WHERE NOT deleted;
CREATE INDEX IF NOT EXISTS assistants_updated ON read_v1.assistants (updated_at, assistant_id) WHERE NOT deleted;
CREATE INDEX IF NOT EXISTS assistants_name ON read_v1.assistants (name, assistant_id) WHERE NOT deleted;
CREATE INDEX IF NOT EXISTS assistants_graph ON read_v1.assistants (graph_id, assistant_id) WHERE NOT deleted;
CREATE INDEX IF NOT EXISTS assistants_metadata ON read_v1.assistants
    USING gin (read_v1.searchable(metadata) jsonb_path_ops) WHERE NOT deleted;
CREATE INDEX IF NOT EXISTS assistants_deletions ON read_v1.assistants (deletion_asked_at) WHERE deletion IS NOT NULL;
"""

    def forget(self) -> None:
        """Do nothing: no rows are cached."""

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        """Collect one row per touched assistant, and the versions that the batch states."""
        groups = by_key([commit for commit in batch if commit.draft.stream.startswith("assistant-")])
        if not groups:
            return
        rows = {row["assistant_id"]: COLUMNS.read(AssistantRow, row) for row in await tx.fetch(_LOAD, [*groups])}
        folds = [AssistantFold(rows.get(key)) for key in groups]
        for fold, commits in zip(folds, groups.values(), strict=True):
            for commit in commits:
                fold.add(commit)
        changed = [
            fold.row for fold in folds if fold.row is not None and fold.row is not rows.get(fold.row.assistant_id)
        ]
        cleared = [fold.row.assistant_id for fold in folds if fold.cleared and fold.row is not None]
        if cleared:
            tx.write_first(_CLEAR, cleared)
        stated = [one for fold in folds for one in fold.stated.values()]
        if stated:
            tx.write(_STATE, *_VERSION.arguments(stated))
        if changed:
            tx.write(_WRITE, *COLUMNS.arguments(changed))


@dataclass(frozen=True, slots=True)
class Assistant:
    """An assistant as the API shows it; `revision` changes with everything that is shown."""

    assistant_id: AssistantId
    version: int
    graph_id: str
    name: str
    description: str | None
    config: JsonObject
    context: JsonObject
    metadata: JsonObject
    created_at: datetime
    updated_at: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class AssistantFilter:
    """Filter of assistants: `metadata` by containment, its lists whole, `name` as a part of the name in any case."""

    metadata: JsonObject | None = None
    graph_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class OpenDeletion:
    """A deletion of an assistant that is not done; `event_id` is that of the commit that asked for it."""

    event_id: str
    asked: AssistantDeletionAsked


_FILTER = f"""
  FROM read_v1.assistants WHERE NOT deleted
   AND {matches("read_v1.searchable(metadata)", "$1", "$2")}
   AND ($3::text IS NULL OR graph_id = $3)
   AND ($4::text IS NULL OR strpos(lower(name), lower($4)) > 0)
"""
_SHOWN = COLUMNS.of(Assistant)
_VERSIONS = f"""
SELECT {_VERSION.names}, created_at AS updated_at, 0 AS revision FROM read_v1.assistant_versions WHERE assistant_id = $1
"""
_THREADS = """
SELECT t.thread_id FROM read_v1.threads t
 WHERE t.deleted_at IS NULL AND read_v1.searchable(t.metadata) @> $2::jsonb
   AND EXISTS (SELECT FROM read_v1.runs r WHERE r.thread_id = t.thread_id AND r.assistant_id = $1)
 ORDER BY t.thread_id
"""
_ACTIVE_RUNS = """
SELECT r.run_id, r.thread_id FROM read_v1.runs r JOIN read_v1.threads t USING (thread_id)
 WHERE r.assistant_id = $1 AND r.status IN ('pending', 'running') AND NOT r.deleted AND r.cancel IS NULL
   AND t.deleted_at IS NULL
 ORDER BY r.run_id
"""


class Assistants:
    """Queries on assistants. All raise Unavailable when PostgreSQL does not answer."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, assistant_id: AssistantId) -> Assistant | None:
        """Return the current version."""
        sql = f"SELECT {_SHOWN.names} FROM read_v1.assistants WHERE assistant_id = $1 AND NOT deleted"
        async with reading(self._pool, "assistants.get") as connection:
            row = await connection.fetchrow(sql, assistant_id)
        return None if row is None else _assistant(row)

    async def search(
        self,
        where: AssistantFilter,
        *,
        sort_by: SortBy = "created_at",
        descending: bool = True,
        limit: int = 10,
        offset: int = 0,
    ) -> list[Assistant]:
        """Return matching assistants; ties are broken by assistant_id."""
        way = "DESC" if descending else "ASC"
        order = f"{sort_by} {way}" if sort_by == "assistant_id" else f"{sort_by} {way}, assistant_id {way}"
        sql = f"SELECT {_SHOWN.names} {_FILTER} ORDER BY {order} LIMIT $5 OFFSET $6"
        async with reading(self._pool, "assistants.search") as connection:
            rows = await connection.fetch(sql, *_wanted(where), limit, offset)
        return [_assistant(row) for row in rows]

    async def count(self, where: AssistantFilter) -> int:
        """Count matching assistants."""
        sql = f"SELECT count(*) {_FILTER}"
        async with reading(self._pool, "assistants.count") as connection:
            found: int = await connection.fetchval(sql, *_wanted(where))
        return found

    async def versions(
        self, assistant_id: AssistantId, metadata: JsonObject | None = None, *, limit: int = 10, offset: int = 0
    ) -> list[Assistant]:
        """Return matching versions of an assistant, the newest first; `created_at` is when each was stated."""
        where = matches("read_v1.searchable(metadata)", "$2", "$3")
        sql = f"{_VERSIONS} AND {where} ORDER BY version DESC LIMIT $4 OFFSET $5"
        async with reading(self._pool, "assistants.versions") as connection:
            rows = await connection.fetch(sql, assistant_id, contained(metadata), listed(metadata), limit, offset)
        return [_assistant(row) for row in rows]

    async def version(self, assistant_id: AssistantId, version: int) -> Assistant | None:
        """Return one version as it was stated."""
        async with reading(self._pool, "assistants.version") as connection:
            row = await connection.fetchrow(f"{_VERSIONS} AND version = $2", assistant_id, version)
        return None if row is None else _assistant(row)

    async def threads_of(self, assistant_id: AssistantId) -> Sequence[ThreadId]:
        """Return the threads of an assistant: those that had a run of it, and whose metadata carries its id."""
        carries = dump({"assistant_id": assistant_id}).decode()
        async with reading(self._pool, "assistants.threads_of") as connection:
            return [ThreadId(row["thread_id"]) for row in await connection.fetch(_THREADS, assistant_id, carries)]

    async def active_runs_of(self, assistant_id: AssistantId) -> Mapping[RunId, ThreadId]:
        """Return the active runs of an assistant without a cancel request, with their threads."""
        async with reading(self._pool, "assistants.active_runs_of") as connection:
            rows = await connection.fetch(_ACTIVE_RUNS, assistant_id)
        return {RunId(row["run_id"]): ThreadId(row["thread_id"]) for row in rows}

    async def open_deletions(self, after: timedelta, limit: int = 100) -> Sequence[OpenDeletion]:
        """Return deletions that were asked for longer ago than `after` and are not done, the oldest first."""
        sql = """SELECT assistant_id, deletion FROM read_v1.assistants
                  WHERE deletion IS NOT NULL AND deletion_asked_at <= now() - $1::interval
                  ORDER BY deletion_asked_at LIMIT $2"""
        async with reading(self._pool, "assistants.open_deletions") as connection:
            rows = await connection.fetch(sql, after, limit)
        return [_open_deletion(AssistantId(row["assistant_id"]), load_object(row["deletion"])) for row in rows]


def _open_deletion(assistant_id: AssistantId, stored: JsonObject) -> OpenDeletion:
    return OpenDeletion(str(stored["event_id"]), asked_of(assistant_id, stored))


def _wanted(where: AssistantFilter) -> tuple[object, ...]:
    return contained(where.metadata), listed(where.metadata), where.graph_id, where.name


def _assistant(row: asyncpg.Record) -> Assistant:
    return _SHOWN.read(Assistant, row)
