"""Contract of `WorkerQueries`, over rows in memory and in PostgreSQL."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.contracts.rows_envs import RowsEnv
from tests.projections.facts import (
    ASSISTANT,
    cancel_requested,
    full,
    patched,
    run_claimed,
    run_created,
    run_finished,
    run_released,
    saved,
    thread_created,
    thread_deleted,
    written,
)
from tests.projections.projector_env import START, draft

from agentlog_commands.claims import CancelRequest
from agentlog_facts.checkpoint import CheckpointSaved, WritesSaved
from agentlog_facts.envelope import Draft
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId, Stream, ThreadId
from agentlog_facts.thread import RunAlive
from agentlog_projections.queries.worker import ClaimStatus, UnfinishedRun
from agentlog_projections.sql.claimable import ReadyRun

T1, R1 = ThreadId("t1"), RunId("r1")
ON_T1 = Stream("thread-t1")
CANCEL = CancelRequest("interrupt", START, {"error": "UserInterrupt", "message": "m"})
SOON = timedelta(hours=1)


def two_runs() -> list[Draft]:
    return [draft("t1", thread_created(), run_created("first")), draft("t1", run_created("second"))]


def cancelled_and_released(run: str, thread: str) -> list[Draft]:
    """Return commits after which a run has a cancel request but no worker that ends it."""
    name = Stream(f"thread-{thread}")
    return [
        draft(thread, thread_created(thread), run_created(run, thread)),
        draft(thread, run_claimed(run)),
        draft(thread, cancel_requested(run), demands={name: 1}),
        draft(thread, run_released(1, run), demands={name: 2}),
    ]


def elsewhere(rows: RowsEnv) -> str:
    """Return a thread of another partition than that of t1."""
    return next(f"u{number}" for number in range(99) if rows.partition_of(f"u{number}") != rows.partition_of("t1"))


async def ready(rows: RowsEnv) -> list[str]:
    """Return the runs that may be claimed; the reconciler's look and the look before a claim must agree."""
    found = [run.run_id for run in await rows.queries.ready(10)]
    for run_id in ("first", "second", "delayed", "released"):
        work = await rows.queries.work(RunId(run_id))
        assert (work is not None and work.ready) == (run_id in found), run_id
    return [*found]


async def test_a_run_comes_with_what_its_execution_needs(rows: RowsEnv) -> None:
    await rows.given(
        *two_runs(),
        draft("t1", patched({"m": 1}), stream="meta-t1"),
        draft("t1", run_claimed("first")),
        draft("t1", run_finished("first", {"set": {"x": 1}}, following=("ask", "act")), epoch=2),
    )
    work = await rows.queries.work(RunId("second"))
    assert work is not None
    assert (work.run_id, work.thread_id, work.graph_id, work.assistant) == ("second", T1, "agent", ASSISTANT)
    assert (work.kwargs, work.metadata) == ({"input": {"x": 1}, "config": {}}, {"m": "second"})
    assert (work.temporary, work.attempt, work.counted, work.epoch, work.cancel) == (False, 0, 0, None, None)
    assert (work.ready, work.active, work.version) == (True, True, 3)
    assert work.thread_metadata == {"m": 1, "graph_id": "agent", "assistant_id": "a1"}
    assert (work.values, work.next) == ({"x": 1}, ("ask", "act"))
    ended = await rows.queries.work(RunId("first"))
    assert ended is not None
    assert (ended.ready, ended.active, ended.attempt, ended.epoch) == (False, False, 1, None)


async def test_a_thread_without_state_shows_no_values(rows: RowsEnv) -> None:
    await rows.given(*two_runs())
    work = await rows.queries.work(RunId("first"))
    assert work is not None
    assert (work.values, work.next) == (None, ())


