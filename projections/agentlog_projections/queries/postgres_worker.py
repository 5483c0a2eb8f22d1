"""Queries of workers, the reaper and the reconciler in SQL, one statement each."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import asyncpg

from agentlog_commands.claims import DEATHS, CancelRequest, Claim
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import as_object, load_object
from agentlog_postgres.connection import Pool, translated
from agentlog_projections.queries.worker import ClaimStatus, ExecutableRun, UnfinishedRun
from agentlog_projections.sql.caught_up import key_is_authoritative, require
from agentlog_projections.sql.claimable import FIRST, NOT_QUARANTINED, READY, ReadyRun, ready_runs

_WORK = f"""
SELECT r.run_id, r.thread_id, r.graph_id, r.assistant::text AS assistant, r.kwargs::text AS kwargs,
       r.metadata::text AS metadata, r.temporary, r.attempt, r.counted_attempts, r.deaths, r.epoch,
       r.cancel::text AS cancel,
       ({READY} AND {FIRST}) AS ready,
       r.status IN ('pending', 'running') AS active,
       t.metadata::text AS thread_metadata, t."values"::text AS thread_values, t.version,
       ARRAY(SELECT json_array_elements_text(t.next)) AS thread_next,
       EXISTS (SELECT FROM read_v1.checkpoints c WHERE c.thread_id = r.thread_id)
       OR EXISTS (SELECT FROM read_v1.writes w WHERE w.thread_id = r.thread_id) AS has_checkpoints
  FROM read_v1.runs r
  JOIN read_v1.threads t USING (thread_id)
  JOIN ledger.positions p ON p.partition = r.partition AND p.present AND p.stopped IS NULL
 WHERE r.run_id = $1 AND NOT r.deleted AND t.deleted_at IS NULL
   AND {NOT_QUARANTINED}
"""
_RUN_VERSION = f"""
SELECT {key_is_authoritative("$1::text")} AS is_authoritative,
       (SELECT max(version) FROM ledger.log_index WHERE key = $1 AND stream = $2 AND verdict = 'accepted') AS version
"""
_MARKS = """
SELECT k.run_id, r.epoch, r.worker, r.cancel::text AS cancel, t.version
  FROM unnest($1::text[], $2::text[]) AS k(run_id, thread_id)
  JOIN read_v1.threads t ON t.thread_id = k.thread_id
  JOIN ledger.positions p ON p.partition = t.partition AND p.present AND p.stopped IS NULL
  LEFT JOIN read_v1.runs r ON r.run_id = k.run_id
"""
_CLAIMS = f"""
SELECT r.run_id, r.thread_id, r.graph_id, r.worker, r.epoch, r.attempt, r.counted_attempts, r.deaths, r.claimed_at,
       CASE WHEN r.last_commit_at > r.claimed_at THEN r.last_commit_at END AS committed_at,
       r.cancel::text AS cancel, r.temporary
  FROM read_v1.runs r JOIN ledger.positions p ON p.partition = r.partition AND p.present AND p.stopped IS NULL
 WHERE r.status = 'running' AND r.epoch IS NOT NULL AND NOT r.deleted
   AND {NOT_QUARANTINED}
 ORDER BY r.claimed_at LIMIT $1
"""
_PROGRESSED = """
SELECT EXISTS (
  SELECT FROM ledger.log_index c
    JOIN ledger.log_index l ON l.partition = c.partition AND l.key = c.key AND l."offset" > c."offset"
   WHERE c.key = $1 AND c.stream = 'thread-' || $1 AND c.version = $2 AND c.verdict = 'accepted'
     AND l.stream = 'run-' || $3 AND l.verdict = 'accepted' AND 'CheckpointSaved' = ANY(l.types))
"""
_CAUGHT_UP = "r.partition IN (SELECT partition FROM ledger.positions WHERE present AND stopped IS NULL)"
_READY = f"SELECT run_id, graph_id, deaths FROM ({ready_runs(_CAUGHT_UP)}) AS ready ORDER BY created_at LIMIT $1"
_LEFTOVERS = f"""
SELECT r.run_id, r.thread_id, r.cancel::text AS cancel, r.counted_attempts, r.deaths
  FROM read_v1.runs r JOIN ledger.positions p ON p.partition = r.partition AND p.present AND p.stopped IS NULL
 WHERE r.status = 'pending' AND NOT r.deleted
   AND (r.cancel IS NOT NULL OR r.counted_attempts > $1 OR r.deaths > {DEATHS})
   AND {NOT_QUARANTINED}
 ORDER BY r.created_at LIMIT 1000
"""
_WAITING_GRAPHS = f"SELECT DISTINCT graph_id FROM ({ready_runs(_CAUGHT_UP)}) AS ready"
_WAITING_LONG = f"""
SELECT ready.run_id, r.thread_id, r.counted_attempts, r.deaths
  FROM ({ready_runs(_CAUGHT_UP)}) AS ready JOIN read_v1.runs r USING (run_id)
 WHERE ready.graph_id = ANY($1::text[]) AND coalesce(r.due_at, r.created_at) < clock_timestamp() - $2::interval
 ORDER BY ready.created_at LIMIT 1000
