"""Several projectors share the partitions; who dies, stands still or goes is replaced, and never writes twice."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from tests.projections.facts import patched, run_created, thread_created
from tests.projections.test_runner import keys_of, stopped
from tests.projections.world import MemoryTail, WallClock, World, draft

from agentlog_facts.errors import Unavailable
from agentlog_facts.guard import Accepted
from agentlog_projections.announce import Announcer
from agentlog_projections.database import close, connect
from agentlog_projections.fold import READ_AHEAD, Fold, FoldSettings, Outside
from agentlog_projections.membership import Membership, membership
from agentlog_projections.partitions import Fenced
from agentlog_projections.read_models import read_models

NEVER = timedelta(hours=1)
OWNERS = "SELECT partition, owner FROM ledger.positions ORDER BY partition"


async def owners(world: World) -> list[str | None]:
    return [row["owner"] for row in await world.pool.fetch(OWNERS)]


async def owned_by(world: World, *names: str | None) -> None:
    """Wait until these own the partitions, in any order."""

    async def are_owned() -> bool:
        return sorted(map(str, await owners(world))) == sorted(map(str, names))

    await world.until(are_owned, f"owners {names}")


def outside(world: World) -> Outside:
    return Outside(world.log.reader(), world.log.partition_of, WallClock(), Announcer(world.feed, world.feed))


@asynccontextmanager
async def standing_still(world: World, settings: FoldSettings) -> AsyncGenerator[tuple[Fold, Membership]]:
    """Give a projector that was seen once, owns its share, and does nothing by itself any more."""
    heartbeat, connection = await connect(world.uri), await connect(world.uri)
    try:
        member = Membership(heartbeat, settings.owner, NEVER)
        await member.join()
        models, runs = read_models()
        fold = Fold(connection, settings, outside(world), models, runs)
        await fold.begin()
        yield fold, member
        await fold.end()
    finally:
        await close(connection)
        await close(heartbeat)


async def cycles(fold: Fold) -> None:
    while True:
        await fold.cycle()


async def test_two_projectors_share_the_partitions_and_the_last_one_has_all(world: World) -> None:
    # nothing is found by looking: they tell each other
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        await first.enter_async_context(world.projector(owner="first", look_every=NEVER, lease=NEVER))
        await owned_by(world, "first", "first")
        await second.enter_async_context(world.projector(owner="second", look_every=NEVER, lease=NEVER))
        await owned_by(world, "first", "second")
        world.append(*(draft(f"t{number}", thread_created(f"t{number}")) for number in range(20)))
        await world.folded()
        await first.aclose()
        await owned_by(world, "second", "second")
        places = world.append(*(draft(f"t{number}", run_created("r", f"t{number}")) for number in range(20)))
        await world.folded()
        assert [await world.verdict(place) for place in places] == [Accepted(1)] * 20
    assert await owners(world) == [None, None]


async def test_more_projectors_than_partitions_stand_by(world: World) -> None:
    async with world.projector(owner="a"), world.projector(owner="b"):
        await owned_by(world, "a", "b")
        async with world.projector(owner="c") as third:
            await third.wait_ready()
            world.append(draft("t1", thread_created()))
            await world.folded()
            assert sorted(map(str, await owners(world))) == ["a", "b"]


async def test_a_projector_whose_connection_is_gone_is_replaced_without_waiting_for_its_lease(world: World) -> None:
    async with standing_still(world, replace(world.settings, owner="killed", lease=NEVER)) as (fold, _):
        assert sorted(fold.partitions) == [0, 1]
    assert await owners(world) == ["killed", "killed"]
    async with world.projector(owner="heir", lease=NEVER):
        await owned_by(world, "heir", "heir")


async def test_a_projector_that_stands_still_is_replaced_and_its_late_transaction_changes_nothing(
    world: World,
) -> None:
    lease = timedelta(milliseconds=300)
    (here,), (there,) = keys_of(world, 0, 1), keys_of(world, 1, 1)
    async with standing_still(world, replace(world.settings, owner="zombie", lease=lease)) as (zombie, _):
        world.append(draft(here, thread_created(here)), draft(there, thread_created(there)))
        await zombie.cycle()
        places = world.append(draft(here, patched({"n": 1}, here), stream=f"meta-{here}"))
        async with world.projector(owner="heir", lease=lease):
            await owned_by(world, "heir", "heir")
            await world.folded()
            before = await world.dump()
            with pytest.raises(Fenced):
                await zombie.cycle()
            assert await world.dump() == before
            assert await owners(world) == ["heir", "heir"]
            assert await world.verdict(places[0]) == Accepted(0)
    assert await world.pool.fetchval("SELECT count(*) FROM ledger.log_index") == 3


async def test_a_transaction_that_was_read_and_judged_before_the_take_over_is_void(world: World) -> None:
    """The worst moment to stand still: everything is computed, and only the write to PostgreSQL is left."""
    (here,) = keys_of(world, 0, 1)
    still = replace(world.settings, owner="zombie", look_every=NEVER)
    async with standing_still(world, still) as (zombie, _):
        await zombie.cycle()
        world.append(draft(here, thread_created(here)))
        lease = timedelta(milliseconds=300)
        async with world.projector(owner="heir", lease=lease):
            await owned_by(world, "heir", "heir")
            await world.folded()
            before = await world.dump()
            with pytest.raises(Fenced, match="another projector folds this partition"):
                await cycles(zombie)  # it does not look: it reads, judges and writes
            assert await world.dump() == before


async def test_who_stood_still_too_long_comes_back_for_its_share(world: World) -> None:
    async with membership(world.uri, "slow", timedelta(milliseconds=20)), world.projector(owner="a"):
        await owned_by(world, "a")  # one partition is left to the slow one, which takes it when it folds
        async with world.projector(owner="slow"):
            await owned_by(world, "a", "slow")


async def test_a_projector_that_is_not_seen_any_more_begins_again(world: World) -> None:
    async with world.projector(owner="a") as projector:
        await projector.wait_ready()
        before = await world.pool.fetchval("SELECT backend FROM ledger.projectors WHERE owner = 'a'")
        await world.pool.execute("SELECT pg_terminate_backend($1)", before)

        async def seen_again() -> bool:
            found: int | None = await world.pool.fetchval("SELECT backend FROM ledger.projectors WHERE owner = 'a'")
            return found not in (None, before)

        await world.until(seen_again)
        world.append(draft("t1", thread_created()))
        await world.folded()
        assert set(await owners(world)) == {"a"}


async def test_whoever_comes_and_goes_the_rows_are_the_same(world: World) -> None:
    def fill(part: int) -> None:
        for number in range(part * 15, part * 15 + 15):
            key = f"t{number}"
            world.append(draft(key, thread_created(key), run_created(f"r{number}", key)))
            world.append(draft(key, patched({"n": number}, key), stream=f"meta-{key}"))

    for part in range(6):
        async with world.projector(owner=f"x{part}", max_records=3), world.projector(owner=f"y{part}", max_records=5):
            fill(part)
            if part % 2:
                await world.folded()
    async with world.projector():
        await world.folded()
    shared = await world.dump()
    await world.reset()
    async with world.projector():
        await world.folded()
    assert await world.dump() == shared


class Deaf(MemoryTail):
    """The tail of a projector that reaches PostgreSQL and no log: its first question is never answered."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.refuse = asyncio.Event(), asyncio.Event()

    async def ends(self) -> Mapping[int, int]:
        self.asked.set()
        await self.refuse.wait()
        raise Unavailable("no log")


