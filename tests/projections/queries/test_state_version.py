"""Version of the rows of a thread's states: a new one after each commit of the thread, none while it is not exact."""

import pytest
from tests.projections.facts import full, run_claimed, run_created, saved, thread_created, thread_deleted
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.errors import Quarantined
from agentlog_facts.ids import ThreadId
from agentlog_projections.queries.state_version import PostgresStateVersions, StateVersion

THREAD = ThreadId("t1")
PARK = """
INSERT INTO ledger.quarantine (model, key, partition, "offset", error, version, ordinal, ended)
VALUES ('checkpoints', 't1', 0, 0, 'error', 0, 0, '{}')
"""


async def version_of(env: ProjectorEnv) -> StateVersion:
    found = await PostgresStateVersions(env.pool).get(THREAD)
    assert found is not None
    return found


async def test_every_commit_of_the_aggregate_gives_another_version_and_no_other_commit(
    env: ProjectorEnv,
) -> None:
    await env.given(draft("t1", thread_created()))
    seen = [await version_of(env)]
    for commit in (
        draft("t1", run_created()),
        draft("t1", run_claimed()),
        draft("t1", saved("c1", full("x", "1", 1)), stream="run-r1", epoch=2),
    ):
        await env.given(commit)
        seen.append(await version_of(env))
    assert [one.graph_id for one in seen] == [None, *["agent"] * 3]
    assert len({one.version for one in seen} - {None}) == 4
    await env.given(draft("t2", thread_created("t2")))
    assert await version_of(env) == seen[-1]


async def test_a_fold_of_the_same_log_from_its_start_gives_another_version(env: ProjectorEnv) -> None:
    await env.given(draft("t1", thread_created()))
    before = await version_of(env)
    await env.reset()
    await env.given()
    assert await version_of(env) != before


async def test_states_of_a_thread_in_quarantine_are_not_read(env: ProjectorEnv) -> None:
    await env.given(draft("t1", thread_created(), run_created()), draft("t2", thread_created("t2")))
    await env.pool.execute(PARK)
    with pytest.raises(Quarantined, match="t1"):
        await version_of(env)
    assert await PostgresStateVersions(env.pool).get(ThreadId("t2")) is not None


@pytest.mark.parametrize(
    "change", ["UPDATE ledger.positions SET present = false", "UPDATE ledger.positions SET stopped = 'log diverged'"]
)
async def test_there_is_no_version_while_rows_may_change_without_one(env: ProjectorEnv, change: str) -> None:
    await env.given(draft("t1", thread_created(), run_created()))
    await env.pool.execute(change)
    assert await version_of(env) == StateVersion("agent", None)


async def test_a_deleted_thread_has_no_version_and_one_made_again_has_a_new_one(env: ProjectorEnv) -> None:
    await env.given(draft("t1", thread_created()))
    before = await version_of(env)
    await env.given(draft("t1", thread_deleted()))
    assert await PostgresStateVersions(env.pool).get(THREAD) is None
    await env.given(draft("t1", thread_created()))
    assert await version_of(env) != before