"""
_NEXT_DUE = """
SELECT extract(epoch FROM min(due_at) - now())::float8 FROM read_v1.runs
 WHERE status = 'pending' AND NOT deleted AND due_at > now()
"""


class PostgresWorkerQueries:
    """Implements `WorkerQueries`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def work(self, run_id: RunId) -> ExecutableRun | None:
        with translated("worker queries"):
            row = await self._pool.fetchrow(_WORK, run_id)
        return None if row is None else _work(row)

    async def run_version(self, thread_id: ThreadId, run_id: RunId) -> int | None:
        with translated("worker queries"):
            row = await self._pool.fetchrow(_RUN_VERSION, thread_id, f"run-{run_id}")
        if row is None:
            raise TypeError("expected one row from a query without FROM, found none")
        require(row["is_authoritative"], f"version of run {run_id}")
        version: int | None = row["version"]
        return version

    async def marks(self, runs: Mapping[RunId, ThreadId]) -> Mapping[RunId, ClaimStatus]:
        with translated("worker queries"):
            rows = await self._pool.fetch(_MARKS, list(runs), list(runs.values()))
        return {
            RunId(row["run_id"]): ClaimStatus(row["epoch"], row["worker"], _cancel(row["cancel"]), row["version"])
            for row in rows
        }

    async def claims(self, limit: int) -> Sequence[Claim]:
        with translated("worker queries"):
            rows = await self._pool.fetch(_CLAIMS, limit)
        return [_claim(row) for row in rows]

    async def with_progress(self, claim: Claim) -> Claim:
        with translated("worker queries"):
            progressed: bool = await self._pool.fetchval(_PROGRESSED, claim.thread_id, claim.epoch, claim.run_id)
        return replace(claim, progressed=progressed)

    async def leftovers(self, retries: int) -> Sequence[UnfinishedRun]:
        with translated("worker queries"):
            rows = await self._pool.fetch(_LEFTOVERS, retries)
        return [
            UnfinishedRun(
                RunId(row["run_id"]),
                ThreadId(row["thread_id"]),
                row["counted_attempts"],
                _cancel(row["cancel"]),
                row["deaths"],
            )
            for row in rows
        ]

    async def waiting_graphs(self) -> Collection[str]:
        with translated("worker queries"):
            rows = await self._pool.fetch(_WAITING_GRAPHS)
        return {row["graph_id"] for row in rows}

    async def waiting_long(self, graph_ids: Collection[str], waited: timedelta) -> Sequence[UnfinishedRun]:
        with translated("worker queries"):
            rows = await self._pool.fetch(_WAITING_LONG, list(graph_ids), waited)
        return [
            UnfinishedRun(
                RunId(row["run_id"]), ThreadId(row["thread_id"]), row["counted_attempts"], None, row["deaths"]
            )
            for row in rows
        ]

    async def ready(self, limit: int) -> Sequence[ReadyRun]:
        with translated("worker queries"):
            rows = await self._pool.fetch(_READY, limit)
        return [ReadyRun(RunId(row["run_id"]), row["graph_id"], suspect=row["deaths"] > 0) for row in rows]

    async def next_due(self) -> timedelta | None:
        with translated("worker queries"):
            seconds: float | None = await self._pool.fetchval(_NEXT_DUE)
        return None if seconds is None else timedelta(seconds=seconds)


def _work(row: asyncpg.Record) -> ExecutableRun:
    values: str | None = row["thread_values"]
    return ExecutableRun(
        run_id=RunId(row["run_id"]),
        thread_id=ThreadId(row["thread_id"]),
        graph_id=row["graph_id"],
        assistant=load_object(row["assistant"]),
        kwargs=load_object(row["kwargs"]),
        metadata=load_object(row["metadata"]),
        temporary=row["temporary"],
        attempt=row["attempt"],
        counted=row["counted_attempts"],
        epoch=row["epoch"],
        cancel=_cancel(row["cancel"]),
        ready=row["ready"],
        active=row["active"],
        thread_metadata=load_object(row["thread_metadata"]),
        values=None if values is None or values == "null" else load_object(values),
        next=tuple(row["thread_next"]),
        version=row["version"],
        deaths=row["deaths"],
        has_checkpoints=row["has_checkpoints"],
    )


def _claim(row: asyncpg.Record) -> Claim:
    return Claim(
        run_id=RunId(row["run_id"]),
        thread_id=ThreadId(row["thread_id"]),
        graph_id=row["graph_id"],
        worker=row["worker"],
        epoch=row["epoch"],
        attempt=row["attempt"],
        counted=row["counted_attempts"],
        claimed_at=row["claimed_at"],
        committed_at=row["committed_at"],
        progressed=False,
        cancel=_cancel(row["cancel"]),
        temporary=row["temporary"],
        deaths=row["deaths"],
    )


def _cancel(stored: str | None) -> CancelRequest | None:
    if stored is None or stored == "null":
        return None
    request = load_object(stored, "cancel")
    return CancelRequest(
        action="rollback" if request["action"] == "rollback" else "interrupt",
        deadline=datetime.fromisoformat(str(request["deadline"])),
        error=as_object(request["error"], "cancel error"),
    )
