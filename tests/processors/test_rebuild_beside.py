"""What a rebuild beside the live rows compares, what it leaves out, and when it does not switch."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from uuid import uuid4

import pytest
from tests.projections.world import TABLES, WallClock, World, ask, database_uri, draft, world_in
from tests.stack_fixtures import RunningStack, until

from agentlog_facts.envelope import Draft
from agentlog_facts.errors import Corrupt
from agentlog_facts.ids import ThreadId
from agentlog_facts.json_value import load_object
from agentlog_facts.ports import RawRecord
from agentlog_facts.thread import ThreadCreated, ThreadDeleted, ThreadMetadataPatched
from agentlog_infra.migrate import upgrade, whole
from agentlog_processors.rebuild_beside import Differs, Tools, Wish, cancel, rebuild_beside
from agentlog_processors.rebuild_progress import Progress
from agentlog_projections.announce import Silent
from agentlog_projections.beside import RebuildRunning, connect_plain, hold, renamed
from agentlog_projections.bounded_tail import BoundedTail
from agentlog_projections.fold import Outside
from agentlog_projections.parity import Parity
from agentlog_projections.purge import purge_deleted

NEVER = timedelta(days=10_000)
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(ledger|read_v1)' ORDER BY 1"


@pytest.fixture
async def world(stack: RunningStack) -> AsyncGenerator[World]:
    """Give a database of its own, with three threads folded into it."""
    name = f"beside_{uuid4().hex}"
    uri = database_uri(stack.postgres, name)
    await upgrade(uri, TABLES)
    async with world_in(uri) as made:
        await made.given(*(created(f"t{number}") for number in range(3)))
        yield made
    await ask(stack.postgres, f"DROP DATABASE {name} WITH (FORCE)")


def created(thread_id: str) -> Draft:
    return draft(thread_id, ThreadCreated(ThreadId(thread_id), {"of": thread_id}))


async def rebuilt(world: World, wish: Wish = "switch", erased_after: timedelta = NEVER) -> tuple[Parity, list[str]]:
    said: list[str] = []
    outside = Outside(world.log.reader(), world.log.partition_of, WallClock(), Silent())
    tools = Tools(world.uri, outside, whole(TABLES), erased_after, "rebuild", Progress(False), said.append)
    return await rebuild_beside(tools, wish), said


async def schemas(world: World) -> list[str]:
    return [row[0] for row in await world.pool.fetch(SCHEMAS)]


def test_names_of_live_tables_are_renamed_and_nothing_else() -> None:
    sql = "CREATE SCHEMA IF NOT EXISTS read_v1; SELECT read_v1.searchable(x), 'ledger' FROM ledger.heads"
    assert renamed(sql) == (
        "CREATE SCHEMA IF NOT EXISTS read_v1_next; SELECT read_v1_next.searchable(x), 'ledger' FROM ledger_next.heads"
    )


async def test_the_new_tables_take_the_place_of_the_old_ones_and_the_projector_goes_on(world: World) -> None:
    before = await world.dump()
    async with world.projector():
        parity, said = await rebuilt(world)
        assert parity.equal
        assert said[-1].startswith("the same: ")
        world.append(draft("t0", ThreadMetadataPatched(ThreadId("t0"), {"more": 1}), stream="meta-t0"))
        await world.folded()
    after = await world.dump()
    assert await schemas(world) == ["ledger", "read_v1"]
    assert {table for table in before if before[table] != after[table]} == {
        "ledger.heads",
        "ledger.log_index",
        "ledger.positions",
        "read_v1.threads",
    }


async def test_a_rebuild_follows_the_live_rows_and_not_the_log(world: World) -> None:
    world.append(created("later"))  # no projector runs: nothing of it is in the live rows
    parity, _ = await rebuilt(world, "check")
    assert parity.equal
    assert sum(one.rows for (table, _), one in parity.anew.items() if table == "threads") == 3


async def test_each_kind_of_difference_is_counted(world: World) -> None:
    await world.pool.execute("UPDATE read_v1.threads SET status = 'busy' WHERE thread_id = 't0'")
    await world.pool.execute("DELETE FROM read_v1.threads WHERE thread_id = 't1'")
    await world.pool.execute("UPDATE read_v1.threads SET thread_id = 'x2' WHERE thread_id = 't2'")
    parity, _ = await rebuilt(world, "check")
    [difference] = parity.differences
    assert (difference.table, difference.missing, difference.surplus, difference.changed) == ("threads", 2, 1, 1)
    with pytest.raises(Differs):
        await rebuilt(world)
    assert await schemas(world) == ["ledger", "read_v1"]
    assert await world.pool.fetchval("SELECT status FROM read_v1.threads WHERE thread_id = 't0'") == "busy"
    await rebuilt(world, "accept")
    assert await world.pool.fetchval("SELECT status FROM read_v1.threads WHERE thread_id = 't0'") == "idle"


async def test_threads_that_the_housekeeper_has_erased_are_no_difference(world: World) -> None:
    await world.given(draft("t1", ThreadDeleted(ThreadId("t1"))))
    assert await purge_deleted(world.pool, timedelta()) == 1
    parity, _ = await rebuilt(world, "check", timedelta())
    assert parity.equal
    parity, _ = await rebuilt(world, "check", NEVER)
    assert [difference.missing for difference in parity.differences] == [1]


async def test_a_partition_of_another_log_is_not_compared_and_mended(world: World) -> None:
    partition = world.log.partition_of(created("t0").key)
    del world.log.records[partition][:]
    world.append(*(one for one in map(created, ("a", "b", "c", "d")) if world.log.partition_of(one.key) == partition))
    parity, said = await rebuilt(world)
    assert parity.equal
    assert f"partition {partition}: not compared, the live rows were folded from another log" in said
    assert await world.pool.fetchval("SELECT count(*) FROM read_v1.threads WHERE thread_id = 't0'") == 0


async def test_tables_that_are_missing_or_of_another_shape_are_said_and_replaced(world: World) -> None:
    await world.pool.execute("DROP TABLE read_v1.runs; ALTER TABLE read_v1.threads DROP COLUMN config")
    parity, said = await rebuilt(world)
    assert parity.equal
    assert "runs: not compared, the live rows lack it" in said
    assert "threads: not compared, its columns change: config" in said
    assert await world.pool.fetchval("SELECT config::text FROM read_v1.threads WHERE thread_id = 't0'") == "{}"
    assert await world.pool.fetchval("SELECT count(*) FROM read_v1.runs") == 0


async def test_what_this_release_cannot_read_stops_the_rebuild_and_nothing_else(world: World) -> None:
    [first, *_] = world.log.records[world.log.partition_of(created("t0").key)]
    world.log.unknown.add(str(event_id(first[1])))
    with pytest.raises(Corrupt, match="unknown schema"):
        await rebuilt(world, "accept")
    assert await schemas(world) == ["ledger", "read_v1"]
    assert await world.pool.fetchval("SELECT count(*) FROM read_v1.threads") == 3


def event_id(value: bytes | None) -> object:
    return load_object(value or b"")["event_id"]


async def test_one_rebuild_at_a_time_and_cancel_ends_whoever_holds_the_lock(world: World) -> None:
    holder = await connect_plain(world.uri)
    await hold(holder)
    with pytest.raises(RebuildRunning, match="another rebuild is running"):
        await rebuilt(world, "check")
    assert await cancel(world.uri) is False
    await until(holder.is_closed)
    assert (await rebuilt(world, "check"))[0].equal


async def test_a_cancel_that_a_library_swallows_is_heard_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll = BoundedTail.poll
    deaf = 0

    async def swallowing(tail: BoundedTail, max_records: int, patience: timedelta) -> Sequence[RawRecord]:
        nonlocal deaf
        if not deaf:
            rebuilding.cancel()
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                deaf += 1
        return await poll(tail, max_records, patience)

    monkeypatch.setattr(BoundedTail, "poll", swallowing)
    rebuilding = asyncio.create_task(rebuilt(world))
    with pytest.raises(asyncio.CancelledError):
        await rebuilding
    assert deaf == 1
    assert await schemas(world) == ["ledger", "read_v1"]