@pytest.mark.parametrize(
    "fact", [saved("c1", full("x", "1", 1), run="first"), written("c1", "task", (0, "x", 1), run="first")]
)
async def test_a_thread_has_checkpoints_once_a_run_has_saved_one_or_writes_on_one(
    rows: RowsEnv, fact: CheckpointSaved | WritesSaved
) -> None:
    await rows.given(*two_runs(), draft("t1", run_claimed("first")))
    work = await rows.queries.work(RunId("second"))
    assert work is not None
    assert not work.has_checkpoints
    await rows.given(draft("t1", fact, stream="run-first", epoch=2))
    work = await rows.queries.work(RunId("second"))
    assert work is not None
    assert work.has_checkpoints


async def test_no_run_is_executed_that_is_unknown_or_of_a_deleted_thread(rows: RowsEnv) -> None:
    await rows.given(*two_runs(), draft("t1", thread_deleted()))
    assert await rows.queries.work(RunId("nobody")) is None
    assert await rows.queries.work(RunId("first")) is None


async def test_the_first_run_of_a_thread_may_be_claimed_and_the_second_waits(rows: RowsEnv) -> None:
    await rows.given(*two_runs())
    assert await ready(rows) == ["first"]
    assert await rows.queries.ready(10) == [ReadyRun(RunId("first"), "agent")]


async def test_nothing_may_be_claimed_while_a_run_of_the_thread_is(rows: RowsEnv) -> None:
    await rows.given(*two_runs(), draft("t1", run_claimed("first")))
    assert await ready(rows) == []


async def test_nothing_may_be_claimed_while_a_cancelled_run_waits_to_be_ended(rows: RowsEnv) -> None:
    await rows.given(*cancelled_and_released("first", "t1"), draft("t1", run_created("second")))
    assert await ready(rows) == []
    assert await rows.queries.leftovers(3) == [UnfinishedRun(RunId("first"), T1, 0, CANCEL, deaths=1)]


async def test_a_released_run_goes_before_an_older_one_that_fell_due_meanwhile(rows: RowsEnv) -> None:
    await rows.given(
        draft("t1", thread_created(), run_created("delayed", due_at=START)),
        draft("t1", run_created("released")),
        draft("t1", run_claimed("released")),
        draft("t1", run_released(2, "released"), epoch=2),
    )
    assert await ready(rows) == ["released"]


async def test_a_delayed_run_holds_nobody_up(rows: RowsEnv) -> None:
    later = datetime.now(UTC) + SOON
    await rows.given(
        draft("t1", thread_created(), run_created("delayed", due_at=later)), draft("t1", run_created("second"))
    )
    assert await ready(rows) == ["second"]


async def test_the_oldest_runs_are_offered_first_and_so_many_as_are_asked_for(rows: RowsEnv) -> None:
    for thread in ("t1", "t2", "t3"):
        await rows.given(draft(thread, thread_created(thread), run_created(f"r-{thread}", thread)))
    assert [run.run_id for run in await rows.queries.ready(2)] == ["r-t1", "r-t2"]


async def test_a_look_ahead_tells_when_the_next_run_is_due(rows: RowsEnv) -> None:
    assert await rows.queries.next_due() is None
    now = datetime.now(UTC)
    await rows.given(
        draft("t1", thread_created(), run_created("late", due_at=now + 2 * SOON)),
        draft("t1", run_created("soon", due_at=now + SOON)),
        draft("t1", run_created("due", due_at=now - SOON)),
    )
    ahead = await rows.queries.next_due()
    assert ahead is not None
    assert SOON - timedelta(minutes=5) < ahead <= SOON


async def test_claims_are_told_the_oldest_first_with_what_the_run_last_did(rows: RowsEnv) -> None:
    for thread in ("t1", "t2"):
        await rows.given(
            draft(thread, thread_created(thread), run_created(f"r-{thread}", thread)),
            draft(thread, run_claimed(f"r-{thread}")),
        )
    checkpoint = draft("t2", saved("c1", full("x", "1", 1), run="r-t2", thread="t2"), stream="run-r-t2", epoch=1)
    await rows.given(checkpoint)
    one, other = await rows.queries.claims(10)
    assert (one.run_id, one.thread_id, one.graph_id, one.worker) == ("r-t1", T1, "agent", "worker-1")
    assert (one.epoch, one.attempt, one.counted, one.temporary, one.cancel) == (1, 1, 0, False, None)
    assert one.committed_at is None
    assert one.claimed_at < other.claimed_at < checkpoint.occurred_at == other.committed_at
    assert [claim.progressed for claim in (one, other)] == [False, False]
    assert [(await rows.queries.with_progress(claim)).progressed for claim in (one, other)] == [False, True]
    assert [claim.run_id for claim in await rows.queries.claims(1)] == ["r-t1"]


