"""Read model of runs: given facts, applied twice, then rows; and queries on them."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.projections.facts import (
    cancel_requested,
    run_claimed,
    run_created,
    run_deleted,
    run_finished,
    run_released,
    saved,
    thread_created,
    thread_deleted,
)
from tests.projections.models.applying import Applying
from tests.projections.projector_env import START, ProjectorEnv, draft

from agentlog_facts.ids import RunId, Stream, ThreadId
from agentlog_facts.thread import RunState
from agentlog_projections.models.runs import Run, Runs
from agentlog_projections.projector.ready_runs import ready_of_partitions, ready_of_threads
from agentlog_projections.queries.command_context import CommandContexts
from agentlog_projections.queries.postgres_command_context import PostgresCommandContexts
from agentlog_projections.queries.postgres_worker import PostgresWorkerQueries

R1 = RunId("r1")
T1 = ThreadId("t1")


@pytest.fixture
def runs(env: ProjectorEnv) -> Runs:
    return Runs(env.pool)


@pytest.fixture
async def contexts(env: ProjectorEnv) -> CommandContexts:
    await env.pool.execute("INSERT INTO ledger.positions (partition, present) VALUES (0, true)")
    return PostgresCommandContexts(env.pool)


async def active(contexts: CommandContexts) -> Mapping[RunId, RunState]:
    """Return the runs of t1 that have not ended, as deciders see them."""
    return (await contexts.thread(T1, 0)).state.runs


async def of(runs: Runs, run_id: RunId = R1) -> Run:
    found = await runs.get(run_id, include_deleted=True)
    assert found is not None
    return found


async def test_a_new_run_is_pending_and_shows_what_was_asked(given: Applying, runs: Runs) -> None:
    created = draft("t1", thread_created(), run_created())
    await given(created)
    run = await of(runs)
    assert (run.status, run.attempt, run.epoch, run.outputs_from) == ("pending", 0, None, None)
    assert (run.thread_id, run.graph_id, run.assistant_id, run.metadata) == ("t1", "agent", "a1", {"m": "r1"})
    assert (run.kwargs["input"], run.created_at) == ({"x": 1}, created.occurred_at)


async def test_a_claim_sets_epoch_and_attempt_and_the_first_attempt_says_where_outputs_begin(
    given: Applying, runs: Runs, contexts: CommandContexts
) -> None:
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed(outputs_from=7)),
        draft("t1", run_released(1, counts=True), epoch=1),
        draft("t1", run_claimed(attempt=2, outputs_from=20)),
    )
    run = await of(runs)
    assert (run.status, run.attempt, run.epoch, run.outputs_from) == ("running", 2, 3, 7)
    state = (await active(contexts))[R1]
    assert (state.status, state.attempt, state.epoch) == ("running", 2, 3)


async def test_lost_attempts_that_count_are_counted_once(given: Applying, env: ProjectorEnv) -> None:
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", run_released(1, counts=True), epoch=1),
        draft("t1", run_claimed(attempt=2)),
        draft("t1", run_released(3, counts=False), epoch=3),
    )
    row = await env.pool.fetchrow("SELECT status, counted_attempts, epoch, worker, claimed_at FROM read_v1.runs")
    assert row is not None
    assert tuple(row) == ("pending", 1, None, None, None)


async def test_a_checkpoint_of_the_run_shows_that_it_lives(given: Applying, env: ProjectorEnv) -> None:
    begun = draft("t1", thread_created(), run_created()), draft("t1", run_claimed())
    checkpoint = draft("t1", saved("c1"), stream="run-r1", epoch=1)
    await given(*begun, checkpoint)
    assert await env.pool.fetchval("SELECT last_commit_at FROM read_v1.runs") == checkpoint.occurred_at


async def test_the_end_is_kept_with_all_that_waiters_need(
    given: Applying, runs: Runs, contexts: CommandContexts
) -> None:
    finished = draft(
        "t1",
        run_finished(status="error", error={"error": "E", "message": "m"}, following=("b",), checkpoint_id="c9"),
        epoch=1,
    )
    await given(draft("t1", thread_created(), run_created()), draft("t1", run_claimed()), finished)
    run = await of(runs)
    assert (run.status, run.error, run.next, run.checkpoint_id) == (
        "error",
        {"error": "E", "message": "m"},
        ("b",),
        "c9",
    )
    assert (run.finished_event_id, run.outputs_to, run.epoch) == (finished.event_id, 99, None)
    assert await active(contexts) == {}


async def test_a_cancel_request_is_seen_by_deciders(given: Applying, runs: Runs, contexts: CommandContexts) -> None:
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", cancel_requested(), demands={Stream("thread-t1"): 1}),
    )
    assert (await active(contexts))[R1].cancel == "interrupt"
    assert (await of(runs)).cancel == {
        "action": "interrupt",
        "deadline": "2026-01-02T03:04:05.678901+00:00",
        "error": {"error": "UserInterrupt", "message": "m"},
    }


async def test_a_second_cancel_moves_no_deadline_and_swaps_no_action(given: Applying, runs: Runs) -> None:
    later = replace(cancel_requested(), action="rollback", deadline=START + timedelta(seconds=10))
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", cancel_requested(), demands={Stream("thread-t1"): 1}),
        draft("t1", later, demands={Stream("thread-t1"): 2}),
    )
    cancel = (await of(runs)).cancel
    assert cancel is not None
    assert (cancel["action"], cancel["deadline"]) == ("interrupt", "2026-01-02T03:04:05.678901+00:00")


@pytest.mark.parametrize(("error", "status"), [("UserInterrupt", "interrupted"), ("TimeoutError", "timeout")])
async def test_behind_an_accepted_cancel_a_run_shows_as_it_will_end(
    given: Applying, runs: Runs, error: str, status: str
) -> None:
    asked = replace(cancel_requested(), error={"error": error, "message": ""})
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", asked, demands={Stream("thread-t1"): 1}),
    )
    found = await runs.get(R1)
    assert found is not None
    assert (found.status, found.epoch) == (status, 1)
    assert [run.run_id for run in await runs.of_thread(T1, status=status)] == [R1]
    assert await runs.of_thread(T1, status="running") == []


async def test_behind_an_accepted_rollback_a_run_is_not_shown(given: Applying, runs: Runs) -> None:
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", cancel_requested(action="rollback"), demands={Stream("thread-t1"): 1}),
    )
    assert (await runs.get(R1), await runs.of_thread(T1)) == (None, [])
    assert (await of(runs)).epoch == 1  # clients that joined it still learn its end


async def test_deleted_and_rolled_back_runs_are_hidden(given: Applying, runs: Runs) -> None:
    await given(
        draft("t1", thread_created(), run_created("r1")),
        draft("t1", run_created("r2")),
        draft("t1", run_claimed("r1")),
        draft("t1", run_finished("r1"), epoch=2),
        draft("t1", run_deleted("r1")),
        draft("t1", run_claimed("r2")),
        draft("t1", run_finished("r2", status="rollback"), epoch=5),
    )
    assert await runs.of_thread(T1) == []
    assert await runs.get(R1) is None
    assert (await of(runs, RunId("r2"))).deleted


async def test_a_stateless_run_can_be_waited_for_after_its_thread_has_gone(given: Applying, runs: Runs) -> None:
    await given(
        draft("t1", thread_created(temporary=True), run_created()),
        draft("t1", run_claimed()),
        draft("t1", run_finished(view={"set": {"x": 1}}), thread_deleted(), epoch=1),
    )
    assert await runs.get(R1) is None
    run = await of(runs)
    assert (run.status, run.deleted, run.thread_deleted) == ("success", False, True)


async def test_deleting_a_thread_hides_its_active_runs(given: Applying, runs: Runs, contexts: CommandContexts) -> None:
    await given(
        draft("t1", thread_created(), run_created("r1")),
        draft("t1", run_created("r2")),
        draft("t1", run_claimed("r1")),
        draft("t1", thread_deleted()),
    )
    for run_id in (RunId("r1"), RunId("r2")):
        run = await of(runs, run_id)
        assert (run.deleted, run.thread_deleted, run.epoch) == (True, True, None)
    assert await active(contexts) == {}


async def test_the_runs_of_an_earlier_life_never_show(given: Applying, runs: Runs) -> None:
    await given(
        draft("t1", thread_created(), run_created("r1")),
        draft("t1", thread_deleted()),
        draft("t1", thread_created(), run_created("r2")),
    )
    assert [run.run_id for run in await runs.of_thread(T1)] == ["r2"]
    assert await runs.get(R1, include_deleted=True) is None


async def test_runs_are_listed_newest_first(given: Applying, runs: Runs) -> None:
    await given(
        draft("t1", thread_created(), run_created("r1")),
        draft("t1", run_created("r2")),
        draft("t1", run_created("r3")),
        draft("t1", run_claimed("r1")),
    )
    assert [run.run_id for run in await runs.of_thread(T1)] == ["r3", "r2", "r1"]
    assert [run.run_id for run in await runs.of_thread(T1, limit=1, offset=1)] == ["r2"]
    assert [run.run_id for run in await runs.of_thread(T1, status="running")] == ["r1"]
    assert await runs.of_thread(T1, status="unknown") == []


async def test_ready_is_the_oldest_run_that_is_due_where_none_is_claimed(given: Applying, env: ProjectorEnv) -> None:
    late = run_created("late", due_at=START + timedelta(days=36500))
    await given(
        draft("t1", thread_created(), late),
        draft("t1", run_created("first")),
        draft("t1", run_created("second")),
        draft("t2", thread_created("t2"), run_created("claimed", "t2")),
        draft("t2", run_created("behind", "t2")),
        draft("t2", run_claimed("claimed")),
        draft("t3", thread_created("t3"), run_created("due", "t3", due_at=START)),
    )
    async with env.pool.acquire() as connection:
        ready = await ready_of_partitions(connection, [0])
        assert sorted(run.run_id for run in ready) == ["due", "first"]
        assert [run.run_id for run in await ready_of_threads(connection, ["t1", "t2"])] == ["first"]


async def test_only_present_partitions_have_due_runs(given: Applying, env: ProjectorEnv) -> None:
    queries = PostgresWorkerQueries(env.pool)
    await given(draft("t1", thread_created(), run_created(due_at=START)))
    assert await queries.ready(10) == []
    await env.pool.execute("INSERT INTO ledger.positions (partition, present) VALUES (0, true)")
    assert [run.run_id for run in await queries.ready(10)] == ["r1"]


async def pages(runs: Runs, status: str, limit: int = 1000) -> list[str]:
    """Return the active runs with a status, read page by page."""
    found: list[str] = []
    after = None
    while page := await runs.active(status, START + timedelta(days=1), after, limit):
        assert len(page) <= limit
        found += [run.run_id for run in page]
        after = page[-1]
    return found


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_active_runs_are_listed_by_their_status(given: Applying, runs: Runs, limit: int) -> None:
    await given(
        draft("t1", thread_created(), run_created("r1")),
        draft("t1", run_created("r2")),
        draft("t1", run_created("r3")),
        draft("t1", run_claimed("r1")),
        draft("t1", cancel_requested("r3"), demands={Stream("thread-t1"): 3}),
        draft("t2", thread_created("t2"), run_created("r4", "t2")),
        draft("t3", thread_created("t3"), run_created("r5", "t3")),
        draft("t3", thread_deleted("t3")),
    )
    assert await pages(runs, "all", limit) == ["r1", "r2", "r4"]
    assert await pages(runs, "pending", limit) == ["r2", "r4"]
    assert await pages(runs, "running", limit) == ["r1"]
    assert await runs.active("all", START, None, limit) == []
