"""Projector: its announcements, its ownership of partitions, and faults that stop it or do not."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from tests.projections.found_threads import found_ids, found_threads, values_of
from tests.projections.projector_env import START, TABLES, MemoryTail, ProjectorEnv, WallClock, draft

from agentlog_facts.envelope import Draft, LogPosition
from agentlog_facts.errors import Unavailable
from agentlog_facts.guard import Accepted, Verdict, Void
from agentlog_facts.ids import Key
from agentlog_facts.notification import Hint
from agentlog_facts.ports import RawRecord
from agentlog_infra.postgres.migrate import upgrade
from agentlog_postgres.connection import connect_projector
from agentlog_projections.models.registry import read_models
from agentlog_projections.models.runs import RunsModel
from agentlog_projections.models.threads import ThreadFilter, Threads, ThreadsModel
from agentlog_projections.projector import session
from agentlog_projections.projector.announcer import Announcer
from agentlog_projections.projector.isolated_fold import retry
from agentlog_projections.projector.ownership import RESUMABLE, FoldedPartition, fence_off
from agentlog_projections.projector.quarantine import is_deterministic
from agentlog_projections.projector.session import FoldPorts, ProjectorSession
from agentlog_projections.projector.verdicts import size_bytes
from agentlog_projections.rebuild.shadow_schema import DROP
from agentlog_projections.sql.batch import Transaction
from agentlog_projections.sql.caught_up import open_rows
from agentlog_projections.sql.read_model import Commit, ReadModel


def keys_of(env: ProjectorEnv, partition: int, count: int) -> list[str]:
    """Return this many keys of a partition."""
    names = (f"k{number}" for number in range(1000))
    return [name for name in names if env.log.partition_of(Key(name)) == partition][:count]


async def test_a_hint_settles_the_batch_and_names_ends_and_cancels(env: ProjectorEnv) -> None:
    async with env.projector() as projector:
        await projector.wait_ready()
        drafts = [
            draft("t1", thread_created(), run_created("r1")),
            draft("t1", run_claimed("r1")),
            draft("t1", cancel_requested("r1")),
            draft("t1", run_claimed("r1")),
            draft("t1", run_finished("r1"), epoch=1),
        ]
        places = env.append(*drafts[:2])
        env.log.put(b"t1", b"{not json", places[0].partition)
        places += env.append(*drafts[2:])
        await env.folded()
        await env.until(lambda: env.feed.hints and env.feed.hints[-1].to == places[-1].offset)

    def settled(place: LogPosition, append_id: str) -> list[Verdict]:
        told = [hint.verdict(place.offset, append_id) for hint in env.feed.hints if _settles(hint, place)]
        return [verdict for verdict in told if verdict is not None]

    verdicts = [settled(place, one.append_id) for place, one in zip(places, drafts, strict=True)]
    void = Void("not_pending", None, "pending", "claimed at 1")
    assert verdicts == [[Accepted(0)], [Accepted(1)], [Accepted(2)], [void], [Accepted(3)]]
    assert [settled(place, drafts[0].append_id) for place in places[1:]] == [[], [], [], []], "of other tries"
    assert [run for hint in env.feed.hints for run in hint.ended] == ["r1"]
    assert [run for hint in env.feed.hints for run in hint.cancelled] == ["r1"]


async def test_nothing_is_announced_before_it_is_committed(env: ProjectorEnv) -> None:
    async with env.projector() as projector, env.pool.acquire() as other:
        await projector.wait_ready()
        lock = other.transaction()
        await lock.start()
        await other.execute("SELECT FROM ledger.positions FOR UPDATE")
        env.append(draft("t1", thread_created(), run_created()))

        async def projector_waits() -> bool:
            activity = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            waiting: int = await env.pool.fetchval(f"{activity} AND wait_event_type = 'Lock'")
            return waiting > 0

        await env.until(projector_waits)
        assert (env.feed.hints, env.feed.pushed) == ([], [])
        await lock.commit()
        await env.until(lambda: env.feed.hints and env.feed.pushed)


async def test_runs_are_pushed_when_a_worker_may_claim_them(env: ProjectorEnv) -> None:
    async with env.projector() as projector:
        await projector.wait_ready()

        async def after(*drafts: Draft) -> list[str]:
            env.feed.pushed.clear()
            env.append(*drafts)
            await env.folded()
            marker = env.log.append(draft("marker", state_updated({}), stream="thread-marker"))
            await env.until(lambda: any(_settles(hint, marker) for hint in env.feed.hints))
            return [run_id for _, run_id in env.feed.pushed]

        assert await after(draft("t1", thread_created(), run_created("r1"))) == ["r1"]
        assert await after(draft("t1", run_claimed("r1"))) == []
        assert await after(draft("t1", run_created("late", due_at=START.replace(year=2999)))) == []
        assert await after(draft("t1", run_created("r2")), draft("t1", run_created("r3"))) == []
        assert await after(draft("t1", run_finished("r1"), epoch=1)) == ["r2"]
        assert await after(draft("t1", thread_deleted())) == []
    assert {graph_id for graph_id, _ in env.feed.pushed} <= {"agent"}


def _settles(hint: Hint, place: LogPosition) -> bool:
    return hint.partition == place.partition and hint.after < place.offset <= hint.to


async def test_a_queue_that_is_away_stops_nothing(env: ProjectorEnv) -> None:
    env.feed.away = True
    async with env.projector() as projector:
        await projector.wait_ready()
        env.append(draft("t1", thread_created(), run_created()))
        await env.until(lambda: env.feed.hints)
        await env.folded()
    assert env.feed.pushed == []


async def test_catching_up_announces_nothing_until_the_end_that_was_seen_at_the_start(env: ProjectorEnv) -> None:
    (key,) = keys_of(env, 0, 1)
    env.append(draft(key, thread_created(key), run_created("r1", key)), draft(key, run_created("r2", key)))
    async with env.projector(max_records=1):
        await env.folded()
        await env.until(lambda: env.feed.pushed)
        assert env.feed.hints == []
        assert env.feed.pushed == [("agent", "r1")]
        env.append(draft(key, patched({}, key), stream=f"meta-{key}"))
        await env.until(lambda: env.feed.hints)


async def test_a_partition_counts_as_present_only_once_it_is_caught_up(env: ProjectorEnv) -> None:
    (here,), (other,) = keys_of(env, 0, 1), keys_of(env, 1, 1)
    env.append(*(draft(here, patched({}, here), stream=f"meta-{here}") for _ in range(RESUMABLE + 2)))
    async with env.pool.acquire() as blocker:
        # The first transaction waits for this row, so the fold hangs before the first record.
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("INSERT INTO ledger.heads VALUES ($1, 0, 0, '{}')", here)
        async with env.projector(max_records=1):
            await env.until(lambda: env.caught_up(1))
            assert not await env.caught_up(0)
            await transaction.rollback()
            await env.until(lambda: env.caught_up(0))
    env.append(*(draft(here, patched({}, here), stream=f"meta-{here}") for _ in range(3)))
    env.append(draft(other, thread_created(other)))
    async with env.pool.acquire() as blocker:
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("SELECT FROM ledger.heads FOR UPDATE")
        async with env.projector() as projector:  # a partition that is a little behind stays usable
            await projector.wait_ready()
            assert await env.caught_up(0)
            assert not await position(env, 0, RESUMABLE + 5)
            await transaction.rollback()
            await env.folded()


async def test_after_a_crash_nobody_opens_a_connection_for_reads_until_the_end_of_the_log_is_folded(
    env: ProjectorEnv,
) -> None:
    (here,), (other,) = keys_of(env, 0, 1), keys_of(env, 1, 1)
    env.append(draft(here, thread_created(here)), draft(other, thread_created(other)))
    async with env.projector():
        await env.folded()
        await env.until(lambda: readable(env))
    env.append(*(draft(here, patched({}, here), stream=f"meta-{here}") for _ in range(3)))
    await env.pool.execute("DELETE FROM ledger.crash_marks")  # as the recovery does
    async with env.pool.acquire() as blocker:
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("SELECT FROM ledger.heads FOR UPDATE")
        async with env.projector(max_records=1) as projector:
            await projector.wait_ready()
            assert not await readable(env), "three records that may have been folded before are not yet folded again"
            assert await env.pool.fetchval("SELECT array_agg(partition) FROM ledger.crash_marks") == [1]
            await transaction.rollback()
            await env.until(lambda: readable(env))
            assert await position(env, 0, 4)
    async with env.projector() as projector:  # a restart of the projector alone takes nothing back
        await projector.wait_ready()
        assert await readable(env)


async def test_a_stopped_partition_keeps_nobody_from_reading_the_others(env: ProjectorEnv) -> None:
    async with env.projector():
        await env.until(lambda: env.caught_up(0))
        await env.until(lambda: env.caught_up(1))
    await env.pool.execute("DELETE FROM ledger.crash_marks WHERE partition = 0")
    assert not await readable(env)
    await env.pool.execute("UPDATE ledger.positions SET stopped = 'unknown schema' WHERE partition = 0")
    assert await readable(env)


async def test_only_a_batch_that_makes_a_partition_usable_waits_for_the_disk(env: ProjectorEnv) -> None:
    await env.pool.execute(
        """CREATE TABLE said (setting text);
        CREATE FUNCTION say() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO said VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER says AFTER INSERT ON ledger.log_index DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION say()"""
    )
    try:
        env.append(draft("t1", thread_created("t1")))
        async with env.projector():
            await env.folded()
            await env.until(lambda: env.caught_up(env.log.partition_of(Key("t1"))))
            env.append(draft("t1", patched({}, "t1"), stream="meta-t1"))
            await env.folded()
        said = [row["setting"] for row in await env.pool.fetch("SELECT setting FROM said")]
    finally:
        await env.pool.execute("DROP TRIGGER says ON ledger.log_index; DROP FUNCTION say; DROP TABLE said")
    assert said == ["on", "off"]


async def test_a_projector_that_lost_its_partitions_writes_nothing_and_begins_again(
    env: ProjectorEnv, caplog: pytest.LogCaptureFixture
) -> None:
    async with env.projector(look_every=env.settings.patience * 1000) as projector:
        await projector.wait_ready()
        await env.pool.execute("UPDATE ledger.positions SET owner = 'somebody'")
        places = env.append(draft("t1", thread_created()))
        await env.folded()
        assert await env.verdict(places[0]) == Accepted(0)
    assert [record.message for record in caplog.records if record.message == "projector.fenced"]
    assert await env.pool.fetchval("SELECT count(*) FROM ledger.log_index") == 1


async def test_a_rebuild_takes_the_partitions_and_the_projector_has_them_back_afterwards(env: ProjectorEnv) -> None:
    env.append(*(draft(f"t{number}", thread_created(f"t{number}")) for number in range(20)))
    async with env.projector(owner="projector"):
        await env.folded()
        before = await env.dump()
        rebuilding = await connect_projector(env.uri)
        try:
            await fence_off(rebuilding, [0, 1], "rebuild")
            await env.reset()
            announcer = Announcer(env.feed, env.feed)
            ports = FoldPorts(env.log.reader(), env.log.partition_of, WallClock(), announcer)
            fold = ProjectorSession(rebuilding, replace(env.settings, owner="rebuild"), ports, *read_models())
            await fold.begin()
            while fold.behind:
                await fold.cycle()
            assert await env.pool.fetchval("SELECT DISTINCT owner FROM ledger.positions") == "rebuild"
        finally:
            await rebuilding.close()
        assert await env.dump() == before
        place = env.log.append(draft("t0", run_created("r0", "t0")))
        await env.folded()
        assert await env.verdict(place) == Accepted(1)
        assert await env.pool.fetchval("SELECT DISTINCT owner FROM ledger.positions") == "projector"


async def test_a_reset_position_is_noticed_even_when_nothing_happens(env: ProjectorEnv) -> None:
    env.append(*(draft(f"t{number}", thread_created(f"t{number}")) for number in range(20)))
    async with env.projector():
        await env.folded()
        before = await env.dump()
        await env.reset()
        await env.folded()
        assert await env.dump() == before


async def test_a_lost_connection_costs_nothing(env: ProjectorEnv) -> None:
    async with env.projector():
        for number in range(5):
            env.append(draft(f"t{number}", thread_created(f"t{number}")))
            await env.pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'agentlog projector'"
                " AND datname = current_database()"
            )
        await env.folded()
    assert len(await found_threads(Threads(env.pool))) == 5


async def test_tables_that_vanish_are_folded_again_once_they_are_back(own_env: ProjectorEnv) -> None:
    env = own_env
    for number in range(10):
        key = f"t{number}"
        env.append(draft(key, thread_created(key), run_created(f"r{number}", key)))
    async with env.projector():
        await env.folded()
        before = await env.dump()
        await env.pool.execute(DROP)
        await upgrade(env.uri, TABLES)
        await env.pool.expire_connections()
        await env.folded()
        assert await env.dump() == before


async def test_every_way_to_fold_the_same_log_gives_the_same_rows(env: ProjectorEnv) -> None:
    for number in range(6):
        key, run = f"t{number}", f"r{number}"
        stream = f"run-{run}"
        env.append(
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
            env.append(draft(key, thread_deleted(key)), draft(key, run_created("late", key)))
        if number % 3 == 0:
            env.append(draft(key, thread_created(key)))
    dumps: list[dict[str, str]] = []
    for size in (1, 7, 1000):
        await env.reset()
        async with env.projector(max_records=size):
            await env.folded()
        dumps.append(await env.dump())
    assert dumps[0] == dumps[1] == dumps[2]
    await env.reset()
    for size in (5, 11, 3):  # restarts in between: the rows may not depend on caches
        async with env.projector(max_records=size):
            await env.until(partial(_folded_at_least, env, size * 3))
    async with env.projector():
        await env.folded()
    assert await env.dump() == dumps[0]


async def _folded_at_least(env: ProjectorEnv, records: int) -> bool:
    found: int = await env.pool.fetchval("SELECT coalesce(sum(next_offset), 0)::int FROM ledger.positions")
    return found >= records


async def test_another_log_stops_the_partition_and_leaves_the_others(env: ProjectorEnv) -> None:
    (here, more), (other,) = keys_of(env, 0, 2), keys_of(env, 1, 1)
    env.append(draft(here, thread_created(here)), draft(other, thread_created(other)))
    async with env.projector():
        await env.folded()
    env.log.records[0].clear()
    env.append(draft(more, thread_created(more)))
    async with env.projector():
        env.append(draft(other, run_created("r1", other)))
        await env.until(lambda: position(env, 1, 2))
        await env.until(lambda: stopped(env, 0, "log diverged"))
        assert not await env.caught_up(0)
        assert await env.caught_up(1)


def test_a_log_that_lacks_the_last_record_stops_the_partition_at_once() -> None:
    one = FoldedPartition(0, next_offset=3, digest="of the record at 2", present=True)
    one.begin(5)
    assert not one.take(RawRecord(LogPosition(0, 4), b"t1", b"{}", START))
    assert one.status_changed()
    assert one.stopped == "log diverged: expected a record at 2, found 4"
    assert not one.status_changed()


async def test_a_log_that_became_shorter_stops_the_partition(env: ProjectorEnv) -> None:
    (here,) = keys_of(env, 0, 1)
    env.append(draft(here, thread_created(here)))
    async with env.projector():
        await env.folded()
    env.log.records[0].clear()
    async with env.projector():
        await env.until(lambda: stopped(env, 0, "the log ends at 0"))


async def position(env: ProjectorEnv, partition: int, wanted: int) -> bool:
    return await env.ledger.position(partition) == wanted


async def readable(env: ProjectorEnv) -> bool:
    pool = await open_rows(env.uri, 1)
    try:
        return bool(await pool.fetchval("SELECT true"))
    except Unavailable:
        return False
    finally:
        await pool.close()


async def stopped(env: ProjectorEnv, partition: int, wanted: str) -> bool:
    sql = "SELECT stopped FROM ledger.positions WHERE partition = $1"
    return wanted in (await env.pool.fetchval(sql, partition) or "")


async def test_an_unknown_schema_stops_its_partition_and_is_never_skipped(env: ProjectorEnv) -> None:
    (here, more), (other,) = keys_of(env, 0, 2), keys_of(env, 1, 1)
    env.log.unknown.add("future")
    places = env.append(
        draft(here, thread_created(here)),
        draft(here, run_created("r1", here), event_id="future"),
        draft(more, thread_created(more)),
        draft(other, thread_created(other)),
    )
    async with env.projector():
        await env.until(lambda: stopped(env, 0, "unknown schema"))
        await env.until(lambda: position(env, 1, 1))
    assert await env.ledger.position(0) == 1
    assert await env.ledger.at([places[2]]) == []
    env.log.unknown.clear()
    async with env.projector():
        await env.folded()
    assert await env.verdict(places[2]) == Accepted(0)


async def test_a_record_that_the_ledger_cannot_hold_stops_its_partition_there_and_no_other(
    own_env: ProjectorEnv,
) -> None:
    env = own_env
    await env.pool.execute("ALTER TABLE ledger.log_index ALTER event_id TYPE varchar(20)")
    (here, more), (other,) = keys_of(env, 0, 2), keys_of(env, 1, 1)
    places = env.append(
        draft(here, thread_created(here)),
        draft(other, thread_created(other)),
        draft(here, run_created("r1", here), event_id="longer than the column can hold"),
        draft(other, run_created("r1", other)),
        draft(more, thread_created(more)),
    )
    async with env.projector():
        await env.until(lambda: stopped(env, 0, "cannot be folded at 1"))
        places += env.append(draft(other, run_created("r2", other)), draft(more, run_created("r1", more)))
        await env.until(lambda: position(env, 1, 3))
    assert await env.ledger.position(0) == 1
    assert await env.ledger.at([places[2], places[4], places[6]]) == [], "what comes behind it is not folded"
    assert [await env.verdict(places[number]) for number in (0, 1, 3, 5)] == [
        Accepted(0),
        Accepted(0),
        Accepted(1),
        Accepted(2),
    ]
    await env.pool.execute("ALTER TABLE ledger.log_index ALTER event_id TYPE text")
    async with env.projector():
        await env.folded()
    assert await env.verdict(places[2]) == Accepted(1)


async def test_a_database_that_takes_no_writes_for_a_while_ends_no_projector(
    own_env: ProjectorEnv, caplog: pytest.LogCaptureFixture
) -> None:
    env = own_env
    env.append(draft("t1", thread_created()))

    def refused() -> list[str]:
        reasons = [str(getattr(record, "reason", "")) for record in caplog.records]
        return [reason for reason in reasons if reason.startswith("ReadOnlySQLTransactionError")]

    async with env.pool.acquire() as operator:  # its session may still write
        database = await operator.fetchval("SELECT current_database()")
        await operator.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        async with env.projector():
            await env.until(lambda: len(refused()) > 2, "refused, and tried again")
            await operator.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
            await env.folded()


@pytest.mark.parametrize(
    "error", [asyncpg.ReadOnlySQLTransactionError, asyncpg.TransactionTimeoutError, asyncpg.DiskFullError]
)
def test_a_fault_of_the_server_says_nothing_about_a_commit(error: type[asyncpg.PostgresError]) -> None:
    assert not is_deterministic(error("cannot execute UPDATE in a read-only transaction"))


class PickyThreads(ThreadsModel):
    """Read model of threads that fails on marked metadata."""

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        for commit in batch:
            if any(getattr(fact, "metadata", None) == {"bad": True} for fact in commit.draft.facts):
                raise ValueError("this model cannot hold that")
        await super().apply(tx, batch)


def picky() -> tuple[Sequence[ReadModel], RunsModel]:
    """Return the read models, with a failing one of threads."""
    models, runs = read_models()
    return [PickyThreads() if isinstance(model, ThreadsModel) else model for model in models], runs


async def test_what_a_read_model_cannot_hold_is_parked_in_order_and_the_rest_goes_on(env: ProjectorEnv) -> None:
    places = env.append(
        draft("good", thread_created("good")),
        draft("bad", thread_created("bad")),
        draft("bad", patched({"bad": True}, "bad"), stream="meta-bad"),
        draft("bad", patched({"later": 1}, "bad"), stream="meta-bad"),
        draft("good", patched({"fine": 1}, "good"), stream="meta-good"),
    )
    threads = Threads(env.pool)
    async with env.projector(picky()):
        await env.folded()
        versions = [await env.verdict(place) for place in places]
        assert versions == [Accepted(0), Accepted(0), Accepted(0), Accepted(1), Accepted(0)]
        assert await env.parked() == [("threads", "bad")]
        places += env.append(
            draft("bad", patched({"last": 1}, "bad"), stream="meta-bad"),
            draft("good", patched({"too": 1}, "good"), stream="meta-good"),
        )
        await env.folded()
    assert await found_ids(threads, ThreadFilter(metadata={"fine": 1, "too": 1})) == ["good"]
    rows = await env.pool.fetch('SELECT "offset", error FROM ledger.quarantine ORDER BY "offset"')
    offsets = [place.offset for place in places if place.offset in {row["offset"] for row in rows}]
    assert [row["offset"] for row in rows][-3:] == [places[2].offset, places[3].offset, places[5].offset]
    assert offsets
    assert "ValueError: this model cannot hold that" in rows[0]["error"]


async def test_parked_commits_are_applied_in_order_once_the_model_can_hold_them(env: ProjectorEnv) -> None:
    env.append(
        draft("bad", thread_created("bad")),
        draft("bad", patched({"bad": True}, "bad"), stream="meta-bad"),
        draft("bad", patched({"bad": False, "later": 1}, "bad"), stream="meta-bad"),
    )
    async with env.projector(picky()):
        await env.folded()
    connection = await connect_projector(env.uri)
    try:
        with pytest.raises(ValueError, match="cannot hold"):
            await retry(connection, env.log, picky()[0], "threads", Key("bad"))
        async with env.projector():
            await env.until(lambda: env.caught_up(0))
            count = await retry(connection, env.log, read_models()[0], "threads", Key("bad"))
            assert count > 0
            assert await env.parked() == []
            env.append(draft("bad", patched({"last": 1}, "bad"), stream="meta-bad"))
            await env.folded()
            found = await found_threads(Threads(env.pool))
            assert [one.thread.metadata for one in found] == [{"bad": False, "later": 1, "last": 1}]
    finally:
        await connection.close()


async def test_what_postgres_cannot_hold_is_parked_for_that_read_model_only(env: ProjectorEnv) -> None:
    env.append(
        draft("t1", thread_created("t1"), run_created("r1", "t1")),
        draft("t1", run_claimed("r1")),
        draft("t1", saved("c1", full("nul\x00", "1", 1), run="r1"), stream="run-r1", epoch=1),
        draft("t1", run_finished("r1", {"set": {"x": 1}}), epoch=1),
    )
    async with env.projector():
        await env.folded()
    assert await env.parked() == [("checkpoints", "t1")]
    found = await found_threads(Threads(env.pool))
    assert [(one.thread.status, values_of(one)) for one in found] == [("idle", {"x": 1})]


async def test_a_fault_of_our_own_stops_the_partition_and_ends_no_process(own_env: ProjectorEnv) -> None:
    env = own_env
    await env.pool.execute("ALTER TABLE ledger.heads ADD COLUMN needed int NOT NULL DEFAULT 1")
    await env.pool.execute("ALTER TABLE ledger.heads ALTER COLUMN needed DROP DEFAULT")
    (place,) = env.append(draft("t1", thread_created()))
    async with env.projector():
        await env.until(lambda: stopped(env, place.partition, "cannot be folded at 0: NotNullViolationError"))
        await env.pool.execute("ALTER TABLE ledger.heads DROP COLUMN needed")
        await env.folded()
    assert await env.verdict(place) == Accepted(0)


async def waits_for_a_lock(env: ProjectorEnv) -> bool:
    activity = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    waiting: int = await env.pool.fetchval(f"{activity} AND wait_event_type = 'Lock'")
    return waiting > 0


async def test_what_is_parked_while_a_retry_waits_for_the_projector_is_retried_too(env: ProjectorEnv) -> None:
    bad = [draft("bad", patched({"bad": True}, "bad"), stream="meta-bad") for _ in range(2)]
    places = env.append(draft("bad", thread_created("bad")), *bad)
    async with env.projector(picky()):
        await env.folded()
    moved = await env.pool.fetchrow('DELETE FROM ledger.quarantine WHERE "offset" = $1 RETURNING *', places[2].offset)
    assert moved is not None
    connection = await connect_projector(env.uri)
    try:
        async with env.pool.acquire() as folding:
            transaction = folding.transaction()
            await transaction.start()
            await folding.execute("SELECT FROM ledger.positions FOR UPDATE")
            retrying = asyncio.ensure_future(retry(connection, env.log, read_models()[0], "threads", Key("bad")))
            await env.until(lambda: waits_for_a_lock(env))
            columns = ", ".join(f"${number}" for number in range(1, len(moved) + 1))
            await folding.execute(f"INSERT INTO ledger.quarantine VALUES ({columns})", *moved.values())
            await transaction.commit()
        assert await retrying == len(places)
    finally:
        await connection.close()
    assert await env.parked() == []


class LosingThreads(ThreadsModel):
    """Read model of threads that fails once, at the moment in which another projector takes its partitions."""

    lost = False

    def __init__(self, env: ProjectorEnv) -> None:
        super().__init__()
        self._env = env

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        if batch and not LosingThreads.lost:
            LosingThreads.lost = True
            await self._env.pool.execute("UPDATE ledger.positions SET owner = 'other'")
            raise ValueError("this model cannot hold that")
        await super().apply(tx, batch)


async def test_a_projector_that_loses_its_partitions_in_an_isolated_fold_begins_again(env: ProjectorEnv) -> None:
    models, runs = read_models()
    losing = [LosingThreads(env) if isinstance(model, ThreadsModel) else model for model in models]
    async with env.projector((losing, runs)):
        env.append(draft("t1", thread_created("t1")))
        await env.folded()
    assert LosingThreads.lost
    assert await env.parked() == []
    assert len(await found_threads(Threads(env.pool))) == 1


@dataclass(repr=False)
class CountingTail(MemoryTail):
    """Tail that counts the bytes of records that are decoded and not folded yet."""

    waiting_bytes: int = 0
    most_bytes: int = 0

    async def resolve(self, raw: RawRecord) -> Draft:
        self.waiting_bytes += size_bytes(raw)
        self.most_bytes = max(self.most_bytes, self.waiting_bytes)
        return await super().resolve(raw)


class FoldingThreads(ThreadsModel):
    """Read model of threads that tells a tail what it has folded."""

    def __init__(self, tail: CountingTail) -> None:
        super().__init__()
        self._tail = tail

    async def apply(self, tx: Transaction, batch: Sequence[Commit]) -> None:
        await super().apply(tx, batch)
        for commit in batch:
            key, value = self._tail.records[commit.place.partition][commit.place.offset]
            self._tail.waiting_bytes -= size_bytes(RawRecord(commit.place, key, value, START))


async def test_a_projector_that_is_behind_holds_two_decoded_batches_however_many_records_one_poll_returns(
    env: ProjectorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MOST_BYTES", 20_000)
    env.append(*(draft(f"t{number}", thread_created(f"t{number}", {"a": "x" * 2_000})) for number in range(300)))
    tail = CountingTail(env.log.partitions, env.log.records)
    models, runs = read_models()
    counting = [FoldingThreads(tail) if isinstance(model, ThreadsModel) else model for model in models]
    async with env.projector((counting, runs), tail=tail):
        await env.folded()
    assert 20_000 <= tail.most_bytes <= 2 * (20_000 + 3_000)