async def test_a_sign_of_life_counts_as_a_commit_and_not_as_progress(rows: RowsEnv) -> None:
    await rows.given(draft("t1", thread_created(), run_created()), draft("t1", run_claimed()))
    alive = draft("t1", RunAlive(R1), stream="run-r1", epoch=1)
    await rows.given(alive)
    [claim] = await rows.queries.claims(10)
    assert claim.committed_at == alive.occurred_at
    assert not (await rows.queries.with_progress(claim)).progressed


async def test_only_checkpoints_behind_the_claim_are_progress(rows: RowsEnv) -> None:
    await rows.given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", saved("c1", full("x", "1", 1)), stream="run-r1", epoch=1),
        draft("t1", run_released(1, counts=True), epoch=1),
        draft("t1", run_claimed(attempt=2)),
    )
    [claim] = await rows.queries.claims(10)
    assert (claim.epoch, claim.attempt, claim.counted) == (3, 2, 1)
    assert not (await rows.queries.with_progress(claim)).progressed


async def test_a_run_that_was_lost_too_often_is_left_to_be_ended(rows: RowsEnv) -> None:
    await rows.given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", run_released(1, counts=True), epoch=1),
    )
    assert await rows.queries.leftovers(1) == []
    assert await rows.queries.leftovers(0) == [UnfinishedRun(R1, T1, 1, None, deaths=1)]


async def test_a_run_whose_worker_died_is_a_suspect_and_is_left_to_be_ended_once_it_is_named(rows: RowsEnv) -> None:
    await rows.given(draft("t1", thread_created(), run_created()))
    for number, epoch in enumerate((1, 3, 5)):
        claimed = replace(run_claimed(), attempt=number + 1)
        await rows.given(draft("t1", claimed))
        [claim] = await rows.queries.claims(10)
        assert claim.deaths == number
        await rows.given(draft("t1", run_released(epoch, counts=number > 0), epoch=epoch))
        assert await rows.queries.ready(10) == [ReadyRun(R1, "agent", suspect=True)]
    found = await rows.queries.work(R1)
    assert found is not None
    assert (found.deaths, found.counted) == (3, 2)
    assert await rows.queries.leftovers(9) == [UnfinishedRun(R1, T1, 2, None, deaths=3)]


async def test_a_drained_run_and_a_suspect_with_progress_are_no_nearer_to_their_end(rows: RowsEnv) -> None:
    await rows.given(draft("t1", thread_created(), run_created()))
    for number, (reason, deaths) in enumerate((("drain", 0), ("lost", 1), ("lost", 1))):
        await rows.given(draft("t1", replace(run_claimed(), attempt=number + 1)))
        epoch = 2 * number + 1
        await rows.given(draft("t1", replace(run_released(epoch), reason=reason, counts=False), epoch=epoch))
        found = await rows.queries.work(R1)
        assert found is not None
        assert found.deaths == deaths


async def test_a_worker_sees_what_became_of_its_claim(rows: RowsEnv) -> None:
    await rows.given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", cancel_requested(), demands={ON_T1: 1}),
    )
    nobody = RunId("nobody")
    found = await rows.queries.marks({R1: T1, nobody: T1, RunId("r2"): ThreadId("unknown")})
    assert found == {R1: ClaimStatus(1, "worker-1", CANCEL, 2), nobody: ClaimStatus(None, None, None, 2)}
    await rows.given(draft("t1", run_finished(status="interrupted"), demands={ON_T1: 2}))
    assert await rows.queries.marks({R1: T1}) == {R1: ClaimStatus(None, "worker-1", CANCEL, 3)}


