"""Tests of the rebuild into a shadow schema: compared and excluded rows, and the cases without a switch."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
from tests.processors.jobs.rebuilding import (
    NEVER,
    WHICH,
    Interrupting,
    created,
    lose_connections,
    rebuilt,
    rows_are_there,
    schemas,
    three_threads,
)
from tests.projections.projector_env import TABLES, ProjectorEnv, draft
from tests.stack_fixtures import RunningStack, until

from agentlog_facts.errors import Corrupt, Unavailable
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import load_object
from agentlog_facts.ports import RawRecord
from agentlog_facts.store import StoreItemPut, store_key
from agentlog_facts.thread import ThreadDeleted, ThreadMetadataPatched
from agentlog_infra.postgres.migrate import schema_statements
from agentlog_postgres.connection import Connection
from agentlog_processors.jobs.rebuild_session import Found, cancel
from agentlog_processors.jobs.rebuild_shadow import Differs
from agentlog_projections.queries.purge import purge_deleted
from agentlog_projections.rebuild import shadow_schema
from agentlog_projections.rebuild.bounded_tail import BoundedTail
from agentlog_projections.rebuild.shadow_schema import (
    RebuildRunning,
    connect_plain,
    connect_shadow,
    hold,
    projector_paused,
    remove,
    renamed,
)

SAYS = "CREATE TABLE ledger.said AS SELECT current_setting('synchronous_commit') AS said"
STALL_S = 10.0
"""The longest wait of a write for a rebuild that is paused in its switch."""


@pytest.fixture
async def env(stack: RunningStack) -> AsyncGenerator[ProjectorEnv]:
    """Yield a database with the rows of three threads."""
    async with three_threads(stack) as made:
        yield made


def test_names_of_live_tables_are_renamed_and_nothing_else() -> None:
    sql = "CREATE SCHEMA IF NOT EXISTS read_v1; SELECT read_v1.searchable(x), 'ledger' FROM ledger.heads"
    assert renamed(sql) == (
        "CREATE SCHEMA IF NOT EXISTS read_v1_next; SELECT read_v1_next.searchable(x), 'ledger' FROM ledger_next.heads"
    )


async def test_the_new_tables_take_the_place_of_the_old_ones_and_the_projector_goes_on(env: ProjectorEnv) -> None:
    before = await env.dump()
    async with env.projector():
        parity, printed = await rebuilt(env)
        assert parity.equal
        assert printed[-1].startswith("the same: ")
        env.append(draft("t0", ThreadMetadataPatched(ThreadId("t0"), {"more": 1}), stream="meta-t0"))
        await env.folded()
    after = await env.dump()
    assert await schemas(env) == ["ledger", "read_v1"]
    assert {table for table in before if before[table] != after[table]} == {
        "ledger.heads",
        "ledger.log_index",
        "ledger.positions",
        "read_v1.threads",
    }


async def test_a_rebuild_follows_the_live_rows_and_not_the_log(env: ProjectorEnv) -> None:
    env.append(created("later"))  # no projector runs, so the live rows contain nothing of it
    parity, _ = await rebuilt(env, "check")
    assert parity.equal
    assert sum(one.rows for (table, _), one in parity.anew.items() if table == "threads") == 3


async def test_each_kind_of_difference_is_counted(env: ProjectorEnv) -> None:
    await env.pool.execute("UPDATE read_v1.threads SET status = 'busy' WHERE thread_id = 't0'")
    await env.pool.execute("DELETE FROM read_v1.threads WHERE thread_id = 't1'")
    await env.pool.execute("UPDATE read_v1.threads SET thread_id = 'x2' WHERE thread_id = 't2'")
    parity, _ = await rebuilt(env, "check")
    [difference] = parity.differences
    assert (difference.table, difference.missing, difference.surplus, difference.changed) == ("threads", 2, 1, 1)
    with pytest.raises(Differs):
        await rebuilt(env)
    assert await schemas(env) == ["ledger", "read_v1"]
    assert await env.pool.fetchval("SELECT status FROM read_v1.threads WHERE thread_id = 't0'") == "busy"
    await rebuilt(env, "accept")
    assert await env.pool.fetchval("SELECT status FROM read_v1.threads WHERE thread_id = 't0'") == "idle"


async def test_threads_that_the_housekeeper_has_erased_are_no_difference(env: ProjectorEnv) -> None:
    await env.given(draft("t1", ThreadDeleted(ThreadId("t1"))))
    assert await purge_deleted(env.pool, timedelta()) == 1
    parity, _ = await rebuilt(env, "check", timedelta())
    assert parity.equal
    parity, _ = await rebuilt(env, "check", NEVER)
    assert [difference.missing for difference in parity.differences] == [1]


async def test_an_item_outlives_the_thread_whose_run_put_it_and_is_compared_as_before(env: ProjectorEnv) -> None:
    space = ("users", "ana")
    put = StoreItemPut(space, "tea", {"kind": "green"}, ThreadId("t1"), RunId("r"), 1)
    await env.given(
        draft(store_key(space), put, stream=f"store-{store_key(space)}"), draft("t1", ThreadDeleted(ThreadId("t1")))
    )
    assert await purge_deleted(env.pool, timedelta()) == 1
    parity, _ = await rebuilt(env, "check", timedelta())
    assert parity.equal
    assert sum(one.rows for (table, _), one in parity.live.items() if table == "store_items") == 1


async def test_a_partition_of_another_log_is_not_compared_and_mended(env: ProjectorEnv) -> None:
    partition = env.log.partition_of(created("t0").key)
    del env.log.records[partition][:]
    env.append(*(one for one in map(created, ("a", "b", "c", "d")) if env.log.partition_of(one.key) == partition))
    parity, printed = await rebuilt(env)
    assert parity.equal
    assert f"partition {partition}: not compared, the live rows were folded from another log" in printed
    assert await env.pool.fetchval("SELECT count(*) FROM read_v1.threads WHERE thread_id = 't0'") == 0


async def test_tables_that_are_missing_or_of_another_shape_are_said_and_replaced(env: ProjectorEnv) -> None:
    await env.pool.execute("DROP TABLE read_v1.runs; ALTER TABLE read_v1.threads DROP COLUMN config")
    parity, printed = await rebuilt(env)
    assert parity.equal
    assert "runs: not compared, the live rows lack it" in printed
    assert "threads: not compared, its columns change: config" in printed
    assert await env.pool.fetchval("SELECT config::text FROM read_v1.threads WHERE thread_id = 't0'") == "{}"
    assert await env.pool.fetchval("SELECT count(*) FROM read_v1.runs") == 0


async def test_rows_of_a_release_whose_ledger_had_fewer_tables_are_no_reason_to_drop_them(env: ProjectorEnv) -> None:
    await env.pool.execute("DROP TABLE ledger.projectors; UPDATE ledger.positions SET present = false")
    assert await rows_are_there(env)
    parity, _ = await rebuilt(env)
    assert parity.equal
    assert await env.pool.fetchval("SELECT count(*) FROM ledger.projectors") == 0


async def test_what_this_release_cannot_read_stops_the_rebuild_and_nothing_else(env: ProjectorEnv) -> None:
    [first, *_] = env.log.records[env.log.partition_of(created("t0").key)]
    env.log.unknown.add(str(event_id(first[1])))
    with pytest.raises(Corrupt, match="unknown schema"):
        await rebuilt(env, "accept")
    assert await schemas(env) == ["ledger", "read_v1"]
    assert await env.pool.fetchval("SELECT count(*) FROM read_v1.threads") == 3


def event_id(value: bytes | None) -> object:
    return load_object(value or b"")["event_id"]


async def test_one_rebuild_at_a_time_and_cancel_ends_whoever_holds_the_lock(env: ProjectorEnv) -> None:
    holder = await connect_plain(env.uri)
    await hold(holder)
    with pytest.raises(RebuildRunning, match="another rebuild is running"):
        await rebuilt(env, "check")
    printed: list[Found] = []
    await cancel(env.uri, printed.append)
    assert printed == ["something"]
    await until(holder.is_closed)
    assert (await rebuilt(env, "check"))[0].equal


async def test_a_switch_that_stands_still_does_not_hold_the_projector_for_ever(env: ProjectorEnv) -> None:
    live = await connect_plain(env.uri)
    try:
        with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresConnectionError)):
            await stand_still(live, env.pool.execute("UPDATE ledger.positions SET present = present", timeout=STALL_S))
    finally:
        live.terminate()


async def stand_still(live: Connection, meanwhile: Awaitable[object]) -> None:
    async with projector_paused(live):
        await meanwhile
        await live.execute("SELECT 1")


async def test_a_switch_whose_answer_is_lost_is_known_by_the_tables_that_are_live(
    env: ProjectorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def unanswered(live: Connection) -> AsyncGenerator[None]:
        async with projector_paused(live):
            yield
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    before = await env.pool.fetchval(WHICH)
    monkeypatch.setattr(shadow_schema, "projector_paused", unanswered)
    parity, _ = await rebuilt(env)
    assert parity.equal
    assert await env.pool.fetchval(WHICH) != before
    assert await schemas(env) == ["ledger", "read_v1"]


async def test_who_still_reads_what_was_replaced_keeps_it_and_a_cancel_says_that_it_came_behind_the_switch(
    env: ProjectorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlog_projections.timeouts.REBUILD_READERS_S", 0.05)
    printed: list[Found] = []
    reader = await connect_plain(env.uri, "a reader")
    try:
        await reader.execute("BEGIN; SELECT FROM read_v1.threads")
        assert (await rebuilt(env))[0].equal
        with pytest.raises(Unavailable, match=r"read_v1_old: a reader has held it"):
            await cancel(env.uri, printed.append)
    finally:
        await reader.close()
    await cancel(env.uri, printed.append)
    assert printed == ["switched", "switched"]
    assert await schemas(env) == ["ledger", "read_v1"]
    await cancel(env.uri, printed.append)
    assert printed[2:] == ["nothing"]


async def test_a_rebuild_that_loses_its_connections_goes_on_where_it_was(env: ProjectorEnv) -> None:
    async def lose() -> None:
        await lose_connections(env)
        counted.append(await env.pool.fetchval("SELECT sum(next_offset) FROM ledger_next.positions"))

    counted: list[int] = []
    parity, _ = await rebuilt(env, tail=Interrupting(env.log, lose))
    assert (counted, parity.equal) == ([1], True)
    assert await schemas(env) == ["ledger", "read_v1"]


async def test_a_crash_of_postgresql_takes_no_tables_back_for_then_the_rebuild_would_count_as_cancelled(
    env: ProjectorEnv,
) -> None:
    fold = await connect_shadow(env.uri)
    try:
        await shadow_schema.make(fold, [*schema_statements(TABLES), SAYS], "ledger_next", "a rebuild")
    finally:
        await fold.close()
    assert await env.pool.fetchval("SELECT said FROM ledger_next.said") == "on"


async def test_a_rebuild_that_is_ended_before_it_has_tables_does_not_begin_again(
    env: ProjectorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ended(connection: Connection, *suffixes: str) -> None:
        await remove(connection, *suffixes)
        monkeypatch.setattr(shadow_schema, "remove", remove)
        await cancel(env.uri, printed.append)

    printed: list[Found] = []
    monkeypatch.setattr(shadow_schema, "remove", ended)
    with pytest.raises(Unavailable, match="before it began"):
        await rebuilt(env)
    assert printed == ["something"]
    assert await schemas(env) == ["ledger", "read_v1"]


async def test_a_cancel_that_a_library_swallows_is_heard_all_the_same(
    env: ProjectorEnv, monkeypatch: pytest.MonkeyPatch
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
    rebuilding = asyncio.create_task(rebuilt(env))
    with pytest.raises(asyncio.CancelledError):
        await rebuilding
    assert deaf == 1
    assert await schemas(env) == ["ledger", "read_v1"]
