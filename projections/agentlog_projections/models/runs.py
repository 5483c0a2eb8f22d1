"""Read model `runs`: one row a run, folded by `run_fold`, and its queries."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

import asyncpg

from agentlog_commands.claims import TIMED_OUT
from agentlog_facts.ids import RunId, ThreadId, rest
from agentlog_facts.json_value import JsonObject, load_object
from agentlog_facts.lru import Lru
from agentlog_facts.thread import RunCreated, ThreadCreated, ThreadDeleted
from agentlog_postgres.connection import Pool, reading
from agentlog_projections.models.run_fold import RunOrigin, RunRow, created, evolve, run_of
from agentlog_projections.sql.batch import Transaction
from agentlog_projections.sql.cache_shares import cache_shares
from agentlog_projections.sql.claimable import ReadyRun
from agentlog_projections.sql.columns import Column, Columns, texts
from agentlog_projections.sql.json_bytes import json_bytes
from agentlog_projections.sql.read_model import Commit
from agentlog_projections.sql.schema import PRELUDE

ROW_BYTES = 1024
"""Weight of a cached row without its JSON."""

COLUMNS = Columns(
    Column("run_id", "text PRIMARY KEY"),
    Column("thread_id", "text NOT NULL"),
    Column("partition", "int NOT NULL"),
    Column("seq", "bigint NOT NULL"),
    Column("assistant_id", "text NOT NULL"),
    Column("graph_id", "text NOT NULL"),
    Column("assistant", "json NOT NULL", load_object),
    Column("status", "text NOT NULL"),
    Column("created_at", "timestamptz NOT NULL"),
    Column("updated_at", "timestamptz NOT NULL"),
    Column("metadata", "json NOT NULL", load_object),
    Column("kwargs", "json NOT NULL", load_object),
    Column("multitask_strategy", "text NOT NULL"),
    Column("due_at", "timestamptz"),
    Column("temporary", "bool NOT NULL"),
    Column("attempt", "int NOT NULL"),
    Column("counted_attempts", "int NOT NULL"),
    Column("deaths", "int NOT NULL DEFAULT 0"),
    Column("epoch", "bigint"),
    Column("worker", "text"),
    Column("claimed_at", "timestamptz"),
    Column("cancel", "json", load_object),
    Column("outputs_from", "bigint"),
    Column("outputs_to", "bigint"),
    Column("error", "json", load_object),
    Column("interrupts", "json", load_object),
    Column("next", "json", texts),
    Column("checkpoint_id", "text"),
    Column("finished_event_id", "text"),
    Column("last_commit_at", "timestamptz NOT NULL"),
    Column("deleted", "bool NOT NULL"),
    Column("ordinal", "bigint NOT NULL"),
)
"""Columns of `RunOrigin` never change, the others are those of `RunRow`; columns that `Run` names are shown."""
_FIXED = COLUMNS.of(RunOrigin)
_MUTABLE = COLUMNS.without(*_FIXED)
_TOUCHED = COLUMNS.only("run_id", "last_commit_at", "ordinal")
_ALL = _MUTABLE + _FIXED
_LOADED = COLUMNS.of(RunRow)
_LOAD = f"SELECT {_LOADED.names} FROM read_v1.runs WHERE run_id = ANY($1::text[])"
_INSERT = f"""
INSERT INTO read_v1.runs ({_ALL.names})
SELECT {_ALL.names} FROM {_ALL.unnested}
ON CONFLICT (run_id) DO UPDATE SET {_MUTABLE.without("run_id").assigned("excluded")}
"""
# By ctid: joined by run_id, the planner may read the whole table, as it was small when the plan was made.
_ROW_OF = """LATERAL (SELECT ctid AS at FROM read_v1.runs o WHERE o.run_id = r.run_id LIMIT 1) o
 WHERE t.ctid = o.at"""
_UPDATE = f"""
UPDATE read_v1.runs t SET {_MUTABLE.without("run_id").assigned("r")}
  FROM {_MUTABLE.unnested}, {_ROW_OF}
"""
_TOUCH = f"""
UPDATE read_v1.runs t SET {_TOUCHED.without("run_id").assigned("r")}
  FROM {_TOUCHED.unnested}, {_ROW_OF}
"""


class RunsModel:
    """Folds runs."""

    name: ClassVar[str] = "runs"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[str, ...]] = ("runs",)
    ddl: ClassVar[str] = f"""{PRELUDE}
