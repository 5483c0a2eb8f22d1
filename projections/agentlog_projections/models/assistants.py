"""Read model `assistants`: the current version and all versions of each assistant, and the queries on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

import asyncpg

from agentlog_facts.assistant import AssistantCreated, AssistantRevised
from agentlog_facts.ids import AssistantId
from agentlog_facts.json_value import JsonObject, load_object
from agentlog_postgres.connection import Pool, reading
from agentlog_projections.sql.batch import Transaction
from agentlog_projections.sql.columns import encoded
from agentlog_projections.sql.read_model import Commit
from agentlog_projections.sql.schema import PRELUDE, contained, listed, matches

SortBy = Literal["assistant_id", "created_at", "updated_at", "name", "graph_id"]

_STATED = "assistant_id, version, graph_id, name, description, config, context, metadata"
_STATED_TYPES = "$1::text[], $2::int[], $3::text[], $4::text[], $5::text[], $6::json[], $7::json[], $8::json[]"
_SET = ", ".join(f"{name.strip()} = excluded.{name.strip()}" for name in _STATED.split(",")[1:])
_CURRENT = f"""
INSERT INTO read_v1.assistants AS t ({_STATED}, created_at, updated_at, deleted)
SELECT {_STATED}, stated_at, stated_at, false
  FROM unnest({_STATED_TYPES}, $9::timestamptz[]) AS r({_STATED}, stated_at)
ON CONFLICT (assistant_id) DO UPDATE SET {_SET}, updated_at = excluded.updated_at WHERE t.version < excluded.version
"""
_VERSIONS = f"""
INSERT INTO read_v1.assistant_versions ({_STATED}, created_at)
SELECT * FROM unnest({_STATED_TYPES}, $9::timestamptz[]) ON CONFLICT DO NOTHING
"""


class AssistantsModel:
    """Folds assistants; it caches no rows between batches."""

    name: ClassVar[str] = "assistants"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[str, ...]] = ("assistants", "assistant_versions")
    ddl: ClassVar[str] = f"""{PRELUDE}
CREATE TABLE IF NOT EXISTS read_v1.assistants (
    assistant_id text PRIMARY KEY, version int NOT NULL, graph_id text NOT NULL, name text NOT NULL, description text,
    config json NOT NULL, context json NOT NULL, metadata json NOT NULL, created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL, deleted bool NOT NULL
);
CREATE TABLE IF NOT EXISTS read_v1.assistant_versions (
    assistant_id text NOT NULL, version int NOT NULL, graph_id text NOT NULL, name text NOT NULL, description text,
    config json NOT NULL, context json NOT NULL, metadata json NOT NULL, created_at timestamptz NOT NULL,
    PRIMARY KEY (assistant_id, version)
);
"""

    def forget(self) -> None:
        """Do nothing: no rows are cached."""

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        """Collect all versions that the batch states, and the newest one of each assistant."""
        stated: list[tuple[object, ...]] = []
        first: dict[str, tuple[object, ...]] = {}
        newest: dict[str, tuple[object, ...]] = {}
        for commit in batch:
            for fact in commit.draft.facts:
                if isinstance(fact, AssistantCreated | AssistantRevised):
                    row = _row(fact, commit.draft.occurred_at)
                    stated.append(row)
                    first.setdefault(fact.assistant_id, row)
                    newest[fact.assistant_id] = row
        if not stated:
            return
        tx.write(_VERSIONS, *zip(*stated, strict=True))
        new = [row for row in first.values() if row[1] == 1]
        if new:  # its creation gives created_at, so it goes in before a revision of the same batch
            (tx.write_first if len(stated) > len(new) else tx.write)(_CURRENT, *zip(*new, strict=True))
        revised = [row for row in newest.values() if row[1] != 1]
        if revised:
            tx.write(_CURRENT, *zip(*revised, strict=True))


def _row(fact: AssistantCreated | AssistantRevised, at: datetime) -> tuple[object, ...]:
    version = fact.version if isinstance(fact, AssistantRevised) else 1
    config, context, metadata = encoded(fact.config), encoded(fact.context), encoded(fact.metadata)
    return fact.assistant_id, version, fact.graph_id, fact.name, fact.description, config, context, metadata, at


@dataclass(frozen=True, slots=True)
class Assistant:
    """An assistant as the API shows it."""

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


@dataclass(frozen=True, slots=True)
class AssistantFilter:
    """Filter of assistants: `metadata` by containment, its lists whole, `name` as a part of the name in any case."""

    metadata: JsonObject | None = None
    graph_id: str | None = None
    name: str | None = None


_FILTER = f"""
  FROM read_v1.assistants WHERE NOT deleted
   AND {matches("read_v1.searchable(metadata)", "$1", "$2")}
   AND ($3::text IS NULL OR graph_id = $3)
   AND ($4::text IS NULL OR strpos(lower(name), lower($4)) > 0)
"""


class Assistants:
    """Queries on assistants. All raise Unavailable when PostgreSQL does not answer."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, assistant_id: AssistantId) -> Assistant | None:
        """Return the current version."""
        sql = "SELECT * FROM read_v1.assistants WHERE assistant_id = $1 AND NOT deleted"
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
        sql = f"SELECT * {_FILTER} ORDER BY {order} LIMIT $5 OFFSET $6"
        async with reading(self._pool, "assistants.search") as connection:
            rows = await connection.fetch(sql, *_wanted(where), limit, offset)
        return [_assistant(row) for row in rows]

    async def count(self, where: AssistantFilter) -> int:
        """Count matching assistants."""
        sql = f"SELECT count(*) {_FILTER}"
        async with reading(self._pool, "assistants.count") as connection:
            found: int = await connection.fetchval(sql, *_wanted(where))
        return found

    async def versions(self, assistant_id: AssistantId, *, limit: int = 10, offset: int = 0) -> list[Assistant]:
        """Return the versions of an assistant, the newest first; `updated_at` is when each was stated."""
        sql = """SELECT *, created_at AS updated_at FROM read_v1.assistant_versions WHERE assistant_id = $1
                  ORDER BY version DESC LIMIT $2 OFFSET $3"""
        async with reading(self._pool, "assistants.versions") as connection:
            return [_assistant(row) for row in await connection.fetch(sql, assistant_id, limit, offset)]


def _wanted(where: AssistantFilter) -> tuple[object, ...]:
    return contained(where.metadata), listed(where.metadata), where.graph_id, where.name


def _assistant(row: asyncpg.Record) -> Assistant:
    return Assistant(
        assistant_id=AssistantId(row["assistant_id"]),
        version=row["version"],
        graph_id=row["graph_id"],
        name=row["name"],
        description=row["description"],
        config=load_object(row["config"]),
        context=load_object(row["context"]),
        metadata=load_object(row["metadata"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