async def test_a_projector_that_does_not_reach_the_log_leaves_all_partitions_to_those_that_do(world: World) -> None:
    deaf = Deaf()
    async with world.projector(owner="a"):
        await owned_by(world, "a", "a")
        async with world.projector(owner="b", tail=deaf):
            await deaf.asked.wait()
            assert not await world.pool.fetch("SELECT FROM ledger.projectors WHERE owner = 'b'")
            world.append(*(draft(f"t{number}", thread_created(f"t{number}")) for number in range(20)))
            await world.folded()
            deaf.refuse.set()


@pytest.mark.parametrize("old", ["a-old", "z-old"])
async def test_who_does_not_know_a_schema_gives_its_partition_up_and_who_knows_it_takes_it(
    world: World, old: str
) -> None:
    """Two releases, as in a rolling upgrade: what the old one cannot fold goes on, and what it can stays with it."""
    (here,), (other,) = keys_of(world, 0, 1), keys_of(world, 1, 1)
    first = world.append(draft(here, thread_created(here)), draft(other, thread_created(other)))
    future = world.append(draft(here, run_created("r1", here), event_id="future"))
    async with world.projector(owner=old, tail=world.log.reader(unknown={"future", "later"})):
        await owned_by(world, old, None)
        assert await owners(world) == [None, old]
        assert await stopped(world, 0, "unknown schema at 1: future")
        assert not await world.ledger.present(0)
        async with world.projector(owner="new"):
            await world.folded()
            assert await owners(world) == ["new", old]
            assert [await world.verdict(place) for place in first + future] == [Accepted(0), Accepted(0), Accepted(1)]
            async with world.projector(owner="third") as third:  # whoever comes and goes: the old one keeps off
                await third.wait_ready()
                assert await owners(world) == ["new", old]
            places = world.append(draft(here, run_created("r2", here), event_id="later"))
            places += world.append(draft(other, run_created("r3", other)))
            await world.folded()
            assert [await world.verdict(place) for place in places] == [Accepted(2), Accepted(1)]
            assert await owners(world) == ["new", old]