CREATE TABLE IF NOT EXISTS read_v1.runs (
    {COLUMNS.definitions}
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS runs_of_thread ON read_v1.runs (thread_id, seq);
CREATE INDEX IF NOT EXISTS runs_active ON read_v1.runs (thread_id, seq) WHERE status IN ('pending', 'running');
CREATE INDEX IF NOT EXISTS runs_active_of_assistant ON read_v1.runs (assistant_id)
    WHERE status IN ('pending', 'running');
"""

    def __init__(self, cache_bytes: int = cache_shares().runs) -> None:
        self._rows: Lru[str, RunRow] = Lru(cache_bytes)

    def forget(self) -> None:
        """Drop all cached rows."""
        self._rows.clear()

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        """Collect one row per touched run."""
        rows = await self._load(tx, batch)
        changed: dict[str, RunRow] = {}
        for commit in batch:
            self._fold(tx, commit, rows, changed)
        self._write(tx, list(changed.values()))

    async def _load(self, tx: Transaction, batch: Sequence[Commit]) -> dict[str, RunRow]:
        rows: dict[str, RunRow] = {}
        missing: dict[str, None] = {}
        new: set[str] = set()
        for commit in batch:
            new.update(fact.run_id for fact in commit.draft.facts if isinstance(fact, RunCreated))
            for run_id in _runs_of(commit):
                row = self._rows.get(run_id)
                if row is not None:
                    rows[run_id] = row
                elif run_id not in new:
                    missing[run_id] = None
        if missing:
            rows |= {found["run_id"]: _LOADED.read(RunRow, found) for found in await tx.fetch(_LOAD, list(missing))}
        return rows

    def _fold(self, tx: Transaction, commit: Commit, rows: dict[str, RunRow], changed: dict[str, RunRow]) -> None:
        if commit.draft.stream.startswith("run-"):
            self._touch(rows.get(rest(commit.draft.stream)), commit, changed)
            return
        for place, fact in enumerate(commit.draft.facts):
            ordinal = commit.ordinal + place
            run_id = run_of(fact)
            if isinstance(fact, ThreadCreated) and commit.ordinal:
                _begin_again(tx, fact.thread_id, rows, changed)
            elif isinstance(fact, RunCreated):
                rows[fact.run_id] = changed[fact.run_id] = created(fact, commit, ordinal)
            elif isinstance(fact, ThreadDeleted):
                _end_all([rows[ended] for ended in commit.ended if ended in rows], commit, ordinal, changed)
            elif run_id is not None and run_id in rows and rows[run_id].ordinal <= ordinal:
                row = rows[run_id]
                evolve(row, fact, commit)
                row.ordinal = ordinal + 1
                changed[run_id] = row

    def _touch(self, row: RunRow | None, commit: Commit, changed: dict[str, RunRow]) -> None:
        if row is not None and row.ordinal <= commit.ordinal:
            row.last_commit_at = max(row.last_commit_at, commit.draft.occurred_at)
            row.ordinal, row.touched = commit.ordinal + len(commit.draft.facts), True
            changed[row.run_id] = row

    def _write(self, tx: Transaction, rows: Sequence[RunRow]) -> None:
        new = [row for row in rows if row.origin is not None]
        old = [row for row in rows if row.origin is None and row.changed]
        touched = [row for row in rows if row.origin is None and not row.changed and row.touched]
        if new:
            tx.write(_INSERT, *_MUTABLE.arguments(new), *_FIXED.arguments([row.origin for row in new]))
        if old:
            tx.write(_UPDATE, *_MUTABLE.arguments(old))
        if touched:
            tx.write(_TOUCH, *_TOUCHED.arguments(touched))
        for row in rows:
            row.origin, row.changed, row.touched = None, False, False
            self._rows.put(row.run_id, row, row_bytes(row))

    def ready_of(self, run_ids: Collection[str]) -> ReadyRun | None:
        """Return the only active run of a thread if it certainly waits for a worker; None if only the rows can tell."""
        if len(run_ids) != 1:
            return None
        row = self._rows.get(next(iter(run_ids)))
        if row is None or row.status != "pending" or row.due_at is not None or row.cancel is not None or row.deleted:
            return None
        return ReadyRun(RunId(row.run_id), row.graph_id, suspect=row.deaths > 0)


def _runs_of(commit: Commit) -> list[str]:
    if commit.draft.stream.startswith("run-"):
        return [rest(commit.draft.stream)]
    named = [run_id for fact in commit.draft.facts if (run_id := run_of(fact)) is not None]
    return [*named, *commit.ended]


def _begin_again(tx: Transaction, thread_id: str, rows: dict[str, RunRow], changed: dict[str, RunRow]) -> None:
    """Delete the runs of an earlier thread with this id."""
    tx.write_first("DELETE FROM read_v1.runs WHERE thread_id = $1", thread_id)
    for run_id in [row.run_id for row in rows.values() if row.thread_id == thread_id]:
        rows.pop(run_id)
        changed.pop(run_id, None)


def _end_all(rows: Sequence[RunRow], commit: Commit, ordinal: int, changed: dict[str, RunRow]) -> None:
    """Hide the runs that had not ended when their thread was deleted."""
    for row in rows:
        if row.active and row.ordinal <= ordinal:
            row.deleted, row.epoch, row.updated_at = True, None, commit.draft.occurred_at
            row.changed, row.ordinal = True, ordinal + 1
            changed[row.run_id] = row


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the API shows it, with the columns that wait, join and streams need.

    Once its cancel is accepted, a run is shown as it will end: `status` is that of the end, and a run that will be
    rolled back is hidden. `deleted`: hidden, returned only on request; `thread_deleted`: its thread is deleted.
    `outputs_from` (first attempt) and `outputs_to` are positions on `outputs`.
    """

    run_id: RunId
    thread_id: ThreadId
    assistant_id: str
    graph_id: str
    assistant: JsonObject
    status: str
    created_at: datetime
    updated_at: datetime
    metadata: JsonObject
    kwargs: JsonObject
    multitask_strategy: str
    due_at: datetime | None
    temporary: bool
    attempt: int
    epoch: int | None
    cancel: JsonObject | None
    outputs_from: int | None
    outputs_to: int | None
    error: JsonObject | None
    interrupts: JsonObject | None
    next: tuple[str, ...] | None
    checkpoint_id: str | None
    finished_event_id: str | None
    deleted: bool
    thread_deleted: bool


_ACTIVE = "r.status IN ('pending', 'running')"
_STATUS = f"""CASE WHEN {_ACTIVE} AND r.cancel IS NOT NULL
            THEN CASE r.cancel->'error'->>'error' WHEN '{TIMED_OUT["error"]}' THEN 'timeout' ELSE 'interrupted' END
            ELSE r.status END"""
_RUN = f"""
SELECT r.*, {_STATUS} AS shown_status, t.deleted_at IS NOT NULL AS thread_deleted
  FROM read_v1.runs r JOIN read_v1.threads t USING (thread_id)
"""
_SHOWN = COLUMNS.of(Run)
_VISIBLE = f"""NOT r.deleted AND t.deleted_at IS NULL
   AND NOT ({_ACTIVE} AND r.cancel IS NOT NULL AND r.cancel->>'action' = 'rollback')"""


_ACTIVE_RUNS = f"""
SELECT r.thread_id, r.run_id, r.seq
  FROM read_v1.runs r JOIN read_v1.threads t USING (thread_id)
 WHERE r.status IN ('pending', 'running') AND r.cancel IS NULL AND {_VISIBLE}
   AND ($1 = 'all' OR r.status = $1) AND r.created_at < $2 AND (r.thread_id, r.seq) > ($3, $4)
 ORDER BY r.thread_id, r.seq LIMIT $5
"""


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run that has no end; `seq` orders the runs of a thread."""

    thread_id: ThreadId
    run_id: RunId
    seq: int


class Runs:
    """Queries on runs. Hidden runs and runs of deleted threads are returned only on request. All raise Unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, run_id: RunId, *, include_deleted: bool = False) -> Run | None:
        """Return a run by its id."""
        sql = f"{_RUN} WHERE r.run_id = $1 AND ($2 OR ({_VISIBLE}))"
        async with reading(self._pool, "runs.get") as connection:
            row = await connection.fetchrow(sql, run_id, include_deleted)
        return None if row is None else _run(row)

    async def of_thread(
        self, thread_id: ThreadId, *, status: str | None = None, limit: int = 10, offset: int = 0
    ) -> list[Run]:
        """Return the runs of a thread, the newest first."""
        sql = f"{_RUN} WHERE r.thread_id = $1 AND {_VISIBLE} AND ($2::text IS NULL OR {_STATUS} = $2)"
        async with reading(self._pool, "runs.of_thread") as connection:
            rows = await connection.fetch(
                f"{sql} ORDER BY r.seq DESC LIMIT $3 OFFSET $4", thread_id, status, limit, offset
            )
        return [_run(row) for row in rows]

    async def active(
        self, status: str, created_before: datetime, after: "ActiveRun | None", limit: int
    ) -> list["ActiveRun"]:
        """Return runs that are shown as pending, as running, or (`all`) as either, by thread and creation.

        `after` is the last run of the page before. Runs of `created_before` and later are left out.
        """
        at = ("", -1) if after is None else (after.thread_id, after.seq)
        async with reading(self._pool, "runs.active") as connection:
            rows = await connection.fetch(_ACTIVE_RUNS, status, created_before, *at, limit)
        return [ActiveRun(ThreadId(row["thread_id"]), RunId(row["run_id"]), row["seq"]) for row in rows]


def _run(row: asyncpg.Record) -> Run:
    return _SHOWN.read(Run, row, status=row["shown_status"], thread_deleted=row["thread_deleted"])


def row_bytes(row: RunRow) -> int:
    """Return about how many bytes a row takes in memory."""
    return ROW_BYTES + sum(map(json_bytes, (row.cancel, row.error, row.interrupts)))
