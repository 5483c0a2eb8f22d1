"""Figures of runs that have not ended: numbers, and how long those which are due have waited."""

from datetime import UTC, datetime, timedelta

from tests.projections.facts import run_claimed, run_created, run_finished, thread_created
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_projections.queries.run_health import QueueFigures, queue_figures

LATER = datetime.now(UTC) + timedelta(hours=1)


async def test_without_runs_nobody_waits(env: ProjectorEnv) -> None:
    await env.given(draft("t1", thread_created(), run_created()), draft("t1", run_claimed()))
    await env.given(draft("t1", run_finished("r1"), epoch=1))
    assert await queue_figures(env.pool) == (QueueFigures(0, 0, None, None, None), {})


async def test_a_run_that_is_not_due_is_counted_and_has_not_waited(env: ProjectorEnv) -> None:
    await env.given(draft("t1", thread_created(), run_created(due_at=LATER)))
    every, graphs = await queue_figures(env.pool)
    assert every == QueueFigures(1, 0, None, None, None)
    assert graphs == {"agent": every}


async def test_runs_that_are_due_have_waited_and_a_run_behind_another_is_blocked(env: ProjectorEnv) -> None:
    await env.given(
        draft("t1", thread_created(), run_created("r1")),
        draft("t1", run_claimed("r1")),
        draft("t1", run_created("r2")),
        draft("t2", thread_created("t2"), run_created("r3", "t2")),
    )
    ages = {"r1": 90, "r2": 60, "r3": 20}
    for run_id, age_s in ages.items():
        moved = "UPDATE read_v1.runs SET created_at = clock_timestamp() - $2::interval WHERE run_id = $1"
        await env.pool.execute(moved, run_id, timedelta(seconds=age_s))
    every, graphs = await queue_figures(env.pool)
    assert (every.pending, every.running) == (2, 1)
    assert [_tens(one) for one in (every.longest_s, every.median_s, every.longest_first_s)] == [60, 40, 20]
    assert list(graphs) == ["agent"]


def _tens(seconds: float | None) -> int:
    assert seconds is not None
    return int(seconds) // 10 * 10