async def test_an_old_projector_goes_on_where_a_newer_one_got_past_what_it_does_not_know(world: World) -> None:
    """The upgrade is taken back: what was folded meanwhile is folded, and the next such record stops again."""
    (here,) = keys_of(world, 0, 1)
    world.append(draft(here, thread_created(here)), draft(here, run_created("r1", here), event_id="future"))
    async with world.projector(owner="old", tail=world.log.reader(unknown={"future", "later"})):
        await owned_by(world, "old", None)
        async with world.projector(owner="new"):
            await world.folded()
        places = world.append(draft(here, run_created("r2", here)))
        await world.folded()
        assert await world.verdict(places[0]) == Accepted(2)
        assert await owners(world) == ["old", "old"]
        world.append(draft(here, run_created("r3", here), event_id="later"))
        await owned_by(world, "old", None)
        assert await stopped(world, 0, "unknown schema at 3: later")


async def test_what_nobody_knows_is_tried_once_by_each_and_then_left_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    (here,) = keys_of(world, 0, 1)
    world.append(draft(here, thread_created(here)), draft(here, run_created("r1", here), event_id="future"))
    world.log.unknown.add("future")

    async def refused_by_both() -> bool:
        return await refusing(world) == ["a", "b"]

    caplog.set_level(logging.ERROR)
    async with world.projector(owner="a"), world.projector(owner="b"):
        await world.until(refused_by_both)
        for _ in range(3):  # whoever comes makes everybody look
            async with world.projector(owner="c"):
                await world.until(partial(refuses, world, "c"))
            await world.until(refused_by_both)
        assert await owners(world) == [None, "a"]
        assert await stopped(world, 0, "unknown schema")
    said = [record for record in caplog.records if record.message == "projector.partition_stopped"]
    assert len(said) == 2 + 3


async def refusing(world: World) -> list[str]:
    """Return who gave partition 0 up because it does not know what is there."""
    sql = "SELECT owner FROM ledger.projectors WHERE refused = ARRAY[0] ORDER BY owner"
    return [row["owner"] for row in await world.pool.fetch(sql)]


async def refuses(world: World, owner: str) -> bool:
    return owner in await refusing(world)


async def test_a_stopped_partition_is_not_usable_for_a_moment_when_shares_change(world: World) -> None:
    (here, more), (other,) = keys_of(world, 0, 2), keys_of(world, 1, 1)
    world.append(draft(here, thread_created(here)), draft(other, thread_created(other)))
    async with world.projector():
        await world.folded()
    (record,) = world.log.records[0]
    world.log.records[0].clear()
    world.append(draft(more, thread_created(more)))
    async with standing_still(world, world.settings) as (fold, _):
        await fold.cycle()
        assert await stopped(world, 0, "log diverged")
        await fold.begin()  # as at each change of shares: taken, and its last record not read again yet
        assert not await world.ledger.present(0)
        await fold.cycle()
        assert not await world.ledger.present(0)
    world.log.records[0][:] = [record]
    async with world.projector():
        await world.folded()
    assert await world.ledger.present(0)


async def test_a_partition_that_stopped_counts_again_with_the_first_record_behind(world: World) -> None:
    (here,) = keys_of(world, 0, 1)
    world.append(draft(here, thread_created(here)))
    world.log.unknown.add("future")
    async with world.projector():
        await world.folded()
        world.append(draft(here, run_created("r1", here), event_id="future"))
        await world.until(partial(stopped, world, 0, "unknown schema"))
    world.log.unknown.clear()
    async with standing_still(world, replace(world.settings, max_records=1)) as (fold, _):
        await fold.cycle()  # the last record that was folded, read again
        assert await world.ledger.position(0) == 1
        assert not await world.ledger.present(0)
        await fold.cycle()
        assert await world.ledger.position(0) == 2
        assert await world.ledger.present(0)


async def test_runs_of_a_stopped_partition_are_offered_again_once_it_goes_on(world: World) -> None:
    (here,) = keys_of(world, 0, 1)
    world.log.unknown.add("future")
    async with world.projector():
        world.append(draft(here, thread_created(here), run_created("r1", here)))
        await world.until(lambda: world.feed.pushed)
        world.append(draft(here, patched({"n": 1}, here), stream=f"meta-{here}", event_id="future"))
        await world.until(partial(stopped, world, 0, "unknown schema"))
    world.feed.pushed.clear()
    world.log.unknown.clear()
    async with world.projector():
        await world.until(lambda: world.feed.pushed)
        assert await world.ledger.present(0), "nobody could claim it before"


async def test_everything_before_an_unknown_schema_is_folded_also_where_much_is_read_ahead(world: World) -> None:
    (here,) = keys_of(world, 0, 1)
    known = [draft(here, patched({"n": n}, here), stream=f"meta-{here}") for n in range(2 * READ_AHEAD)]
    world.append(draft(here, thread_created(here)), *known, draft(here, run_created("r", here), event_id="future"))
    async with world.projector(owner="old", tail=world.log.reader(unknown={"future"}), max_records=READ_AHEAD):
        await owned_by(world, "old", None)
        assert await world.ledger.position(0) == 1 + len(known)
        assert await stopped(world, 0, "unknown schema")
