"""In-memory `CommandContexts`: queries of the gateway over rows in memory."""

from tests.fakes.memory_rows import Asking, MemoryRows, id_of, origin_of

from agentlog_commands.run_request import OpenInterrupts, RunAssistant
from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import Quarantined, Unavailable
from agentlog_facts.guard import Void
from agentlog_facts.ids import AssistantId, ThreadId
from agentlog_facts.json_value import as_object
from agentlog_facts.thread import RunCreated, RunState, ThreadState, answered
from agentlog_projections.models.assistant_fold import AssistantRow
from agentlog_projections.models.run_fold import RunRow
from agentlog_projections.queries.command_context import AssistantContext, ThreadContext


class MemoryCommandContexts:
    """Implements `CommandContexts`: each method is one query of the rows."""

    def __init__(self, ask: Asking) -> None:
        self._ask = ask

    async def thread(self, thread_id: ThreadId, partition: int) -> ThreadContext:
        return await self._ask(lambda rows: _thread(rows, thread_id, partition))

    async def run_target(
        self, thread_id: ThreadId, partition: int, assistant_id: AssistantId
    ) -> tuple[ThreadContext, RunAssistant | None]:
        def question(rows: MemoryRows) -> tuple[ThreadContext, RunAssistant | None]:
            row = rows.assistants.get(assistant_id)
            usable = row is not None and not row.deleted and row.deletion is None
            return _thread(rows, thread_id, partition), _assistant(row) if row is not None and usable else None

        return await self._ask(question)

    async def assistant(self, assistant_id: AssistantId, partition: int) -> AssistantContext:
        def question(rows: MemoryRows) -> AssistantContext:
            _require(rows, assistant_id, partition)
            return AssistantContext(rows.assistants.get(assistant_id))

        return await self._ask(question)

    async def open_interrupts(self, thread_id: ThreadId) -> OpenInterrupts:
        def question(rows: MemoryRows) -> OpenInterrupts:
            row = rows.threads.get(thread_id)
            if row is None or row.deleted_at is not None:
                return OpenInterrupts({}, None)
            tasks: dict[str, str] = {}
            for task_id, told in row.interrupts.items():
                tasks |= {str(as_object(one)["id"]): task_id for one in told} if isinstance(told, list) else {}
            return OpenInterrupts(tasks, rows.newest.get(thread_id))

        return await self._ask(question)

    async def first_tried_at(self, thread_id: ThreadId, event_id: str) -> int | None:
        def question(rows: MemoryRows) -> int | None:
            tries = [one.verdict for one in rows.log if (one.key, one.event_id) == (thread_id, event_id)]
            late = [one for one in tries if isinstance(one, Void) and one.reason == "version_conflict"]
            versions = [one.expected for one in late if one.stream == f"thread-{thread_id}"]
            return None if not versions or versions[0] is None else int(versions[0])

        return await self._ask(question)

    async def runs_since(self, thread_id: ThreadId, version: int) -> list[LogPosition]:
        def question(rows: MemoryRows) -> list[LogPosition]:
            later = [
                one
                for one in rows.accepted_on(f"thread-{thread_id}", thread_id)
                if one.version is not None and one.version > version
            ]
            return [one.place for one in later if "RunCreated" in one.types]

        return await self._ask(question)


def _thread(rows: MemoryRows, thread_id: ThreadId, partition: int) -> ThreadContext:
    _require(rows, thread_id, partition)
    row = rows.threads.get(thread_id)
    if row is None:
        return ThreadContext(ThreadState(), None, None, {})
    if row.deleted_at is not None:
        return ThreadContext(ThreadState(), row.version, row.meta_version, {})
    graph_id = row.metadata.get("graph_id")
    active = {id_of(run): _state(rows, run) for run in rows.runs_of(thread_id) if run.active}
    state = ThreadState(True, row.temporary, graph_id if isinstance(graph_id, str) else None, active)
    return ThreadContext(state, row.version, row.meta_version, row.metadata, row.ttl, row.expires_at)


def _require(rows: MemoryRows, key: ThreadId | AssistantId, partition: int) -> None:
    if not rows.is_present(partition):
        raise Unavailable(f"the projection is being built for partition {partition}, retry later")
    if key in rows.quarantined:
        raise Quarantined(f"{key}: its projection is in quarantine after an error, an operator must act")


def _state(rows: MemoryRows, row: RunRow) -> RunState:
    origin = origin_of(row)
    thread_id, strategy = ThreadId(origin.thread_id), origin.multitask_strategy
    fact = RunCreated(id_of(row), thread_id, origin.assistant, origin.metadata, origin.kwargs, strategy)
    answers = answered(fact)
    return RunState(
        run_id=fact.run_id,
        status="running" if row.status == "running" else "pending",
        due_at=row.due_at,
        temporary=origin.temporary,
        attempt=row.attempt,
        epoch=row.epoch,
        cancel=None if row.cancel is None else ("rollback" if row.cancel["action"] == "rollback" else "interrupt"),
        answers=answers,
        asks=answers is not None and row.run_id in rows.interrupted,
    )


def _assistant(row: AssistantRow) -> RunAssistant:
    return RunAssistant(AssistantId(row.assistant_id), row.graph_id, row.version, row.config, row.context, row.metadata)
