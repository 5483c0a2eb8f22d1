"""A rebuild into the live tables: when it drops rows, and what remains when it is cut short."""

from collections.abc import AsyncGenerator

import pytest
from tests.processors.rebuilding import (
    SIGNED,
    WHICH,
    Interrupting,
    lose_connections,
    rebuilt_in_place,
    rows_are_there,
    three_threads,
)
from tests.projections.world import World
from tests.stack_fixtures import RunningStack

from agentlog_facts.errors import Misconfigured
from agentlog_processors.rebuild_tries import Cancelled, Found, cancel


@pytest.fixture
async def world(stack: RunningStack) -> AsyncGenerator[World]:
    """Give a database with the rows of three threads."""
    async with three_threads(stack) as made:
        yield made


async def test_rows_are_rows_however_far_behind_the_log_they_are(world: World) -> None:
    await world.pool.execute("UPDATE ledger.positions SET present = false")
    assert await rows_are_there(world)
    await world.pool.execute("DELETE FROM ledger.positions")
    assert await rows_are_there(world)
    await world.pool.execute("DELETE FROM ledger.log_index")
    assert not await rows_are_there(world)


async def test_damaged_rows_are_left_alone(world: World) -> None:
    await world.pool.execute("DROP TABLE ledger.quarantine")
    with pytest.raises(Misconfigured, match=r"ledger\.quarantine: there are live rows, but not this table"):
        await rows_are_there(world)


async def test_a_rebuild_that_was_to_fill_empty_tables_drops_no_rows_that_came_meanwhile(world: World) -> None:
    which = await world.pool.fetchval(WHICH)
    await rebuilt_in_place(world, dropping=False)
    assert await world.pool.fetchval(WHICH) == which
    await rebuilt_in_place(world, dropping=True)
    assert await world.pool.fetchval(WHICH) != which


async def test_a_rebuild_in_place_that_loses_its_connections_goes_on_where_it_was(world: World) -> None:
    async def lose() -> None:
        await lose_connections(world)
        counted.append(await world.pool.fetchval("SELECT sum(next_offset) FROM ledger.positions"))

    counted: list[int] = []
    before = await world.dump()
    await rebuilt_in_place(world, Interrupting(world.log, lose), dropping=True)
    assert counted == [1]
    assert await world.dump() == before
    assert await world.pool.fetchval(SIGNED) is None


async def test_a_rebuild_in_place_that_is_cancelled_leaves_its_rows_to_a_projector(world: World) -> None:
    async def stop() -> None:
        await cancel(world.uri, said.append)

    said: list[Found] = []
    before = await world.dump()
    with pytest.raises(Cancelled):
        await rebuilt_in_place(world, Interrupting(world.log, stop), dropping=True)
    assert said == ["in place"]
    assert await world.dump() != before
    assert await world.pool.fetchval(SIGNED) is None
    async with world.projector():
        await world.folded()
    assert await world.dump() == before
