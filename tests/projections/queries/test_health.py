"""Health of the projection: a partition without progress is told from one that is idle or busy."""

from tests.projections.facts import patched, thread_created
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.ids import Key
from agentlog_projections.queries.health import ProjectionHealth, health

LONG_AGO = "UPDATE ledger.positions SET moved_at = clock_timestamp() - interval '1 minute'"


async def test_a_record_that_waits_long_behind_a_position_that_does_not_move_is_a_stall(env: ProjectorEnv) -> None:
    """/ready was true, and doctor content, while no write of any client succeeded."""
    await env.given(draft("t1", thread_created("t1")))
    partition = env.log.partition_of(Key("t1"))
    idle = await health(env.pool, env.log)
    assert (idle.behind, idle.stalled) == ({}, {})
    env.append(draft("t1", patched({"a": 1}, "t1"), stream="meta-t1"))
    busy = await health(env.pool, env.log)
    assert (busy.behind, busy.stalled) == ({partition: 1}, {})
    await env.pool.execute(LONG_AGO)
    found = await health(env.pool, env.log)
    assert list(found.stalled) == list(found.without_progress) == [partition]
    assert "at offset 1, 1 records behind" in found.stalled[partition]
    async with env.projector():
        await env.folded()
    assert (await health(env.pool, env.log)).without_progress == {}


async def test_an_idle_partition_is_no_stall(env: ProjectorEnv) -> None:
    await env.given(draft("t1", thread_created("t1")))
    await env.pool.execute(LONG_AGO)
    assert (await health(env.pool, env.log)).without_progress == {}


def test_only_a_stop_for_a_newer_release_leaves_the_service_ready() -> None:
    stopped = {0: "unknown schema at 7: fact X", 1: "cannot be read at 5: blob 4711", 2: "log diverged: shorter"}
    assert list(ProjectionHealth(0, (), stopped, {}).without_progress) == [1, 2]
