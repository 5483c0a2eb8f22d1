"""Contract of `CommandContexts`, over rows in memory and in PostgreSQL."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.contracts.rows_envs import RowsEnv
from tests.projections.facts import (
    cancel_requested,
    patched,
    run_claimed,
    run_created,
    run_finished,
    saved,
    state_updated,
    thread_created,
    thread_deleted,
    written,
)
from tests.projections.projector_env import draft

from agentlog_commands.run_request import OpenInterrupts, RunAssistant
from agentlog_facts.assistant import (
    AssistantCreated,
    AssistantDeleted,
    AssistantDeletionAsked,
    AssistantRevised,
    AssistantState,
)
from agentlog_facts.errors import Quarantined, Unavailable
from agentlog_facts.ids import AssistantId, RunId, Stream, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.thread import RunCreated, RunState, ThreadState
from agentlog_projections.queries.command_context import AssistantContext, ThreadContext

T1, R1, A1 = ThreadId("t1"), RunId("r1"), AssistantId("a1")
ON_T1 = Stream("thread-t1")
NOTHING = ThreadContext(ThreadState(), None, None, {})
INTERRUPT = "0123456789abcdef" * 2


async def thread(rows: RowsEnv, thread_id: ThreadId = T1) -> ThreadContext:
    return await rows.contexts.thread(thread_id, rows.partition_of(thread_id))


def resuming(resume: Json, run: str = "r1") -> RunCreated:
    """Return the creation of a run that answers interrupts."""
    return replace(run_created(run), kwargs={"command": {"resume": resume}})


async def test_a_thread_is_told_with_its_active_runs_in_order(rows: RowsEnv) -> None:
    due_at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    await rows.given(
        draft("t1", thread_created(metadata={"m": 1}, temporary=True), run_created("r0")),
        draft("t1", run_created("r1")),
        draft("t1", run_created("r2", due_at=due_at)),
        draft("t1", run_claimed("r0")),
        draft("t1", run_finished("r0"), epoch=3),
        draft("t1", run_claimed("r1")),
        draft("t1", cancel_requested("r1"), demands={ON_T1: 5}),
        draft("t1", patched({"n": 2}), stream="meta-t1"),
    )
    found = await thread(rows)
    assert (found.version, found.meta_version) == (6, 0)
    assert found.metadata == {"m": 1, "n": 2, "graph_id": "agent", "assistant_id": "a1"}
    assert (found.state.exists, found.state.temporary, found.state.graph_id) == (True, True, "agent")
    assert list(found.state.runs.values()) == [
        RunState(R1, "running", None, False, attempt=1, epoch=5, cancel="interrupt"),
        RunState(RunId("r2"), "pending", due_at, False),
    ]


async def test_a_thread_that_never_was_has_no_version_and_a_deleted_one_has(rows: RowsEnv) -> None:
    await rows.given(draft("t2", thread_created("t2")))
    assert await thread(rows) == NOTHING
    await rows.given(
        draft("t1", thread_created(), run_created()),
        draft("t1", patched({"n": 2}), stream="meta-t1"),
        draft("t1", thread_deleted()),
    )
    assert await thread(rows) == ThreadContext(ThreadState(), 1, 0, {})
    await rows.given(draft("t1", thread_created()))
    assert await thread(rows) == ThreadContext(ThreadState(exists=True), 2, 0, {})


@pytest.mark.parametrize(
    ("resume", "answers"), [(None, None), ("yes", ()), ({}, ()), ({INTERRUPT: "yes"}, (INTERRUPT,)), ({"x": 1}, ())]
)
async def test_a_run_tells_which_interrupts_it_answers(
    rows: RowsEnv, resume: Json, answers: tuple[str, ...] | None
) -> None:
    await rows.given(draft("t1", thread_created(), resuming(resume)))
    assert (await thread(rows)).state.runs[R1].answers == answers


@pytest.mark.parametrize(
    ("resume", "channel", "asks"), [("yes", "__interrupt__", True), ("yes", "x", False), (None, "__interrupt__", False)]
)
async def test_a_run_that_answers_tells_whether_it_has_come_to_an_interrupt_itself(
    rows: RowsEnv, resume: Json, channel: str, asks: bool
) -> None:
    await rows.given(
        draft("t1", thread_created(), resuming(resume)),
        draft("t1", run_claimed()),
        draft("t1", written("c1", "task", (0, channel, 1)), stream="run-r1", epoch=1),
    )
    assert (await thread(rows)).state.runs[R1].asks is asks


async def test_open_interrupts_are_told_with_their_tasks_and_the_newest_checkpoint(rows: RowsEnv) -> None:
    assert await rows.contexts.open_interrupts(T1) == OpenInterrupts({}, None)
    await rows.given(draft("t1", thread_created(), run_created()))
    assert await rows.contexts.open_interrupts(T1) == OpenInterrupts({}, None)
    asked: JsonObject = {"task": [{"id": "i1", "value": 1}, {"id": "i2", "value": 2}], "other": [{"id": "i3"}]}
    await rows.given(
        draft("t1", run_claimed()),
        draft("t1", saved("c2"), saved("c1"), replace(saved("c3"), checkpoint_ns="sub:1"), stream="run-r1", epoch=1),
        draft("t1", replace(run_finished(), status="interrupted", interrupts=asked), epoch=1),
        draft("t2", thread_created("t2")),
    )
    tasks = {"i1": "task", "i2": "task", "i3": "other"}
    last_on_the_log = "c1"  # its id is not the greatest: clocks of processes differ
    assert await rows.contexts.open_interrupts(T1) == OpenInterrupts(tasks, last_on_the_log)
    await rows.given(draft("t1", thread_deleted()))
    assert await rows.contexts.open_interrupts(T1) == OpenInterrupts({}, None)


async def test_a_new_run_finds_the_newest_version_of_its_assistant(rows: RowsEnv) -> None:
    stated = AssistantCreated(A1, "agent", {"tags": ["x"]}, {"c": 1}, {"m": 1}, "a", None)
    revised = AssistantRevised(A1, 2, "other", {}, {"c": 2}, {"m": 2}, "a", None)
    await rows.given(draft("t1", thread_created()), draft("a1", stated, stream="assistant-a1"))
    partition = rows.partition_of("t1")
    expected = RunAssistant(A1, "agent", 1, {"tags": ["x"]}, {"c": 1}, {"m": 1})
    assert await rows.contexts.run_target(T1, partition, A1) == (await thread(rows), expected)
    await rows.given(draft("a1", revised, stream="assistant-a1"))
    found = await rows.contexts.run_target(T1, partition, A1)
    assert found[1] == RunAssistant(A1, "other", 2, {}, {"c": 2}, {"m": 2})
    assert (await rows.contexts.run_target(T1, partition, AssistantId("unknown")))[1] is None


async def test_the_runs_since_a_version_are_those_that_the_log_accepted_after_it(rows: RowsEnv) -> None:
    places = await rows.given(
        draft("t1", thread_created(), run_created("r0")),
        draft("t1", run_created("r1")),
        draft("t1", run_created("void"), demands={ON_T1: 0}),
        draft("t1", state_updated({})),
        draft("t1", run_created("r2")),
        draft("t2", thread_created("t2"), run_created("elsewhere", "t2")),
    )
    assert await rows.contexts.runs_since(T1, 0) == [places[1], places[4]]
    assert await rows.contexts.runs_since(T1, 1) == [places[4]]
    assert await rows.contexts.runs_since(T1, 3) == []


async def test_an_intent_is_as_old_as_the_first_of_its_tries_that_came_too_late(rows: RowsEnv) -> None:
    await rows.given(
        draft("t1", thread_created()),
        draft("t1", run_created("other")),
        draft("t1", run_created("late"), demands={ON_T1: 0}, event_id="late"),
        draft("t1", run_created("another")),
        draft("t1", run_created("late"), demands={ON_T1: 1}, event_id="late"),
        draft("t1", run_created("in time"), demands={ON_T1: 2}, event_id="in time"),
        draft("t2", thread_created("t2"), run_created("late", "t2"), event_id="late"),
    )
    assert await rows.contexts.first_tried_at(T1, "late") == 0
    for event_id, thread_id in (("in time", T1), ("late", ThreadId("t2")), ("never", T1)):
        assert await rows.contexts.first_tried_at(thread_id, event_id) is None


async def test_nothing_is_decided_on_rows_that_are_being_built(rows: RowsEnv) -> None:
    await rows.given(draft("t1", thread_created(), run_created()))
    await rows.build_anew(rows.partition_of("t1"))
    partition = rows.partition_of("t1")
    for answer in (
        rows.contexts.thread(T1, partition),
        rows.contexts.run_target(T1, partition, A1),
        rows.contexts.thread(T1, 7),
    ):
        with pytest.raises(Unavailable, match="being built"):
            await answer


async def test_nothing_is_decided_on_a_thread_in_quarantine(rows: RowsEnv) -> None:
    await rows.given(draft("t1", thread_created()), draft("t2", thread_created("t2")))
    await rows.quarantine("t1")
    with pytest.raises(Quarantined, match="t1"):
        await thread(rows)
    assert (await thread(rows, ThreadId("t2"))).state.exists


async def test_an_assistant_is_told_with_the_version_of_its_stream_which_outlives_it(rows: RowsEnv) -> None:
    async def told() -> AssistantContext:
        return await rows.contexts.assistant(A1, rows.partition_of(A1))

    created = AssistantCreated(A1, "agent", {"tags": ["x"]}, {}, {"m": 1}, "Ana", None)
    revised = AssistantRevised(A1, 2, "other", {}, {}, {}, "Bob", "text")
    asked = AssistantDeletionAsked(A1, (T1,), {"r1": "t1"})
    on = "assistant-a1"
    await rows.given(draft("t1", thread_created()))
    assert (await told()).version is None
    await rows.given(draft("a1", created, stream=on), draft("a1", revised, stream=on))
    found = await told()
    assert (found.state, found.version) == (AssistantState(revised, newest=2), 1)
    await rows.given(draft("a1", asked, stream=on))
    found = await told()
    assert (found.state, found.version) == (AssistantState(revised, newest=2, asked=asked), 2)
    _, usable = await rows.contexts.run_target(T1, rows.partition_of(T1), A1)
    assert usable is None
    await rows.given(draft("a1", AssistantDeleted(A1), stream=on))
    found = await told()
    assert (found.state, found.version) == (AssistantState(), 3)
    await rows.quarantine("a1")
    with pytest.raises(Quarantined):
        await told()
