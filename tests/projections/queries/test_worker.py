"""Queue of a thread: given facts, then the run that is pushed, and the run that passes the check before a claim."""

from datetime import timedelta

import pytest
from tests.projections.facts import (
    cancel_requested,
    run_claimed,
    run_created,
    run_finished,
    run_released,
    thread_created,
)
from tests.projections.models.applying import Applying
from tests.projections.projector_env import START, ProjectorEnv, draft

from agentlog_facts.envelope import Draft
from agentlog_facts.ids import RunId, Stream
from agentlog_projections.projector.ready_runs import ready_of_threads
from agentlog_projections.queries.postgres_worker import PostgresWorkerQueries
from agentlog_projections.queries.worker import WorkerQueries

ON_THREAD = Stream("thread-t1")
LATER = START + timedelta(days=36500)


@pytest.fixture
async def duties(env: ProjectorEnv) -> WorkerQueries:
    await env.pool.execute("INSERT INTO ledger.positions (partition, present) VALUES (0, true)")
    return PostgresWorkerQueries(env.pool)


async def claimable(env: ProjectorEnv, duties: WorkerQueries) -> list[str]:
    """Return the runs of t1 that may be claimed; pushes, the reconciler and the check before a claim must agree."""
    async with env.pool.acquire() as connection:
        pushed = [run.run_id for run in await ready_of_threads(connection, ["t1"])]
    assert [run.run_id for run in await duties.ready(10)] == pushed
    known = [RunId(row["run_id"]) for row in await env.pool.fetch("SELECT run_id FROM read_v1.runs ORDER BY seq")]
    looked = [run_id for run_id in known if (work := await duties.work(run_id)) is not None and work.ready]
    assert looked == pushed
    return [*pushed]


def two_runs() -> list[Draft]:
    return [draft("t1", thread_created(), run_created("first")), draft("t1", run_created("second"))]


async def test_the_first_run_of_a_thread_may_be_claimed_and_the_second_waits(
    given: Applying, env: ProjectorEnv, duties: WorkerQueries
) -> None:
    await given(*two_runs())
    assert await claimable(env, duties) == ["first"]


async def test_nothing_may_be_claimed_while_a_run_of_the_thread_is(
    given: Applying, env: ProjectorEnv, duties: WorkerQueries
) -> None:
    await given(*two_runs(), draft("t1", run_claimed("first")))
    assert await claimable(env, duties) == []


async def test_nothing_may_be_claimed_while_a_cancelled_run_waits_to_be_ended(
    given: Applying, env: ProjectorEnv, duties: WorkerQueries
) -> None:
    await given(
        *two_runs(),
        draft("t1", run_claimed("first")),
        draft("t1", cancel_requested("first"), demands={ON_THREAD: 2}),
        draft("t1", run_released(2, "first"), demands={ON_THREAD: 3}),
    )
    assert await claimable(env, duties) == []
    assert [left.run_id for left in await duties.leftovers(3)] == ["first"]


async def test_the_next_run_may_be_claimed_once_the_cancelled_one_has_its_end(
    given: Applying, env: ProjectorEnv, duties: WorkerQueries
) -> None:
    await given(
        *two_runs(),
        draft("t1", run_claimed("first")),
        draft("t1", cancel_requested("first"), demands={ON_THREAD: 2}),
        draft("t1", run_released(2, "first"), demands={ON_THREAD: 3}),
        draft("t1", run_finished("first", status="interrupted"), demands={ON_THREAD: 4}),
    )
    assert await claimable(env, duties) == ["second"]


async def test_a_released_run_goes_before_an_older_one_that_fell_due_meanwhile(
    given: Applying, env: ProjectorEnv, duties: WorkerQueries
) -> None:
    await given(
        draft("t1", thread_created(), run_created("delayed", due_at=LATER)),
        draft("t1", run_created("released")),
        draft("t1", run_claimed("released")),
        draft("t1", run_released(2, "released"), epoch=2),
    )
    await env.pool.execute("UPDATE read_v1.runs SET due_at = $1 WHERE run_id = 'delayed'", START)
    assert await claimable(env, duties) == ["released"]


async def test_a_delayed_run_holds_nobody_up(given: Applying, env: ProjectorEnv, duties: WorkerQueries) -> None:
    await given(
        draft("t1", thread_created(), run_created("delayed", due_at=LATER)),
        draft("t1", run_created("prompt")),
    )
    assert await claimable(env, duties) == ["prompt"]


async def test_no_duty_acts_on_a_thread_in_quarantine_again_and_again(
    given: Applying, env: ProjectorEnv, duties: WorkerQueries
) -> None:
    await given(
        draft("t1", thread_created("t1"), run_created("ready")),
        draft("t2", thread_created("t2"), run_created("claimed", "t2")),
        draft("t2", run_claimed("claimed")),
        draft("t3", thread_created("t3"), run_created("left", "t3")),
        draft("t3", run_claimed("left")),
        draft("t3", cancel_requested("left"), demands={Stream("thread-t3"): 1}),
        draft("t3", run_released(1, "left"), demands={Stream("thread-t3"): 2}),
    )
    assert [run.run_id for run in await duties.ready(10)] == ["ready"]
    assert [claim.run_id for claim in await duties.claims(10)] == ["claimed"]
    assert [left.run_id for left in await duties.leftovers(3)] == ["left"]
    await env.pool.execute(
        "INSERT INTO ledger.quarantine SELECT 'threads', key, 0, 0, 'error', 1, 1, 1, '{}'"
        " FROM unnest(ARRAY['t1', 't2', 't3']) AS key"
    )
    assert [await duties.ready(10), await duties.claims(10), await duties.leftovers(3)] == [[], [], []]
    assert await claimable(env, duties) == []


async def test_a_run_knows_what_its_thread_showed_before_it(
    given: Applying, env: ProjectorEnv, duties: WorkerQueries
) -> None:
    await given(
        *two_runs(),
        draft("t1", run_claimed("first")),
        draft("t1", run_finished("first", {"set": {"x": 1}}, following=("ask", "act")), epoch=2),
    )
    work = await duties.work(RunId("second"))
    assert work is not None
    assert (work.values, work.next) == ({"x": 1}, ("ask", "act"))
