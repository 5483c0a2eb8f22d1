"""The projector: what it announces and when, who may fold, what stops it and what does not."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import asyncpg
import pytest
from tests.projections.facts import (
    cancel_requested,
    full,
    patched,
    run_claimed,
    run_created,
    run_finished,
    saved,
    state_updated,
    thread_created,
    thread_deleted,
)
from tests.projections.world import START, TABLES, WallClock, World, draft

from agentlog_facts.envelope import Draft, Place
from agentlog_facts.guard import Accepted, Verdict, Void
from agentlog_facts.hint import Hint
from agentlog_facts.ids import Key
from agentlog_facts.ports import RawRecord
from agentlog_infra.migrate import upgrade
from agentlog_projections.announce import Announcer
from agentlog_projections.beside import DROP
from agentlog_projections.commits import Commit, ReadModel
from agentlog_projections.database import connect
from agentlog_projections.fold import Fold, Outside
from agentlog_projections.partitions import RESUMABLE, Partition, fence_off
from agentlog_projections.quarantine import is_deterministic, parked, retry
from agentlog_projections.read_models import read_models
from agentlog_projections.runs import RunsModel
from agentlog_projections.threads import ThreadFilter, Threads, ThreadsModel
from agentlog_projections.transaction import Transaction


def keys_of(world: World, partition: int, count: int) -> list[str]:
    """Return so many keys that lie on a partition."""
    names = (f"k{number}" for number in range(1000))
    return [name for name in names if world.log.partition_of(Key(name)) == partition][:count]


async def test_a_hint_settles_the_batch_and_names_ends_and_cancels(world: World) -> None:
    async with world.projector() as projector:
        await projector.wait_ready()
        drafts = [
            draft("t1", thread_created(), run_created("r1")),
            draft("t1", run_claimed("r1")),
            draft("t1", cancel_requested("r1")),
            draft("t1", run_claimed("r1")),
            draft("t1", run_finished("r1"), epoch=1),
        ]
        places = world.append(*drafts[:2])
        world.log.put(b"t1", b"{not json", places[0].partition)
        places += world.append(*drafts[2:])
        await world.folded()
        await world.until(lambda: world.feed.hints and world.feed.hints[-1].to == places[-1].offset)

    def settled(place: Place, append_id: str) -> list[Verdict]:
        told = [hint.verdict(place.offset, append_id) for hint in world.feed.hints if _settles(hint, place)]
        return [verdict for verdict in told if verdict is not None]

    verdicts = [settled(place, one.append_id) for place, one in zip(places, drafts, strict=True)]
    void = Void("not_pending", None, "pending", "claimed at 1")
    assert verdicts == [[Accepted(0)], [Accepted(1)], [Accepted(2)], [void], [Accepted(3)]]
    assert [settled(place, drafts[0].append_id) for place in places[1:]] == [[], [], [], []], "of other tries"
    assert [run for hint in world.feed.hints for run in hint.ended] == ["r1"]
    assert [run for hint in world.feed.hints for run in hint.cancelled] == ["r1"]


async def test_nothing_is_announced_before_it_is_committed(world: World) -> None:
    async with world.projector() as projector, world.pool.acquire() as other:
        await projector.wait_ready()
        lock = other.transaction()
        await lock.start()
        await other.execute("SELECT FROM ledger.positions FOR UPDATE")
        world.append(draft("t1", thread_created(), run_created()))

        async def projector_waits() -> bool:
            activity = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            waiting: int = await world.pool.fetchval(f"{activity} AND wait_event_type = 'Lock'")
            return waiting > 0

        await world.until(projector_waits)
        assert (world.feed.hints, world.feed.pushed) == ([], [])
        await lock.commit()
        await world.until(lambda: world.feed.hints and world.feed.pushed)


async def test_runs_are_pushed_when_a_worker_may_claim_them(world: World) -> None:
    async with world.projector() as projector:
        await projector.wait_ready()

        async def after(*drafts: Draft) -> list[str]:
            world.feed.pushed.clear()
            world.append(*drafts)
            await world.folded()
            marker = world.log.append(draft("marker", state_updated({}), stream="thread-marker"))
            await world.until(lambda: any(_settles(hint, marker) for hint in world.feed.hints))
            return [run_id for _, run_id in world.feed.pushed]

        assert await after(draft("t1", thread_created(), run_created("r1"))) == ["r1"]
        assert await after(draft("t1", run_claimed("r1"))) == []
        assert await after(draft("t1", run_created("late", due_at=START.replace(year=2999)))) == []
        assert await after(draft("t1", run_created("r2")), draft("t1", run_created("r3"))) == []
        assert await after(draft("t1", run_finished("r1"), epoch=1)) == ["r2"]
        assert await after(draft("t1", thread_deleted())) == []
    assert {graph_id for graph_id, _ in world.feed.pushed} <= {"agent"}


def _settles(hint: Hint, place: Place) -> bool:
    return hint.partition == place.partition and hint.after < place.offset <= hint.to


async def test_a_queue_that_is_away_stops_nothing(world: World) -> None:
    world.feed.away = True
    async with world.projector() as projector:
        await projector.wait_ready()
        world.append(draft("t1", thread_created(), run_created()))
        await world.until(lambda: world.feed.hints)
        await world.folded()
    assert world.feed.pushed == []


async def test_catching_up_announces_nothing_until_the_end_that_was_seen_at_the_start(world: World) -> None:
    (key,) = keys_of(world, 0, 1)
    world.append(draft(key, thread_created(key), run_created("r1", key)), draft(key, run_created("r2", key)))
    async with world.projector(max_records=1):
        await world.folded()
        await world.until(lambda: world.feed.pushed)
        assert world.feed.hints == []
        assert world.feed.pushed == [("agent", "r1")]
        world.append(draft(key, patched({}, key), stream=f"meta-{key}"))
        await world.until(lambda: world.feed.hints)


async def test_a_partition_counts_as_present_only_once_it_is_caught_up(world: World) -> None:
    (here,), (other,) = keys_of(world, 0, 1), keys_of(world, 1, 1)
    world.append(*(draft(here, patched({}, here), stream=f"meta-{here}") for _ in range(RESUMABLE + 2)))
    async with world.pool.acquire() as blocker:
        # A row that the first transaction has to wait for: the fold stands still before the first record.
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("INSERT INTO ledger.heads VALUES ($1, 0, 0, '{}')", here)
        async with world.projector(max_records=1):
            await world.until(lambda: world.ledger.present(1))
            assert not await world.ledger.present(0)
            await transaction.rollback()
            await world.until(lambda: world.ledger.present(0))
    world.append(*(draft(here, patched({}, here), stream=f"meta-{here}") for _ in range(3)))
    world.append(draft(other, thread_created(other)))
    async with world.pool.acquire() as blocker:
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("SELECT FROM ledger.heads FOR UPDATE")
        async with world.projector() as projector:  # a short way behind is no reason to turn anybody away
            await projector.wait_ready()
            assert await world.ledger.present(0)
            assert not await position(world, 0, RESUMABLE + 5)
            await transaction.rollback()
            await world.folded()


async def test_who_lost_its_partitions_writes_nothing_and_begins_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.projector(look_every=world.settings.patience * 1000) as projector:
        await projector.wait_ready()
        await world.pool.execute("UPDATE ledger.positions SET owner = 'somebody'")
        places = world.append(draft("t1", thread_created()))
        await world.folded()
        assert await world.verdict(places[0]) == Accepted(0)
    assert [record.message for record in caplog.records if record.message == "projector.fenced"]
    assert await world.pool.fetchval("SELECT count(*) FROM ledger.log_index") == 1


async def test_a_rebuild_takes_the_partitions_and_the_projector_has_them_back_afterwards(world: World) -> None:
    world.append(*(draft(f"t{number}", thread_created(f"t{number}")) for number in range(20)))
    async with world.projector(owner="projector"):
        await world.folded()
        before = await world.dump()
        rebuilding = await connect(world.uri)
        try:
            await fence_off(rebuilding, [0, 1], "rebuild")
            await world.reset()
            announcer = Announcer(world.feed, world.feed)
            outside = Outside(world.log.reader(), world.log.partition_of, WallClock(), announcer)
            fold = Fold(rebuilding, replace(world.settings, owner="rebuild"), outside, *read_models())
            await fold.begin()
            while fold.behind:
                await fold.cycle()
            assert await world.pool.fetchval("SELECT DISTINCT owner FROM ledger.positions") == "rebuild"
        finally:
            await rebuilding.close()
        assert await world.dump() == before
        place = world.log.append(draft("t0", run_created("r0", "t0")))
        await world.folded()
        assert await world.verdict(place) == Accepted(1)
        assert await world.pool.fetchval("SELECT DISTINCT owner FROM ledger.positions") == "projector"


async def test_a_reset_position_is_noticed_even_when_nothing_happens(world: World) -> None:
    world.append(*(draft(f"t{number}", thread_created(f"t{number}")) for number in range(20)))
    async with world.projector():
        await world.folded()
        before = await world.dump()
        await world.reset()
        await world.folded()
        assert await world.dump() == before


async def test_a_lost_connection_costs_nothing(world: World) -> None:
    async with world.projector():
        for number in range(5):
            world.append(draft(f"t{number}", thread_created(f"t{number}")))
            await world.pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'agentlog projector'"
                " AND datname = current_database()"
            )
        await world.folded()
    assert await Threads(world.pool).count(ThreadFilter()) == 5


async def test_tables_that_vanish_are_folded_again_once_they_are_back(own_world: World) -> None:
    world = own_world
    for number in range(10):
        key = f"t{number}"
        world.append(draft(key, thread_created(key), run_created(f"r{number}", key)))
    async with world.projector():
        await world.folded()
        before = await world.dump()
        await world.pool.execute(DROP)
        await upgrade(world.uri, TABLES)
        await world.pool.expire_connections()
        await world.folded()
        assert await world.dump() == before


async def test_every_way_to_fold_the_same_log_gives_the_same_rows(world: World) -> None:
    for number in range(6):
        key, run = f"t{number}", f"r{number}"
        stream = f"run-{run}"
        world.append(
            draft(key, thread_created(key, {"n": number}), run_created(run, key)),
            draft(key, run_claimed(run)),
            draft(key, saved("c1", full("x", "1", {"items": [number]}), run=run, thread=key), stream=stream, epoch=1),
            draft(key, saved("c2", run=run, thread=key), stream=stream, epoch=7),
            draft(key, run_finished(run, {"set": {"x": [number]}}, checkpoint_id="c1"), epoch=1),
            draft(key, patched({"p": 1}, key), stream=f"meta-{key}"),
            draft(key, run_created(f"{run}b", key)),
            draft(key, run_claimed(f"{run}b")),
            draft(key, run_finished(f"{run}b", {"append": {"x": [1]}}), epoch=4),
        )
        if number % 2:
            world.append(draft(key, thread_deleted(key)), draft(key, run_created("late", key)))
        if number % 3 == 0:
            world.append(draft(key, thread_created(key)))
    dumps: list[dict[str, str]] = []
    for size in (1, 7, 1000):
        await world.reset()
        async with world.projector(max_records=size):
            await world.folded()
        dumps.append(await world.dump())
    assert dumps[0] == dumps[1] == dumps[2]
    await world.reset()
    for size in (5, 11, 3):  # restarts in between: nothing may depend on what a projector remembers
        async with world.projector(max_records=size):
            await world.until(partial(_folded_at_least, world, size * 3))
    async with world.projector():
        await world.folded()
    assert await world.dump() == dumps[0]


async def _folded_at_least(world: World, records: int) -> bool:
    found: int = await world.pool.fetchval("SELECT coalesce(sum(next_offset), 0)::int FROM ledger.positions")
    return found >= records


async def test_another_log_stops_the_partition_and_leaves_the_others(world: World) -> None:
    (here, more), (other,) = keys_of(world, 0, 2), keys_of(world, 1, 1)
    world.append(draft(here, thread_created(here)), draft(other, thread_created(other)))
    async with world.projector():
        await world.folded()
    world.log.records[0].clear()
    world.append(draft(more, thread_created(more)))
    async with world.projector():
        world.append(draft(other, run_created("r1", other)))
        await world.until(lambda: position(world, 1, 2))
        await world.until(lambda: stopped(world, 0, "log diverged"))
        assert not await world.ledger.present(0)
        assert await world.ledger.present(1)


def test_a_log_that_lacks_the_last_record_stops_the_partition_at_once() -> None:
    one = Partition(0, next_offset=3, digest="of the record at 2", present=True)
    one.begin(5)
    assert not one.take(RawRecord(Place(0, 4), b"t1", b"{}", START))
    assert one.found_out()
    assert one.stopped == "log diverged: expected a record at 2, found 4"
    assert not one.found_out()


async def test_a_log_that_became_shorter_stops_the_partition(world: World) -> None:
    (here,) = keys_of(world, 0, 1)
    world.append(draft(here, thread_created(here)))
    async with world.projector():
        await world.folded()
    world.log.records[0].clear()
    async with world.projector():
        await world.until(lambda: stopped(world, 0, "the log ends at 0"))


async def position(world: World, partition: int, wanted: int) -> bool:
    return await world.ledger.position(partition) == wanted


async def stopped(world: World, partition: int, wanted: str) -> bool:
    sql = "SELECT stopped FROM ledger.positions WHERE partition = $1"
    return wanted in (await world.pool.fetchval(sql, partition) or "")


async def test_an_unknown_schema_stops_its_partition_and_is_never_skipped(world: World) -> None:
    (here, more), (other,) = keys_of(world, 0, 2), keys_of(world, 1, 1)
    world.log.unknown.add("future")
    places = world.append(
        draft(here, thread_created(here)),
        draft(here, run_created("r1", here), event_id="future"),
        draft(more, thread_created(more)),
        draft(other, thread_created(other)),
    )
    async with world.projector():
        await world.until(lambda: stopped(world, 0, "unknown schema"))
        await world.until(lambda: position(world, 1, 1))
    assert await world.ledger.position(0) == 1
    assert await world.ledger.at([places[2]]) == []
    world.log.unknown.clear()
    async with world.projector():
        await world.folded()
    assert await world.verdict(places[2]) == Accepted(0)


async def test_a_record_that_the_ledger_cannot_hold_stops_its_partition_there_and_no_other(own_world: World) -> None:
    world = own_world
    await world.pool.execute("ALTER TABLE ledger.log_index ALTER event_id TYPE varchar(20)")
    (here, more), (other,) = keys_of(world, 0, 2), keys_of(world, 1, 1)
    places = world.append(
        draft(here, thread_created(here)),
        draft(other, thread_created(other)),
        draft(here, run_created("r1", here), event_id="longer than the column can hold"),
        draft(other, run_created("r1", other)),
        draft(more, thread_created(more)),
    )
    async with world.projector():
        await world.until(lambda: stopped(world, 0, "cannot be folded at 1"))
        places += world.append(draft(other, run_created("r2", other)), draft(more, run_created("r1", more)))
        await world.until(lambda: position(world, 1, 3))
    assert await world.ledger.position(0) == 1
    assert await world.ledger.at([places[2], places[4], places[6]]) == [], "what comes behind it is not folded"
    assert [await world.verdict(places[number]) for number in (0, 1, 3, 5)] == [
        Accepted(0),
        Accepted(0),
        Accepted(1),
        Accepted(2),
    ]
    await world.pool.execute("ALTER TABLE ledger.log_index ALTER event_id TYPE text")
    async with world.projector():
        await world.folded()
    assert await world.verdict(places[2]) == Accepted(1)


async def test_a_database_that_takes_no_writes_for_a_while_ends_no_projector(
    own_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world = own_world
    world.append(draft("t1", thread_created()))

    def refused() -> list[str]:
        reasons = [str(getattr(record, "reason", "")) for record in caplog.records]
        return [reason for reason in reasons if reason.startswith("ReadOnlySQLTransactionError")]

    async with world.pool.acquire() as operator:  # its session stays one that may write
        database = await operator.fetchval("SELECT current_database()")
        await operator.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        async with world.projector():
            await world.until(lambda: len(refused()) > 2, "refused, and tried again")
            await operator.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
            await world.folded()


@pytest.mark.parametrize(
    "error", [asyncpg.ReadOnlySQLTransactionError, asyncpg.TransactionTimeoutError, asyncpg.InternalServerError]
)
def test_a_fault_of_the_server_says_nothing_about_a_commit(error: type[asyncpg.PostgresError]) -> None:
    assert not is_deterministic(error("cannot execute UPDATE in a read-only transaction"))


class PickyThreads(ThreadsModel):
    """Cannot hold metadata that says so."""

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        for commit in batch:
            if any(getattr(fact, "metadata", None) == {"bad": True} for fact in commit.draft.facts):
                raise ValueError("this model cannot hold that")
        await super().apply(tx, batch)


def picky() -> tuple[Sequence[ReadModel], RunsModel]:
    """Return the read models, the one of the threads picky."""
    models, runs = read_models()
    return [PickyThreads() if isinstance(model, ThreadsModel) else model for model in models], runs


async def test_what_a_read_model_cannot_hold_is_parked_in_order_and_the_rest_goes_on(world: World) -> None:
    places = world.append(
        draft("good", thread_created("good")),
        draft("bad", thread_created("bad")),
        draft("bad", patched({"bad": True}, "bad"), stream="meta-bad"),
        draft("bad", patched({"later": 1}, "bad"), stream="meta-bad"),
        draft("good", patched({"fine": 1}, "good"), stream="meta-good"),
    )
    threads = Threads(world.pool)
    async with world.projector(picky()):
        await world.folded()
        versions = [await world.verdict(place) for place in places]
        assert versions == [Accepted(0), Accepted(0), Accepted(0), Accepted(1), Accepted(0)]
        assert await parked(world.pool) == [("threads", "bad")]
        places += world.append(
            draft("bad", patched({"last": 1}, "bad"), stream="meta-bad"),
            draft("good", patched({"too": 1}, "good"), stream="meta-good"),
        )
        await world.folded()
    good = await threads.search(ThreadFilter(metadata={"fine": 1, "too": 1}))
    assert [thread.thread_id for thread in good] == ["good"]
    rows = await world.pool.fetch('SELECT "offset", error FROM ledger.quarantine ORDER BY "offset"')
    offsets = [place.offset for place in places if place.offset in {row["offset"] for row in rows}]
    assert [row["offset"] for row in rows][-3:] == [places[2].offset, places[3].offset, places[5].offset]
    assert offsets
    assert "ValueError: this model cannot hold that" in rows[0]["error"]


async def test_parked_commits_are_applied_in_order_once_the_model_can_hold_them(world: World) -> None:
    world.append(
        draft("bad", thread_created("bad")),
        draft("bad", patched({"bad": True}, "bad"), stream="meta-bad"),
        draft("bad", patched({"bad": False, "later": 1}, "bad"), stream="meta-bad"),
    )
    async with world.projector(picky()):
        await world.folded()
    connection = await connect(world.uri)
    try:
        with pytest.raises(ValueError, match="cannot hold"):
            await retry(connection, world.log, picky()[0], "threads", Key("bad"))  # type: ignore[arg-type]  # reads only
        async with world.projector():
            await world.until(lambda: world.ledger.present(0))
            count = await retry(connection, world.log, read_models()[0], "threads", Key("bad"))  # type: ignore[arg-type]  # reads only
            assert count > 0
            assert await parked(world.pool) == []
            world.append(draft("bad", patched({"last": 1}, "bad"), stream="meta-bad"))
            await world.folded()
            found = await Threads(world.pool).search(ThreadFilter())
            assert [thread.metadata for thread in found] == [{"bad": False, "later": 1, "last": 1}]
    finally:
        await connection.close()


async def test_what_postgres_cannot_hold_is_parked_for_that_read_model_only(world: World) -> None:
    world.append(
        draft("t1", thread_created("t1"), run_created("r1", "t1")),
        draft("t1", run_claimed("r1")),
        draft("t1", saved("c1", full("nul\x00", "1", 1), run="r1"), stream="run-r1", epoch=1),
        draft("t1", run_finished("r1", {"set": {"x": 1}}), epoch=1),
    )
    async with world.projector():
        await world.folded()
    assert await parked(world.pool) == [("checkpoints", "t1")]
    found = await Threads(world.pool).search(ThreadFilter())
    assert [(thread.status, thread.values) for thread in found] == [("idle", {"x": 1})]


async def test_a_fault_of_our_own_is_not_retried_for_ever(world: World) -> None:
    async with world.pool.acquire() as connection:
        await connection.execute("ALTER TABLE ledger.heads ADD COLUMN needed int NOT NULL DEFAULT 1")
        await connection.execute("ALTER TABLE ledger.heads ALTER COLUMN needed DROP DEFAULT")
    world.append(draft("t1", thread_created()))
    try:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with world.projector():
                await asyncio.get_running_loop().create_future()
        assert caught.group_contains(asyncpg.NotNullViolationError)
    finally:
        await world.pool.execute("ALTER TABLE ledger.heads DROP COLUMN needed")


async def waits_for_a_lock(world: World) -> bool:
    activity = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    waiting: int = await world.pool.fetchval(f"{activity} AND wait_event_type = 'Lock'")
    return waiting > 0


async def test_what_is_parked_while_a_retry_waits_for_the_projector_is_retried_too(world: World) -> None:
    bad = [draft("bad", patched({"bad": True}, "bad"), stream="meta-bad") for _ in range(2)]
    places = world.append(draft("bad", thread_created("bad")), *bad)
    async with world.projector(picky()):
        await world.folded()
    moved = await world.pool.fetchrow('DELETE FROM ledger.quarantine WHERE "offset" = $1 RETURNING *', places[2].offset)
    assert moved is not None
    connection = await connect(world.uri)
    try:
        async with world.pool.acquire() as folding:
            transaction = folding.transaction()
            await transaction.start()
            await folding.execute("SELECT FROM ledger.positions FOR UPDATE")
            retrying = asyncio.ensure_future(
                retry(connection, world.log, read_models()[0], "threads", Key("bad"))  # type: ignore[arg-type]  # reads only
            )
            await world.until(lambda: waits_for_a_lock(world))
            columns = ", ".join(f"${number}" for number in range(1, len(moved) + 1))
            await folding.execute(f"INSERT INTO ledger.quarantine VALUES ({columns})", *moved.values())
            await transaction.commit()
        assert await retrying == len(places)
    finally:
        await connection.close()
    assert await parked(world.pool) == []


class LosingThreads(ThreadsModel):
    """Loses its partitions to somebody else in the moment in which it cannot hold a commit; once."""

    lost = False

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        if batch and not LosingThreads.lost:
            LosingThreads.lost = True
            await self._world.pool.execute("UPDATE ledger.positions SET owner = 'other'")
            raise ValueError("this model cannot hold that")
        await super().apply(tx, batch)


async def test_who_loses_its_partitions_while_it_folds_carefully_begins_again(world: World) -> None:
    models, runs = read_models()
    losing = [LosingThreads(world) if isinstance(model, ThreadsModel) else model for model in models]
    async with world.projector((losing, runs)):
        world.append(draft("t1", thread_created("t1")))
        await world.folded()
    assert LosingThreads.lost
    assert await parked(world.pool) == []
    assert await Threads(world.pool).count(ThreadFilter()) == 1
