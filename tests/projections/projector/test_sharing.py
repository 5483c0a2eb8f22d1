"""Partitions shared by several projectors: one that dies, hangs or leaves is replaced and never writes twice."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from tests.projections.facts import patched, run_created, thread_created
from tests.projections.projector.test_projector import keys_of, stopped
from tests.projections.projector_env import MemoryTail, ProjectorEnv, WallClock, draft

from agentlog_facts.errors import Unavailable
from agentlog_facts.guard import Accepted
from agentlog_postgres.connection import close, connect_projector
from agentlog_projections.models.registry import read_models
from agentlog_projections.projector.announcer import Announcer
from agentlog_projections.projector.heartbeat import ProjectorHeartbeat, heartbeat
from agentlog_projections.projector.ownership import Fenced
from agentlog_projections.projector.session import READ_AHEAD, FoldPorts, FoldSettings, ProjectorSession

NEVER = timedelta(hours=1)
OWNERS = "SELECT partition, owner FROM ledger.positions ORDER BY partition"


async def owners(env: ProjectorEnv) -> list[str | None]:
    return [row["owner"] for row in await env.pool.fetch(OWNERS)]


async def owned_by(env: ProjectorEnv, *names: str | None) -> None:
    """Wait until these projectors own the partitions, in any order."""

    async def are_owned() -> bool:
        return sorted(map(str, await owners(env))) == sorted(map(str, names))

    await env.until(are_owned, f"owners {names}")


def ports(env: ProjectorEnv) -> FoldPorts:
    return FoldPorts(env.log.reader(), env.log.partition_of, WallClock(), Announcer(env.feed, env.feed))


@asynccontextmanager
async def hung_projector(
    env: ProjectorEnv, settings: FoldSettings
) -> AsyncGenerator[tuple[ProjectorSession, ProjectorHeartbeat]]:
    """Yield a hung projector: it wrote one heartbeat, owns its share, and does nothing more by itself."""
    heartbeat, connection = await connect_projector(env.uri), await connect_projector(env.uri)
    try:
        member = ProjectorHeartbeat(heartbeat, settings.owner, NEVER)
        await member.join()
        models, runs = read_models()
        fold = ProjectorSession(connection, settings, ports(env), models, runs)
        await fold.begin()
        yield fold, member
        await fold.end()
    finally:
        await close(connection)
        await close(heartbeat)


async def cycles(fold: ProjectorSession) -> None:
    while True:
        await fold.cycle()


async def test_two_projectors_share_the_partitions_and_the_last_one_has_all(env: ProjectorEnv) -> None:
    # the checks at intervals are off: notifications alone are enough
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        await first.enter_async_context(env.projector(owner="first", look_every=NEVER, lease=NEVER))
        await owned_by(env, "first", "first")
        await second.enter_async_context(env.projector(owner="second", look_every=NEVER, lease=NEVER))
        await owned_by(env, "first", "second")
        env.append(*(draft(f"t{number}", thread_created(f"t{number}")) for number in range(20)))
        await env.folded()
        await first.aclose()
        await owned_by(env, "second", "second")
        places = env.append(*(draft(f"t{number}", run_created("r", f"t{number}")) for number in range(20)))
        await env.folded()
        assert [await env.verdict(place) for place in places] == [Accepted(1)] * 20
    assert await owners(env) == [None, None]


async def test_more_projectors_than_partitions_stand_by(env: ProjectorEnv) -> None:
    async with env.projector(owner="a"), env.projector(owner="b"):
        await owned_by(env, "a", "b")
        async with env.projector(owner="c") as third:
            await third.wait_ready()
            env.append(draft("t1", thread_created()))
            await env.folded()
            assert sorted(map(str, await owners(env))) == ["a", "b"]


async def test_a_projector_whose_connection_is_gone_is_replaced_without_waiting_for_its_lease(
    env: ProjectorEnv,
) -> None:
    async with hung_projector(env, replace(env.settings, owner="killed", lease=NEVER)) as (fold, _):
        assert sorted(fold.partitions) == [0, 1]
    assert await owners(env) == ["killed", "killed"]
    async with env.projector(owner="heir", lease=NEVER):
        await owned_by(env, "heir", "heir")


async def test_a_projector_that_stands_still_is_replaced_and_its_late_transaction_changes_nothing(
    env: ProjectorEnv,
) -> None:
    lease = timedelta(milliseconds=300)
    (here,), (there,) = keys_of(env, 0, 1), keys_of(env, 1, 1)
    async with hung_projector(env, replace(env.settings, owner="zombie", lease=lease)) as (zombie, _):
        env.append(draft(here, thread_created(here)), draft(there, thread_created(there)))
        await zombie.cycle()
        places = env.append(draft(here, patched({"n": 1}, here), stream=f"meta-{here}"))
        async with env.projector(owner="heir", lease=lease):
            await owned_by(env, "heir", "heir")
            await env.folded()
            before = await env.dump()
            with pytest.raises(Fenced):
                await zombie.cycle()
            assert await env.dump() == before
            assert await owners(env) == ["heir", "heir"]
            assert await env.verdict(places[0]) == Accepted(0)
    assert await env.pool.fetchval("SELECT count(*) FROM ledger.log_index") == 3


async def test_a_transaction_that_was_read_and_judged_before_the_take_over_is_void(env: ProjectorEnv) -> None:
    """The worst moment to hang: everything is computed, and only the write to PostgreSQL is left."""
    (here,) = keys_of(env, 0, 1)
    still = replace(env.settings, owner="zombie", look_every=NEVER)
    async with hung_projector(env, still) as (zombie, _):
        await zombie.cycle()
        env.append(draft(here, thread_created(here)))
        lease = timedelta(milliseconds=300)
        async with env.projector(owner="heir", lease=lease):
            await owned_by(env, "heir", "heir")
            await env.folded()
            before = await env.dump()
            with pytest.raises(Fenced, match="another projector folds this partition"):
                await cycles(zombie)  # it does not check its share: it reads, judges and writes
            assert await env.dump() == before


async def test_who_stood_still_too_long_comes_back_for_its_share(env: ProjectorEnv) -> None:
    async with heartbeat(env.uri, "slow", timedelta(milliseconds=20)), env.projector(owner="a"):
        await owned_by(env, "a")  # the other partition is left to the slow projector
        async with env.projector(owner="slow"):
            await owned_by(env, "a", "slow")


async def test_a_projector_that_is_not_seen_any_more_begins_again(env: ProjectorEnv) -> None:
    async with env.projector(owner="a") as projector:
        await projector.wait_ready()
        before = await env.pool.fetchval("SELECT backend FROM ledger.projectors WHERE owner = 'a'")
        await env.pool.execute("SELECT pg_terminate_backend($1)", before)

        async def seen_again() -> bool:
            found: int | None = await env.pool.fetchval("SELECT backend FROM ledger.projectors WHERE owner = 'a'")
            return found not in (None, before)

        await env.until(seen_again)
        env.append(draft("t1", thread_created()))
        await env.folded()
        assert set(await owners(env)) == {"a"}


async def test_whoever_comes_and_goes_the_rows_are_the_same(env: ProjectorEnv) -> None:
    def fill(part: int) -> None:
        for number in range(part * 15, part * 15 + 15):
            key = f"t{number}"
            env.append(draft(key, thread_created(key), run_created(f"r{number}", key)))
            env.append(draft(key, patched({"n": number}, key), stream=f"meta-{key}"))

    for part in range(6):
        async with env.projector(owner=f"x{part}", max_records=3), env.projector(owner=f"y{part}", max_records=5):
            fill(part)
            if part % 2:
                await env.folded()
    async with env.projector():
        await env.folded()
    shared = await env.dump()
    await env.reset()
    async with env.projector():
        await env.folded()
    assert await env.dump() == shared


class UnreachableLog(MemoryTail):
    """Tail of a projector that reaches PostgreSQL but not the log: its first request gets no response."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.refuse = asyncio.Event(), asyncio.Event()

    async def ends(self) -> Mapping[int, int]:
        self.asked.set()
        await self.refuse.wait()
        raise Unavailable("no log")


