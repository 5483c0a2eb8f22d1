"""The read model `runs`: one row a run, how facts change it (see `run_rows`), and the questions it answers."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

import asyncpg

from agentlog_facts.ids import RunId, ThreadId, rest
from agentlog_facts.json_value import JsonObject, load, load_object
from agentlog_facts.thread import RunCreated, ThreadCreated, ThreadDeleted
from agentlog_projections.models.run_fold import RunRow, created, evolve, fixed, mutable, run_of
from agentlog_projections.sql.batch import Transaction
from agentlog_projections.sql.claimable import ReadyRun
from agentlog_projections.sql.database import Pool, reading
from agentlog_projections.sql.lru import Lru
from agentlog_projections.sql.read_model import Commit
from agentlog_projections.sql.schema import PRELUDE

REMEMBERED = 20_000

_MUTABLE = """status, updated_at, attempt, counted_attempts, epoch, worker, claimed_at, cancel, outputs_from,
outputs_to, error, interrupts, next, checkpoint_id, finished_event_id, last_commit_at, deleted, ordinal"""
_MUTABLE_TYPES = """$2::text[], $3::timestamptz[], $4::int[], $5::int[], $6::bigint[], $7::text[], $8::timestamptz[],
$9::json[], $10::bigint[], $11::bigint[], $12::json[], $13::json[], $14::json[], $15::text[], $16::text[],
$17::timestamptz[], $18::bool[], $19::bigint[]"""
_FIXED = """thread_id, partition, seq, assistant_id, graph_id, assistant, created_at, metadata, kwargs,
multitask_strategy, due_at, temporary"""
_FIXED_TYPES = """$20::text[], $21::int[], $22::bigint[], $23::text[], $24::text[], $25::json[], $26::timestamptz[],
$27::json[], $28::json[], $29::text[], $30::timestamptz[], $31::bool[]"""
_SET = ", ".join(f"{name.strip()} = r.{name.strip()}" for name in _MUTABLE.split(","))
_SET_AGAIN = ", ".join(f"{name.strip()} = excluded.{name.strip()}" for name in _MUTABLE.split(","))
_LOAD = f"SELECT run_id, thread_id, graph_id, seq, due_at, {_MUTABLE} FROM read_v1.runs WHERE run_id = ANY($1::text[])"
_INSERT = f"""
INSERT INTO read_v1.runs (run_id, {_MUTABLE}, {_FIXED})
SELECT run_id, {_MUTABLE}, {_FIXED} FROM unnest($1::text[], {_MUTABLE_TYPES}, {_FIXED_TYPES})
    AS r(run_id, {_MUTABLE}, {_FIXED})
ON CONFLICT (run_id) DO UPDATE SET {_SET_AGAIN}
"""
# By ctid: joined by run_id, the planner may read the whole table, as it was small when the plan was made.
_ROW_OF = """LATERAL (SELECT ctid AS at FROM read_v1.runs o WHERE o.run_id = r.run_id LIMIT 1) o
 WHERE t.ctid = o.at"""
_UPDATE = f"""
UPDATE read_v1.runs t SET {_SET}
  FROM unnest($1::text[], {_MUTABLE_TYPES}) AS r(run_id, {_MUTABLE}), {_ROW_OF}
"""
_TOUCH = f"""
UPDATE read_v1.runs t SET last_commit_at = r.last_commit_at, ordinal = r.ordinal
  FROM unnest($1::text[], $2::timestamptz[], $3::bigint[]) AS r(run_id, last_commit_at, ordinal), {_ROW_OF}
"""


class RunsModel:
    """Folds runs."""

    name: ClassVar[str] = "runs"
    version: ClassVar[int] = 1
    tables: ClassVar[tuple[str, ...]] = ("runs",)
    ddl: ClassVar[str] = f"""{PRELUDE}
