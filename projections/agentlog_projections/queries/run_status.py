"""Status rows of runs, hidden or not, for streams and waiting calls."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject, load_object
from agentlog_facts.thread import RunStatus
from agentlog_postgres.connection import Pool, reading
from agentlog_projections.sql.caught_up import RUN_IS_AUTHORITATIVE, RUN_OR_NONE

_STATUS = f"""
SELECT k.run_id, r.thread_id, r.status, coalesce((r.kwargs->>'resumable')::bool, false) AS resumable, r.epoch,
       r.outputs_from, r.outputs_to, r.finished_event_id, r.error, r.deleted, coalesce(t.version, -1) AS version,
       r.graph_id, r.interrupts, r.checkpoint_id, t.deleted_at IS NOT NULL AS thread_deleted,
       coalesce(t.last_run_id = r.run_id, false) AS newest,
       CASE WHEN k.run_id = ANY($2::text[]) AND r.status NOT IN ('pending', 'running') AND t.last_run_id = r.run_id
            THEN t."values" END AS "values"
  FROM {{ids}} {RUN_OR_NONE} LEFT JOIN read_v1.threads t ON t.thread_id = r.thread_id
 WHERE {RUN_IS_AUTHORITATIVE}
"""
_ROW = _STATUS.format(ids="(SELECT $1::text AS run_id) AS k")
"""One run: PostgreSQL plans it once. It would plan a lookup of an array of ids again for each execution."""
_ROWS = _STATUS.format(ids="unnest($1::text[]) AS k(run_id)")


@dataclass(frozen=True, slots=True)
class RunStatusRow:
    """A run, with the parts of its thread that its end shows.

    `deleted`: the run is hidden (deleted or rolled back). `version` is that of the thread's stream: the row shows the
    claims of all epochs up to it. `newest`: no later run has moved the thread. `values` are the thread's if they
    were requested and the run has ended and is `newest`; the state of any other run is at `checkpoint_id`.
    """

    run_id: RunId
    thread_id: ThreadId
    status: RunStatus
    resumable: bool = False
    epoch: int | None = None
    outputs_from: int | None = None
    outputs_to: int | None = None
    finished_event_id: str | None = None
    error: JsonObject | None = None
    deleted: bool = False
    version: int = -1
    graph_id: str = ""
    interrupts: JsonObject | None = None
    checkpoint_id: str | None = None
    thread_deleted: bool = False
    newest: bool = False
    values: JsonObject | None = None

    @property
    def ended(self) -> bool:
        """Tell whether the run's end was accepted, or the run is hidden."""
        return self.deleted or self.status not in ("pending", "running")


class RunStatusRows:
    """Query of the status of any number of runs."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def rows(
        self, run_ids: Sequence[RunId], with_values: Collection[RunId] = ()
    ) -> Mapping[RunId, RunStatusRow | None]:
        """Return the rows of runs, those of deleted threads included; None: no such run exists.

        Runs whose partition has not caught up are missing. Raises: Unavailable.
        """
        async with reading(self._pool, "run_status") as connection:
            if len(run_ids) == 1:
                rows = await connection.fetch(_ROW, run_ids[0], list(with_values))
            else:
                rows = await connection.fetch(_ROWS, list(run_ids), list(with_values))
        return {RunId(row["run_id"]): None if row["thread_id"] is None else _loaded(row) for row in rows}


def _loaded(row: asyncpg.Record) -> RunStatusRow:
    return RunStatusRow(
        run_id=RunId(row["run_id"]),
        thread_id=ThreadId(row["thread_id"]),
        status=row["status"],
        resumable=row["resumable"],
        epoch=row["epoch"],
        outputs_from=row["outputs_from"],
        outputs_to=row["outputs_to"],
        finished_event_id=row["finished_event_id"],
        error=_object(row["error"]),
        deleted=row["deleted"],
        version=row["version"],
        graph_id=row["graph_id"],
        interrupts=_object(row["interrupts"]),
        checkpoint_id=row["checkpoint_id"],
        thread_deleted=row["thread_deleted"],
        newest=row["newest"],
        values=_object(row["values"]),
    )


def _object(stored: str | None) -> JsonObject | None:
    return None if stored is None else load_object(stored)