async def test_a_projector_that_does_not_reach_the_log_leaves_all_partitions_to_those_that_do(
    env: ProjectorEnv,
) -> None:
    unreachable = UnreachableLog()
    async with env.projector(owner="a"):
        await owned_by(env, "a", "a")
        async with env.projector(owner="b", tail=unreachable):
            await unreachable.asked.wait()
            assert not await env.pool.fetch("SELECT FROM ledger.projectors WHERE owner = 'b'")
            env.append(*(draft(f"t{number}", thread_created(f"t{number}")) for number in range(20)))
            await env.folded()
            unreachable.refuse.set()


@pytest.mark.parametrize("old", ["a-old", "z-old"])
async def test_who_does_not_know_a_schema_gives_its_partition_up_and_who_knows_it_takes_it(
    env: ProjectorEnv, old: str
) -> None:
    """A rolling upgrade: the new release continues where the old one cannot, and the old one keeps its other share."""
    (here,), (other,) = keys_of(env, 0, 1), keys_of(env, 1, 1)
    first = env.append(draft(here, thread_created(here)), draft(other, thread_created(other)))
    future = env.append(draft(here, run_created("r1", here), event_id="future"))
    async with env.projector(owner=old, tail=env.log.reader(unknown={"future", "later"})):
        await owned_by(env, old, None)
        assert await owners(env) == [None, old]
        assert await stopped(env, 0, "unknown schema at 1: future")
        assert not await env.caught_up(0)
        async with env.projector(owner="new"):
            await env.folded()
            assert await owners(env) == ["new", old]
            assert [await env.verdict(place) for place in first + future] == [Accepted(0), Accepted(0), Accepted(1)]
            async with env.projector(owner="third") as third:  # a change of the group does not bring the old one back
                await third.wait_ready()
                assert await owners(env) == ["new", old]
            places = env.append(draft(here, run_created("r2", here), event_id="later"))
            places += env.append(draft(other, run_created("r3", other)))
            await env.folded()
            assert [await env.verdict(place) for place in places] == [Accepted(2), Accepted(1)]
            assert await owners(env) == ["new", old]


