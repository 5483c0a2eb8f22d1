"""Status rows of runs: the end of a run, and the values of its thread on request."""

import pytest
from tests.projections.facts import run_claimed, run_created, run_finished, thread_created
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.ids import RunId
from agentlog_facts.state_diff import diff_state
from agentlog_projections.queries.run_status import RunStatusRow, RunStatusRows

PLANS_BEFORE_A_GENERIC_ONE = 5
"""Executions that PostgreSQL plans for their own arguments before it compares the costs with those of one plan."""
R1, R2, R3 = RunId("r1"), RunId("r2"), RunId("r3")


@pytest.fixture
async def runs(env: ProjectorEnv) -> RunStatusRows:
    """Return the status rows over two ended runs of one thread, and a pending one."""
    env.append(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", run_finished("r1", view=diff_state({}, {"n": 1})), epoch=1),
        draft("t1", run_created("r2")),
        draft("t1", run_claimed("r2")),
        draft("t1", run_finished("r2", view=diff_state({"n": 1}, {"n": 2})), epoch=4),
        draft("t1", run_created("r3")),
    )
    async with env.projector():
        await env.folded()
    return RunStatusRows(env.pool)


async def row(runs: RunStatusRows, run_id: RunId, *with_values: RunId) -> RunStatusRow:
    found = (await runs.rows([run_id], with_values))[run_id]
    assert found is not None
    return found


async def test_values_are_those_of_the_run_that_moved_the_thread_last(runs: RunStatusRows) -> None:
    found = await row(runs, R2, R2)
    assert (found.ended, found.newest, found.values) == (True, True, {"n": 2})


@pytest.mark.parametrize(("run_id", "asked"), [(R2, R1), (R1, R1), (R3, R3)])
async def test_no_values_come_unasked_nor_of_earlier_or_active_runs(
    runs: RunStatusRows, run_id: RunId, asked: RunId
) -> None:
    found = await row(runs, run_id, asked)
    assert found.values is None
    assert found.ended is (run_id != R3)


async def test_a_run_that_nobody_created_has_no_row(runs: RunStatusRows) -> None:
    nobody = RunId("nobody")
    assert await runs.rows([nobody], [nobody]) == {nobody: None}


async def test_several_runs_are_read_at_once(runs: RunStatusRows) -> None:
    nobody = RunId("nobody")
    found = await runs.rows([R1, R2, nobody], [R2])
    assert found == {R1: await row(runs, R1), R2: await row(runs, R2, R2), nobody: None}


async def test_the_lookup_of_one_run_is_planned_once(runs: RunStatusRows, env: ProjectorEnv) -> None:
    for _ in range(PLANS_BEFORE_A_GENERIC_ONE + 3):
        await row(runs, R2, R2)
    async with env.pool.acquire() as connection:
        plans = await connection.fetch(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE $1", "%r.outputs_from%"
        )
    assert [tuple(one) for one in plans] == [(3, PLANS_BEFORE_A_GENERIC_ONE)]
