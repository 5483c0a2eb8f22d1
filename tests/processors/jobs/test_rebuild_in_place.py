"""Tests of the rebuild into the live tables: dropped rows, and the state after an interruption."""

from collections.abc import AsyncGenerator

import pytest
from tests.processors.jobs.rebuilding import (
    SIGNED,
    WHICH,
    Interrupting,
    lose_connections,
    rebuilt_in_place,
    rows_are_there,
    three_threads,
)
from tests.projections.projector_env import ProjectorEnv
from tests.stack_fixtures import RunningStack

from agentlog_facts.errors import Misconfigured
from agentlog_processors.jobs.rebuild_session import Cancelled, Found, cancel


@pytest.fixture
async def env(stack: RunningStack) -> AsyncGenerator[ProjectorEnv]:
    """Yield a database with the rows of three threads."""
    async with three_threads(stack) as made:
        yield made


async def test_rows_are_rows_however_far_behind_the_log_they_are(env: ProjectorEnv) -> None:
    await env.pool.execute("UPDATE ledger.positions SET present = false")
    assert await rows_are_there(env)
    await env.pool.execute("DELETE FROM ledger.positions")
    assert await rows_are_there(env)
    await env.pool.execute("DELETE FROM ledger.log_index")
    assert not await rows_are_there(env)


async def test_damaged_rows_are_left_alone(env: ProjectorEnv) -> None:
    await env.pool.execute("DROP TABLE ledger.quarantine")
    with pytest.raises(Misconfigured, match=r"ledger\.quarantine: live rows exist, but this table is missing"):
        await rows_are_there(env)


async def test_a_rebuild_that_was_to_fill_empty_tables_drops_no_rows_that_came_meanwhile(env: ProjectorEnv) -> None:
    which = await env.pool.fetchval(WHICH)
    await rebuilt_in_place(env, dropping=False)
    assert await env.pool.fetchval(WHICH) == which
    await rebuilt_in_place(env, dropping=True)
    assert await env.pool.fetchval(WHICH) != which


async def test_a_rebuild_in_place_that_loses_its_connections_goes_on_where_it_was(env: ProjectorEnv) -> None:
    async def lose() -> None:
        await lose_connections(env)
        counted.append(await env.pool.fetchval("SELECT sum(next_offset) FROM ledger.positions"))

    counted: list[int] = []
    before = await env.dump()
    await rebuilt_in_place(env, Interrupting(env.log, lose), dropping=True)
    assert counted == [1]
    assert await env.dump() == before
    assert await env.pool.fetchval(SIGNED) is None


async def test_a_rebuild_in_place_that_is_cancelled_leaves_its_rows_to_a_projector(env: ProjectorEnv) -> None:
    async def stop() -> None:
        await cancel(env.uri, printed.append)

    printed: list[Found] = []
    before = await env.dump()
    with pytest.raises(Cancelled):
        await rebuilt_in_place(env, Interrupting(env.log, stop), dropping=True)
    assert printed == ["in place"]
    assert await env.dump() != before
    assert await env.pool.fetchval(SIGNED) is None
    async with env.projector():
        await env.folded()
    assert await env.dump() == before