async def test_an_old_projector_goes_on_where_a_newer_one_got_past_what_it_does_not_know(env: ProjectorEnv) -> None:
    """A reverted upgrade: folded records stay folded, and the next unknown record stops the partition again."""
    (here,) = keys_of(env, 0, 1)
    env.append(draft(here, thread_created(here)), draft(here, run_created("r1", here), event_id="future"))
    async with env.projector(owner="old", tail=env.log.reader(unknown={"future", "later"})):
        await owned_by(env, "old", None)
        async with env.projector(owner="new"):
            await env.folded()
        places = env.append(draft(here, run_created("r2", here)))
        await env.folded()
        assert await env.verdict(places[0]) == Accepted(2)
        assert await owners(env) == ["old", "old"]
        env.append(draft(here, run_created("r3", here), event_id="later"))
        await owned_by(env, "old", None)
        assert await stopped(env, 0, "unknown schema at 3: later")


async def test_what_nobody_knows_is_tried_once_by_each_and_then_left_alone(
    env: ProjectorEnv, caplog: pytest.LogCaptureFixture
) -> None:
    (here,) = keys_of(env, 0, 1)
    env.append(draft(here, thread_created(here)), draft(here, run_created("r1", here), event_id="future"))
    env.log.unknown.add("future")

    async def refused_by_both() -> bool:
        return await refusing(env) == ["a", "b"]

    caplog.set_level(logging.ERROR)
    async with env.projector(owner="a"), env.projector(owner="b"):
        await env.until(refused_by_both)
        for _ in range(3):  # a new projector makes all of them rebalance
            async with env.projector(owner="c"):
                await env.until(partial(refuses, env, "c"))
            await env.until(refused_by_both)
        assert await owners(env) == [None, "a"]
        assert await stopped(env, 0, "unknown schema")
    stops = [record for record in caplog.records if record.message == "projector.partition_stopped"]
    assert len(stops) == 2 + 3