async def test_the_version_of_a_run_is_that_of_its_last_accepted_checkpoint(rows: RowsEnv) -> None:
    await rows.given(draft("t1", thread_created(), run_created()), draft("t1", run_claimed()))
    assert await rows.queries.run_version(T1, R1) is None
    await rows.given(
        draft("t1", saved("c1", full("x", "1", 1)), stream="run-r1", epoch=1),
        draft("t1", saved("c2", full("x", "2", 1)), stream="run-r1", epoch=1),
        draft("t1", saved("c3", full("x", "3", 1)), stream="run-r1", epoch=9),
    )
    assert await rows.queries.run_version(T1, R1) == 1


async def test_a_partition_that_is_being_built_tells_nothing_and_the_others_do(rows: RowsEnv) -> None:
    other = elsewhere(rows)
    for thread in ("t1", other):
        await rows.given(
            draft(thread, thread_created(thread), run_created(f"r-{thread}", thread)),
            draft(thread, run_claimed(f"r-{thread}")),
        )
    mine, theirs = RunId("r-t1"), RunId(f"r-{other}")
    await rows.build_anew(rows.partition_of("t1"))
    assert [claim.run_id for claim in await rows.queries.claims(10)] == [theirs]
    assert (await rows.queries.marks({mine: T1, theirs: ThreadId(other)})).keys() == {theirs}
    assert await rows.queries.work(mine) is None
    assert await rows.queries.work(theirs) is not None
    assert await rows.queries.run_version(ThreadId(other), theirs) is None
    for thread_id, run_id in ((T1, mine), (ThreadId("unknown"), mine)):
        with pytest.raises(Unavailable, match="being built"):
            await rows.queries.run_version(thread_id, run_id)


async def test_no_ready_run_and_none_left_over_is_told_of_a_partition_that_is_being_built(rows: RowsEnv) -> None:
    other = elsewhere(rows)
    await rows.given(draft("t1", thread_created(), run_created("first")), *cancelled_and_released("left", other))
    for thread in ("t1", other):
        await rows.build_anew(rows.partition_of(thread))
    assert [*await rows.queries.ready(10), *await rows.queries.leftovers(3)] == []


async def test_nothing_is_done_on_a_thread_in_quarantine(rows: RowsEnv) -> None:
    await rows.given(
        draft("t1", thread_created(), run_created("first")),
        draft("t2", thread_created("t2"), run_created("claimed", "t2")),
        draft("t2", run_claimed("claimed")),
        *cancelled_and_released("left", "t3"),
    )
    for thread in ("t1", "t2", "t3"):
        await rows.quarantine(thread)
    queries = rows.queries
    assert [*await queries.ready(10), *await queries.claims(10), *await queries.leftovers(3)] == []
    assert await queries.work(RunId("first")) is None


async def test_ready_runs_of_a_graph_are_found_once_they_have_waited_long(rows: RowsEnv) -> None:
    await rows.given(
        draft("t1", thread_created(), run_created("first")),
        draft("t1", run_created("second")),
        draft("t2", thread_created("t2"), run_created("delayed", "t2", due_at=datetime.now(UTC) + SOON)),
    )
    long_ago = datetime.now(UTC) - START
    assert await rows.queries.waiting_graphs() == {"agent"}
    assert await rows.queries.waiting_long(["other"], timedelta()) == []
    assert await rows.queries.waiting_long(["agent"], long_ago + SOON) == []
    assert await rows.queries.waiting_long(["agent", "other"], long_ago - SOON) == [
        UnfinishedRun(RunId("first"), T1, 0, None)
    ]


async def test_a_graph_waits_only_where_one_of_its_runs_may_be_claimed(rows: RowsEnv) -> None:
    await rows.given(
        draft("t1", thread_created(), run_created("first")),
        draft("t1", run_claimed("first")),
        draft("t1", run_created("second")),
    )
    assert await rows.queries.waiting_graphs() == set()
    assert await rows.queries.waiting_long(["agent"], timedelta()) == []
