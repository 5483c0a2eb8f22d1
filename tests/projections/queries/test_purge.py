"""Purge of deleted threads: hidden at once, erased after the retention, and then free to be created again."""

from datetime import timedelta

from tests.projections.facts import (
    full,
    patched,
    run_claimed,
    run_created,
    saved,
    thread_created,
    thread_deleted,
    written,
)
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.ids import ThreadId
from agentlog_projections.models.registry import TYPES
from agentlog_projections.models.threads import Threads
from agentlog_projections.queries.purge import purge_deleted


async def test_rows_of_deleted_threads_go_after_the_retention_and_the_thread_can_be_made_again(
    env: ProjectorEnv,
) -> None:
    env.append(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", saved("c1", full("x", "1", 1)), written("c1", "task", (0, "x", 1)), stream="run-r1", epoch=1),
        draft("t1", thread_deleted()),
    )
    async with env.projector():
        await env.folded()
        assert await purge_deleted(env.pool, timedelta(days=36500)) == 0
        assert await purge_deleted(env.pool, timedelta()) == 1
        for table in (table for model in TYPES for table in model.tables):
            assert await env.pool.fetchval(f"SELECT count(*) FROM read_v1.{table}") == 0, table
        env.append(draft("t1", thread_created(metadata={"new": 1})))
        await env.folded()
    thread = await Threads(env.pool).get(ThreadId("t1"))
    assert thread is not None
    assert (thread.metadata, thread.version) == ({"new": 1}, 3)


async def test_an_id_that_is_used_again_after_the_purge_continues_the_versions_of_its_metadata(
    env: ProjectorEnv,
) -> None:
    env.append(
        draft("t1", thread_created()),
        draft("t1", patched({"a": 1}), stream="meta-t1"),
        draft("t1", thread_deleted()),
    )
    async with env.projector():
        await env.folded()
        assert await purge_deleted(env.pool, timedelta()) == 1
        env.append(draft("t1", thread_created()))
    async with env.projector():  # another one, whose cache has no row of the purged thread
        await env.folded()
        thread = await Threads(env.pool).get(ThreadId("t1"))
        assert thread is not None
        assert thread.meta_version == 0, "what the guard holds"
