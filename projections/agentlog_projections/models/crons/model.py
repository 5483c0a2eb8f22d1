"""Read model `crons`: one row for each cron, and the queries on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

from agentlog_facts.ids import CronId
from agentlog_facts.json_value import JsonObject, load_object
from agentlog_postgres.connection import Pool, reading
from agentlog_projections.models.crons.fold import CronRow, folded
from agentlog_projections.sql.batch import Transaction
from agentlog_projections.sql.columns import Column, Columns
from agentlog_projections.sql.read_model import Commit, by_key
from agentlog_projections.sql.schema import PRELUDE, contained, listed, matches

SortBy = Literal["cron_id", "assistant_id", "thread_id", "next_run_date", "end_time", "created_at", "updated_at"]

COLUMNS = Columns(
    Column("cron_id", "text PRIMARY KEY"),
    Column("assistant_id", "text NOT NULL"),
    Column("thread_id", "text"),
    Column("schedule", "text NOT NULL"),
    Column("timezone", "text"),
    Column("end_time", "timestamptz"),
    Column("payload", "json NOT NULL", load_object),
    Column("metadata", "json NOT NULL", load_object),
    Column("on_run_completed", "text"),
    Column("enabled", "bool NOT NULL"),
    Column("next_run_date", "timestamptz"),
    Column("creator", "json NOT NULL", load_object),
    Column("created_at", "timestamptz NOT NULL"),
    Column("updated_at", "timestamptz NOT NULL"),
    Column("revision", "bigint NOT NULL"),
    Column("deleted", "bool NOT NULL"),
    Column("passed", "timestamptz"),
    Column("firing", "json", load_object),
    Column("refusal", "text"),
)
"""Columns of `CronRow`."""
_LOAD = f"SELECT {COLUMNS.names} FROM read_v1.crons WHERE cron_id = ANY($1::text[])"
_WRITE = f"""
INSERT INTO read_v1.crons ({COLUMNS.names}) SELECT {COLUMNS.names} FROM {COLUMNS.unnested}
ON CONFLICT (cron_id) DO UPDATE SET {COLUMNS.without("cron_id").assigned("excluded")}
"""
_ORPHAN = """(c.thread_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM read_v1.threads t WHERE t.thread_id = c.thread_id AND t.deleted_at IS NULL))"""
"""A thread cron goes with its thread."""


class CronsModel:
    """Folds crons; it caches no rows between batches."""

    name: ClassVar[str] = "crons"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[str, ...]] = ("crons",)
    ddl: ClassVar[str] = f"""{PRELUDE}
CREATE TABLE IF NOT EXISTS read_v1.crons (
    {COLUMNS.definitions}
);
CREATE INDEX IF NOT EXISTS crons_due ON read_v1.crons (next_run_date)
    WHERE next_run_date IS NOT NULL AND enabled AND NOT deleted;
CREATE INDEX IF NOT EXISTS crons_firing ON read_v1.crons (cron_id) WHERE firing IS NOT NULL;
CREATE INDEX IF NOT EXISTS crons_created ON read_v1.crons (created_at, cron_id) WHERE NOT deleted;
CREATE INDEX IF NOT EXISTS crons_thread ON read_v1.crons (thread_id) WHERE NOT deleted AND thread_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS crons_metadata ON read_v1.crons
    USING gin (read_v1.searchable(metadata) jsonb_path_ops) WHERE NOT deleted;
