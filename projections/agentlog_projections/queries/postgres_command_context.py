"""Combined queries of the gateway in SQL, one statement each, so that each answer is from one snapshot."""

from datetime import datetime

import asyncpg

from agentlog_commands.run_request import OpenInterrupts, RunAssistant
from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import Quarantined, Unavailable
from agentlog_facts.guard import Void
from agentlog_facts.ids import AssistantId, RunId, ThreadId, stream
from agentlog_facts.json_value import Json, load, load_object
from agentlog_facts.notification import decode_verdict
from agentlog_facts.thread import RunState, ThreadState, named_interrupts
from agentlog_postgres.connection import Pool, reading
from agentlog_projections.models.assistant_fold import AssistantRow
from agentlog_projections.models.assistants import COLUMNS as ASSISTANT
from agentlog_projections.queries.command_context import AssistantContext, ThreadContext

_RESUME = "r.kwargs->'command'->'resume'"
_ANSWERS = f"""CASE coalesce(json_typeof({_RESUME}), 'null')
             WHEN 'null' THEN NULL
             WHEN 'object' THEN (SELECT coalesce(json_agg(name), '[]') FROM json_object_keys({_RESUME}) AS name)
             ELSE '[]' END"""
_ASKS = f"""CASE WHEN coalesce(json_typeof({_RESUME}), 'null') = 'null' THEN false ELSE EXISTS (
                SELECT FROM read_v1.writes w WHERE w.thread_id = $1 AND w.run_id = r.run_id
                   AND w.channel = '__interrupt__' AND NOT w.hidden) END"""
_THREAD = """
SELECT {more} p.present AND p.stopped IS NULL AS present,
       EXISTS (SELECT FROM ledger.quarantine q WHERE q.key = $1) AS parked,
       t.version, t.meta_version, t.temporary, t.metadata, t.ttl, t.expires_at, t.deleted_at IS NOT NULL AS deleted,
       (SELECT json_agg(json_build_array(r.run_id, r.status, r.due_at, r.temporary, r.attempt, r.epoch,
                                         r.cancel->>'action', {answers}, {asks}) ORDER BY r.seq)
          FROM read_v1.runs r
         WHERE r.thread_id = $1 AND r.status IN ('pending', 'running') AND NOT r.deleted) AS runs
  FROM ledger.positions p LEFT JOIN read_v1.threads t ON t.thread_id = $1 {join}
 WHERE p.partition = $2
"""
_DECISION = _THREAD.format(more="", join="", answers=_ANSWERS, asks=_ASKS)
_TARGET = _THREAD.format(
    answers=_ANSWERS,
    asks=_ASKS,
    more="""a.graph_id, a.version AS assistant_version, a.config AS assistant_config, a.context AS assistant_context,
            a.metadata AS assistant_metadata,""",
    join="LEFT JOIN read_v1.assistants a ON a.assistant_id = $3 AND NOT a.deleted AND a.deletion IS NULL",
)
_ASSISTANT = """
SELECT p.present AND p.stopped IS NULL AS present,
       EXISTS (SELECT FROM ledger.quarantine q WHERE q.key = $1) AS parked, a.*
  FROM ledger.positions p LEFT JOIN read_v1.assistants a ON a.assistant_id = $1 WHERE p.partition = $2
"""
_OPEN = """
SELECT (SELECT json_object_agg(one->>'id', task.key)
          FROM json_each(t.interrupts) task, json_array_elements(task.value) one WHERE one->>'id' IS NOT NULL) AS tasks,
       (SELECT c.checkpoint_id FROM read_v1.checkpoints c
         WHERE c.thread_id = $1 AND c.checkpoint_ns = '' AND NOT c.hidden
         ORDER BY c.seq DESC LIMIT 1) AS checkpoint_id
  FROM read_v1.threads t WHERE t.thread_id = $1 AND t.deleted_at IS NULL
"""
_TRIED = """
SELECT detail FROM ledger.log_index
 WHERE key = $1 AND event_id = $2 AND detail->>'reason' = 'version_conflict' AND detail->>'stream' = $3
 ORDER BY "offset" LIMIT 1
"""
_RUNS_SINCE = """
SELECT partition, "offset" FROM ledger.log_index
 WHERE key = $1 AND stream = $2 AND verdict = 'accepted' AND version > $3 AND 'RunCreated' = ANY(types)
 ORDER BY version
"""


