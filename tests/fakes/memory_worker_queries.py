"""In-memory `WorkerQueries`: queries of workers, reaper and reconciler over rows in memory."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from tests.fakes.memory_rows import Asking, MemoryRows, id_of, origin_of

from agentlog_commands.claims import DEATHS, CancelRequest, Claim
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import as_object, load
from agentlog_projections.models.run_fold import RunRow
from agentlog_projections.queries.worker import ClaimStatus, ExecutableRun, UnfinishedRun
from agentlog_projections.sql.caught_up import require
from agentlog_projections.sql.claimable import ReadyRun


class MemoryWorkerQueries:
    """Implements `WorkerQueries`: each method is one query of the rows."""

    def __init__(self, ask: Asking) -> None:
        self._ask = ask

    async def work(self, run_id: RunId) -> ExecutableRun | None:
        return await self._ask(lambda rows: _work(rows, run_id))

    async def run_version(self, thread_id: ThreadId, run_id: RunId) -> int | None:
        def question(rows: MemoryRows) -> int | None:
            require(rows.knows(thread_id), f"version of run {run_id}")
            accepted = rows.accepted_on(f"run-{run_id}", thread_id)
            return accepted[-1].version if accepted else None

        return await self._ask(question)

    async def marks(self, runs: Mapping[RunId, ThreadId]) -> Mapping[RunId, ClaimStatus]:
        def question(rows: MemoryRows) -> Mapping[RunId, ClaimStatus]:
            threads = {run_id: rows.threads.get(thread_id) for run_id, thread_id in runs.items()}
            known = {
                run_id: row for run_id, row in threads.items() if row is not None and rows.is_present(row.partition)
            }
            return {run_id: _status(rows.runs.get(run_id), row.version) for run_id, row in known.items()}

        return await self._ask(question)

    async def claims(self, limit: int) -> Sequence[Claim]:
        def question(rows: MemoryRows) -> Sequence[Claim]:
            claimed = [row for row in _sound(rows) if row.status == "running" and not row.deleted]
            return sorted(map(_claim, claimed), key=lambda claim: claim.claimed_at)[:limit]

        return await self._ask(question)

    async def with_progress(self, claim: Claim) -> Claim:
        return await self._ask(lambda rows: replace(claim, progressed=_progressed(rows, claim)))

    async def leftovers(self, retries: int) -> Sequence[UnfinishedRun]:
        def question(rows: MemoryRows) -> Sequence[UnfinishedRun]:
            pending = [row for row in _sound(rows) if row.status == "pending" and not row.deleted]
            left = [row for row in pending if _must_end(row, retries)]
            return [
                UnfinishedRun(id_of(row), ThreadId(row.thread_id), row.counted_attempts, _cancel(row), row.deaths)
                for row in sorted(left, key=_created_at)
            ]

        return await self._ask(question)

    async def waiting_graphs(self) -> Collection[str]:
        return await self._ask(lambda rows: {row.graph_id for row in _ready(rows)})

    async def waiting_long(self, graph_ids: Collection[str], waited: timedelta) -> Sequence[UnfinishedRun]:
        def question(rows: MemoryRows) -> Sequence[UnfinishedRun]:
            late = [
                row
                for row in _ready(rows)
                if row.graph_id in graph_ids and (row.due_at or _created_at(row)) < rows.now() - waited
            ]
            return [
                UnfinishedRun(id_of(row), ThreadId(row.thread_id), row.counted_attempts, None, row.deaths)
                for row in late
            ]

        return await self._ask(question)

    async def ready(self, limit: int) -> Sequence[ReadyRun]:
        def question(rows: MemoryRows) -> Sequence[ReadyRun]:
            return [ReadyRun(id_of(row), row.graph_id, suspect=row.deaths > 0) for row in _ready(rows)[:limit]]

        return await self._ask(question)

    async def next_due(self) -> timedelta | None:
        def question(rows: MemoryRows) -> timedelta | None:
            waiting = [row for row in rows.runs.values() if row.status == "pending" and not row.deleted]
            ahead = [row.due_at - rows.now() for row in waiting if row.due_at is not None]
            return min((length for length in ahead if length > timedelta()), default=None)

        return await self._ask(question)


def _ready(rows: MemoryRows) -> list[RunRow]:
    """Return the runs that may be claimed now, the oldest first."""
    return sorted((row for row in rows.first_in_line() if rows.is_present(origin_of(row).partition)), key=_created_at)


def _sound(rows: MemoryRows) -> list[RunRow]:
    """Return the runs whose partition is present and whose thread is not in quarantine."""
    return [
        row
        for row in rows.runs.values()
        if rows.is_present(origin_of(row).partition) and row.thread_id not in rows.quarantined
    ]


def _work(rows: MemoryRows, run_id: RunId) -> ExecutableRun | None:
    row = rows.runs.get(run_id)
    thread = None if row is None else rows.threads.get(row.thread_id)
    if row is None or thread is None or row.deleted or thread.deleted_at is not None or row not in _sound(rows):
        return None
    origin, values = origin_of(row), None if thread.values is None else load(thread.values)
    return ExecutableRun(
        run_id=run_id,
        thread_id=ThreadId(row.thread_id),
        graph_id=row.graph_id,
        assistant=origin.assistant,
        kwargs=origin.kwargs,
        metadata=origin.metadata,
        temporary=origin.temporary,
        attempt=row.attempt,
        counted=row.counted_attempts,
        epoch=row.epoch,
        cancel=_cancel(row),
        ready=any(one.run_id == run_id for one in rows.first_in_line()),
        active=row.active,
        thread_metadata=thread.metadata,
        values=None if values is None else as_object(values, "values"),
        next=thread.next,
        version=thread.version,
        deaths=row.deaths,
        has_checkpoints=rows.has_checkpoints(thread.thread_id),
    )


def _must_end(row: RunRow, retries: int) -> bool:
    return row.cancel is not None or row.counted_attempts > retries or row.deaths > DEATHS


def _status(row: RunRow | None, version: int) -> ClaimStatus:
    if row is None:
        return ClaimStatus(None, None, None, version)
    return ClaimStatus(row.epoch, row.worker, _cancel(row), version)


def _claim(row: RunRow) -> Claim:
    assert row.epoch is not None
    assert row.worker is not None
    assert row.claimed_at is not None
    return Claim(
        run_id=id_of(row),
        thread_id=ThreadId(row.thread_id),
        graph_id=row.graph_id,
        worker=row.worker,
        epoch=row.epoch,
        attempt=row.attempt,
        counted=row.counted_attempts,
        claimed_at=row.claimed_at,
        committed_at=row.last_commit_at if row.last_commit_at > row.claimed_at else None,
        progressed=False,
        cancel=_cancel(row),
        temporary=origin_of(row).temporary,
        deaths=row.deaths,
    )


def _progressed(rows: MemoryRows, claim: Claim) -> bool:
    accepted = rows.accepted_on(f"thread-{claim.thread_id}", claim.thread_id)
    claimed = [one.place for one in accepted if one.version == claim.epoch]
    saved = rows.accepted_on(f"run-{claim.run_id}", claim.thread_id)
    return any("CheckpointSaved" in one.types and place < one.place for one in saved for place in claimed)


def _cancel(row: RunRow) -> CancelRequest | None:
    if row.cancel is None:
        return None
    return CancelRequest(
        action="rollback" if row.cancel["action"] == "rollback" else "interrupt",
        deadline=datetime.fromisoformat(str(row.cancel["deadline"])),
        error=as_object(row.cancel["error"], "cancel error"),
    )


def _created_at(row: RunRow) -> datetime:
    return origin_of(row).created_at