"""

    def forget(self) -> None:
        """Do nothing: no rows are cached."""

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        """Collect one row per touched cron."""
        groups = by_key([commit for commit in batch if commit.draft.stream.startswith("cron-")])
        if not groups:
            return
        rows = {row["cron_id"]: COLUMNS.read(CronRow, row) for row in await tx.fetch(_LOAD, [*groups])}
        changed: list[CronRow] = []
        for key, commits in groups.items():
            row = rows.get(key)
            for commit in commits:
                row = folded(row, commit)
            if row is not None and row is not rows.get(key):
                changed.append(row)
        if changed:
            tx.write(_WRITE, *COLUMNS.arguments(changed))


@dataclass(frozen=True, slots=True)
class CronFilter:
    """Filter of crons: `metadata` by containment, its lists whole."""

    assistant_id: str | None = None
    thread_id: str | None = None
    enabled: bool | None = None
    metadata: JsonObject | None = None


_FILTER = f"""
  FROM read_v1.crons c WHERE NOT c.deleted AND NOT {_ORPHAN}
   AND ($1::text IS NULL OR c.assistant_id = $1)
   AND ($2::text IS NULL OR c.thread_id = $2)
   AND ($3::bool IS NULL OR c.enabled = $3)
   AND {matches("read_v1.searchable(c.metadata)", "$4", "$5")}
"""
_DUE = f"""
(SELECT c.cron_id FROM read_v1.crons c WHERE c.firing IS NOT NULL LIMIT $2)
UNION
(SELECT c.cron_id FROM read_v1.crons c
  WHERE c.next_run_date <= $1 AND c.enabled AND NOT c.deleted AND NOT {_ORPHAN} ORDER BY c.next_run_date LIMIT $2)
"""
_ORPHANS = f"SELECT c.cron_id FROM read_v1.crons c WHERE NOT c.deleted AND {_ORPHAN} LIMIT $1"


class Crons:
    """Queries on crons. All raise Unavailable when PostgreSQL does not answer."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def row(self, cron_id: CronId) -> CronRow | None:
        """Return the row for a decision, also that of a deleted cron; None if there never was one."""
        async with reading(self._pool, "crons.row") as connection:
            row = await connection.fetchrow(_LOAD, [cron_id])
        return None if row is None else COLUMNS.read(CronRow, row)

    async def get(self, cron_id: CronId) -> CronRow | None:
        """Return a cron, None if it or its thread is deleted."""
        sql = f"SELECT {COLUMNS.names} FROM read_v1.crons c WHERE cron_id = $1 AND NOT c.deleted AND NOT {_ORPHAN}"
        async with reading(self._pool, "crons.get") as connection:
            row = await connection.fetchrow(sql, cron_id)
        return None if row is None else COLUMNS.read(CronRow, row)

    async def search(
        self, where: CronFilter, *, sort_by: SortBy = "created_at", descending: bool = True, limit: int, offset: int
    ) -> list[CronRow]:
        """Return matching crons; ties are broken by cron_id, and missing values come last."""
        way = "DESC" if descending else "ASC"
        sql = f"""SELECT {COLUMNS.names} {_FILTER}
                  ORDER BY {sort_by} {way} NULLS LAST, cron_id {way} LIMIT $6 OFFSET $7"""
        async with reading(self._pool, "crons.search") as connection:
            rows = await connection.fetch(sql, *_wanted(where), limit, offset)
        return [COLUMNS.read(CronRow, row) for row in rows]

    async def count(self, where: CronFilter) -> int:
        """Count matching crons."""
        async with reading(self._pool, "crons.count") as connection:
            found: int = await connection.fetchval(f"SELECT count(*) {_FILTER}", *_wanted(where))
        return found

    async def due(self, now: datetime, limit: int) -> Sequence[CronId]:
        """Return crons with a slot that is due, or whose firing has not ended."""
        async with reading(self._pool, "crons.due") as connection:
            return [CronId(row["cron_id"]) for row in await connection.fetch(_DUE, now, limit)]

    async def orphans(self, limit: int) -> Sequence[CronId]:
        """Return crons whose thread is deleted."""
        async with reading(self._pool, "crons.orphans") as connection:
            return [CronId(row["cron_id"]) for row in await connection.fetch(_ORPHANS, limit)]


def _wanted(where: CronFilter) -> tuple[object, ...]:
    return where.assistant_id, where.thread_id, where.enabled, contained(where.metadata), listed(where.metadata)