CREATE TABLE IF NOT EXISTS read_v1.runs (
    run_id text PRIMARY KEY, thread_id text NOT NULL, partition int NOT NULL, seq bigint NOT NULL,
    assistant_id text NOT NULL, graph_id text NOT NULL, assistant json NOT NULL, status text NOT NULL,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, metadata json NOT NULL, kwargs json NOT NULL,
    multitask_strategy text NOT NULL, due_at timestamptz, temporary bool NOT NULL, attempt int NOT NULL,
    counted_attempts int NOT NULL, epoch bigint, worker text, claimed_at timestamptz, cancel json, outputs_from bigint,
    outputs_to bigint, error json, interrupts json, next json, checkpoint_id text, finished_event_id text,
    last_commit_at timestamptz NOT NULL, deleted bool NOT NULL, ordinal bigint NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS runs_of_thread ON read_v1.runs (thread_id, seq);
CREATE INDEX IF NOT EXISTS runs_active ON read_v1.runs (thread_id, seq) WHERE status IN ('pending', 'running');
"""

    def __init__(self) -> None:
        self._rows: Lru[str, RunRow] = Lru(REMEMBERED)

    def forget(self) -> None:
        """Drop what is remembered of rows."""
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
            rows |= {found["run_id"]: _loaded(found) for found in await tx.fetch(_LOAD, list(missing))}
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
        new = [row for row in rows if row.created is not None]
        old = [row for row in rows if row.created is None and row.changed]
        touched = [row for row in rows if row.created is None and not row.changed and row.touched]
        if new:
            tx.write(_INSERT, *zip(*((*mutable(row), *fixed(row)) for row in new), strict=True))
        if old:
            tx.write(_UPDATE, *zip(*(mutable(row) for row in old), strict=True))
        if touched:
            tx.write(_TOUCH, *zip(*((row.run_id, row.last_commit_at, row.ordinal) for row in touched), strict=True))
        for row in rows:
            row.created, row.changed, row.touched = None, False, False
            self._rows.put(row.run_id, row)

    def ready_of(self, run_ids: Collection[str]) -> ReadyRun | None:
        """Return the only active run of a thread if it surely waits for a worker; None when rows have to be asked."""
        if len(run_ids) != 1:
            return None
        row = self._rows.get(next(iter(run_ids)))
        if row is None or row.status != "pending" or row.due_at is not None or row.cancel is not None or row.deleted:
            return None
        return ReadyRun(RunId(row.run_id), row.graph_id)


def _runs_of(commit: Commit) -> list[str]:
    if commit.draft.stream.startswith("run-"):
        return [rest(commit.draft.stream)]
    named = [run_id for fact in commit.draft.facts if (run_id := run_of(fact)) is not None]
    return [*named, *commit.ended]


def _begin_again(tx: Transaction, thread_id: str, rows: dict[str, RunRow], changed: dict[str, RunRow]) -> None:
    """Erase the runs of the thread's earlier life."""
    tx.write_first("DELETE FROM read_v1.runs WHERE thread_id = $1", thread_id)
    for run_id in [row.run_id for row in rows.values() if row.thread_id == thread_id]:
        rows.pop(run_id)
        changed.pop(run_id, None)


def _end_all(rows: Sequence[RunRow], commit: Commit, ordinal: int, changed: dict[str, RunRow]) -> None:
    """Hide the runs that had no end of their own when their thread was deleted."""
    for row in rows:
        if row.active and row.ordinal <= ordinal:
            row.deleted, row.epoch, row.updated_at = True, None, commit.draft.occurred_at
            row.changed, row.ordinal = True, ordinal + 1
            changed[row.run_id] = row


def _loaded(found: asyncpg.Record) -> RunRow:
    return RunRow(
        run_id=found["run_id"],
        thread_id=found["thread_id"],
        graph_id=found["graph_id"],
        seq=found["seq"],
        due_at=found["due_at"],
        updated_at=found["updated_at"],
        last_commit_at=found["last_commit_at"],
        status=found["status"],
        attempt=found["attempt"],
        counted_attempts=found["counted_attempts"],
        epoch=found["epoch"],
        worker=found["worker"],
        claimed_at=found["claimed_at"],
        cancel=_object(found["cancel"]),
        outputs_from=found["outputs_from"],
        outputs_to=found["outputs_to"],
        error=_object(found["error"]),
        interrupts=_object(found["interrupts"]),
        next=_texts(found["next"]),
        checkpoint_id=found["checkpoint_id"],
        finished_event_id=found["finished_event_id"],
        deleted=found["deleted"],
        ordinal=found["ordinal"],
    )


def _object(stored: str | None) -> JsonObject | None:
    return None if stored is None else load_object(stored)


def _texts(stored: str | None) -> tuple[str, ...] | None:
    value = None if stored is None else load(stored)
    return tuple(str(item) for item in value) if isinstance(value, list) else None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the API shows it, and what wait, join and streams need.

    `deleted`: hidden, shown only when asked for; `thread_deleted`: its thread is gone. `outputs_from` (first attempt)
    and `outputs_to` are positions on `outputs`.
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


_RUN = """
SELECT r.*, t.deleted_at IS NOT NULL AS thread_deleted
  FROM read_v1.runs r JOIN read_v1.threads t USING (thread_id)
"""
_VISIBLE = "NOT r.deleted AND t.deleted_at IS NULL"


class Runs:
    """Questions about runs; hidden ones, or those of deleted threads, only if asked for. All raise Unavailable."""

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
        sql = f"{_RUN} WHERE r.thread_id = $1 AND {_VISIBLE} AND ($2::text IS NULL OR r.status = $2)"
        async with reading(self._pool, "runs.of_thread") as connection:
            rows = await connection.fetch(
                f"{sql} ORDER BY r.seq DESC LIMIT $3 OFFSET $4", thread_id, status, limit, offset
            )
        return [_run(row) for row in rows]


def _run(row: asyncpg.Record) -> Run:
    return Run(
        run_id=RunId(row["run_id"]),
        thread_id=ThreadId(row["thread_id"]),
        assistant_id=row["assistant_id"],
        graph_id=row["graph_id"],
        assistant=load_object(row["assistant"]),
        status=row["status"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        metadata=load_object(row["metadata"]),
        kwargs=load_object(row["kwargs"]),
        multitask_strategy=row["multitask_strategy"],
        due_at=row["due_at"],
        temporary=row["temporary"],
        attempt=row["attempt"],
        epoch=row["epoch"],
        cancel=_object(row["cancel"]),
        outputs_from=row["outputs_from"],
        outputs_to=row["outputs_to"],
        error=_object(row["error"]),
        interrupts=_object(row["interrupts"]),
        next=_texts(row["next"]),
        checkpoint_id=row["checkpoint_id"],
        finished_event_id=row["finished_event_id"],
        deleted=row["deleted"],
        thread_deleted=row["thread_deleted"],
    )