class PostgresCommandContexts:
    """Implements `CommandContexts`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def thread(self, thread_id: ThreadId, partition: int) -> ThreadContext:
        async with reading(self._pool, "command_context.thread") as connection:
            row = await connection.fetchrow(_DECISION, thread_id, partition)
        return _thread(_usable(row, thread_id, partition))

    async def run_target(
        self, thread_id: ThreadId, partition: int, assistant_id: AssistantId
    ) -> tuple[ThreadContext, RunAssistant | None]:
        async with reading(self._pool, "command_context.run_target") as connection:
            found = await connection.fetchrow(_TARGET, thread_id, partition, assistant_id)
        row = _usable(found, thread_id, partition)
        return _thread(row), _assistant(row, assistant_id)

    async def assistant(self, assistant_id: AssistantId, partition: int) -> AssistantContext:
        async with reading(self._pool, "command_context.assistant") as connection:
            found = await connection.fetchrow(_ASSISTANT, assistant_id, partition)
        row = _usable(found, assistant_id, partition)
        return AssistantContext(None if row["assistant_id"] is None else ASSISTANT.read(AssistantRow, row))

    async def open_interrupts(self, thread_id: ThreadId) -> OpenInterrupts:
        async with reading(self._pool, "command_context.open_interrupts") as connection:
            row = await connection.fetchrow(_OPEN, thread_id)
        if row is None:
            return OpenInterrupts({}, None)
        tasks = {} if row["tasks"] is None else load_object(row["tasks"])
        return OpenInterrupts({name: str(task) for name, task in tasks.items()}, row["checkpoint_id"])

    async def first_tried_at(self, thread_id: ThreadId, event_id: str) -> int | None:
        name = stream("thread", thread_id)
        async with reading(self._pool, "command_context.first_tried_at") as connection:
            stored = await connection.fetchval(_TRIED, thread_id, event_id, name)
        verdict = None if stored is None else decode_verdict(load_object(stored))
        found = verdict.expected if isinstance(verdict, Void) else None
        return None if found is None else int(found)

    async def runs_since(self, thread_id: ThreadId, version: int) -> list[LogPosition]:
        async with reading(self._pool, "command_context.runs_since") as connection:
            rows = await connection.fetch(_RUNS_SINCE, thread_id, stream("thread", thread_id), version)
        return [LogPosition(row["partition"], row["offset"]) for row in rows]


def _usable(row: asyncpg.Record | None, key: ThreadId | AssistantId, partition: int) -> asyncpg.Record:
    if row is None or not row["present"]:
        raise Unavailable(f"the projection is being built for partition {partition}, retry later")
    if row["parked"]:
        raise Quarantined(f"{key}: its projection is in quarantine after an error, an operator must act")
    return row


def _assistant(row: asyncpg.Record, assistant_id: AssistantId) -> RunAssistant | None:
    if row["graph_id"] is None:
        return None
    return RunAssistant(
        assistant_id=assistant_id,
        graph_id=row["graph_id"],
        version=row["assistant_version"],
        config=load_object(row["assistant_config"]),
        context=load_object(row["assistant_context"]),
        metadata=load_object(row["assistant_metadata"]),
    )


def _thread(row: asyncpg.Record) -> ThreadContext:
    if row["version"] is None:
        return ThreadContext(ThreadState(), None, None, {})
    if row["deleted"]:
        return ThreadContext(ThreadState(), row["version"], row["meta_version"], {})
    stored = [] if row["runs"] is None else load(row["runs"])
    states = [_state(run) for run in stored if isinstance(run, list)] if isinstance(stored, list) else []
    metadata = load_object(row["metadata"])
    graph_id = metadata.get("graph_id")
    state = ThreadState(
        exists=True,
        temporary=row["temporary"],
        graph_id=graph_id if isinstance(graph_id, str) else None,
        runs={run.run_id: run for run in states},
    )
    ttl = None if row["ttl"] is None else load_object(row["ttl"])
    return ThreadContext(state, row["version"], row["meta_version"], metadata, ttl, row["expires_at"])


def _state(run: list[Json]) -> RunState:
    run_id, status, due_at, temporary, attempt, epoch, cancel, names, asks = run
    return RunState(
        run_id=RunId(str(run_id)),
        status="running" if status == "running" else "pending",
        due_at=datetime.fromisoformat(due_at) if isinstance(due_at, str) else None,
        temporary=temporary is True,
        attempt=attempt if isinstance(attempt, int) else 0,
        epoch=epoch if isinstance(epoch, int) else None,
        cancel=None if cancel is None else ("rollback" if cancel == "rollback" else "interrupt"),
        answers=named_interrupts(dict.fromkeys(map(str, names))) if isinstance(names, list) else None,
        asks=asks is True,
    )