async def refusing(env: ProjectorEnv) -> list[str]:
    """Return the projectors that gave partition 0 up because of an unknown schema."""
    sql = "SELECT owner FROM ledger.projectors WHERE refused = ARRAY[0] ORDER BY owner"
    return [row["owner"] for row in await env.pool.fetch(sql)]


async def refuses(env: ProjectorEnv, owner: str) -> bool:
    return owner in await refusing(env)


async def test_a_stopped_partition_is_not_usable_for_a_moment_when_shares_change(env: ProjectorEnv) -> None:
    (here, more), (other,) = keys_of(env, 0, 2), keys_of(env, 1, 1)
    env.append(draft(here, thread_created(here)), draft(other, thread_created(other)))
    async with env.projector():
        await env.folded()
    (record,) = env.log.records[0]
    env.log.records[0].clear()
    env.append(draft(more, thread_created(more)))
    async with hung_projector(env, env.settings) as (fold, _):
        await fold.cycle()
        assert await stopped(env, 0, "log diverged")
        await fold.begin()  # as at each rebalance: taken, but its last record is not yet read again
        assert not await env.caught_up(0)
        await fold.cycle()
        assert not await env.caught_up(0)
    env.log.records[0][:] = [record]
    async with env.projector():
        await env.folded()
    assert await env.caught_up(0)


async def test_a_partition_that_stopped_counts_again_with_the_first_record_behind(env: ProjectorEnv) -> None:
    (here,) = keys_of(env, 0, 1)
    env.append(draft(here, thread_created(here)))
    env.log.unknown.add("future")
    async with env.projector():
        await env.folded()
        env.append(draft(here, run_created("r1", here), event_id="future"))
        await env.until(partial(stopped, env, 0, "unknown schema"))
    env.log.unknown.clear()
    async with hung_projector(env, replace(env.settings, max_records=1)) as (fold, _):
        await fold.cycle()  # reads the last folded record again
        assert await env.ledger.position(0) == 1
        assert not await env.caught_up(0)
        await fold.cycle()
        assert await env.ledger.position(0) == 2
        assert await env.caught_up(0)


async def test_runs_of_a_stopped_partition_are_offered_again_once_it_goes_on(env: ProjectorEnv) -> None:
    (here,) = keys_of(env, 0, 1)
    env.log.unknown.add("future")
    async with env.projector():
        env.append(draft(here, thread_created(here), run_created("r1", here)))
        await env.until(lambda: env.feed.pushed)
        env.append(draft(here, patched({"n": 1}, here), stream=f"meta-{here}", event_id="future"))
        await env.until(partial(stopped, env, 0, "unknown schema"))
    env.feed.pushed.clear()
    env.log.unknown.clear()
    async with env.projector():
        await env.until(lambda: env.feed.pushed)
        assert await env.caught_up(0), "no worker could claim it before"


async def test_everything_before_an_unknown_schema_is_folded_also_where_much_is_read_ahead(env: ProjectorEnv) -> None:
    (here,) = keys_of(env, 0, 1)
    known = [draft(here, patched({"n": n}, here), stream=f"meta-{here}") for n in range(2 * READ_AHEAD)]
    env.append(draft(here, thread_created(here)), *known, draft(here, run_created("r", here), event_id="future"))
    async with env.projector(owner="old", tail=env.log.reader(unknown={"future"}), max_records=READ_AHEAD):
        await owned_by(env, "old", None)
        assert await env.ledger.position(0) == 1 + len(known)
        assert await stopped(env, 0, "unknown schema")
