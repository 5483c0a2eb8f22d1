"""Faults that repeat: a record never stops the writes of others, and an outage of PostgreSQL parks no aggregate.

One POST once stopped all writes for ever: PostgreSQL refused its metadata with an internal error, which counted as an
outage, so its batch was folded again and again, also after a restart.
"""

import asyncpg
import pytest
from tests.projections.facts import patched, run_created, thread_created
from tests.projections.found_threads import found_ids, found_threads
from tests.projections.projector.test_projector import keys_of, stopped
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import BlobMissing, Conflict, Unavailable, UnknownSchema
from agentlog_facts.guard import Accepted
from agentlog_facts.ids import Key
from agentlog_postgres.connection import connect_projector
from agentlog_projections.models.registry import read_models
from agentlog_projections.models.threads import Threads
from agentlog_projections.projector.isolated_fold import park, retry
from agentlog_projections.projector.quarantine import LEDGER, is_deterministic
from agentlog_projections.projector.repeated_faults import RECORD_TRIES, takes_writes
from agentlog_projections.queries.health import stuck

TRIGGER = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$;
"""
ON_TABLE = "CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION fail()"
FOR_BAD = "IF NEW.thread_id = 'bad' THEN {body} END IF;"
RAISE = "RAISE EXCEPTION 'refused' USING ERRCODE = '{code}';"
END = "PERFORM pg_terminate_backend(pg_backend_pid());"


async def failing(env: ProjectorEnv, body: str, *tables: str) -> None:
    await env.pool.execute(TRIGGER.format(body=body))
    for table in tables:
        await env.pool.execute(ON_TABLE.format(table=table))


def poisoned(env: ProjectorEnv) -> None:
    """Append a bad thread among good ones, all in one batch."""
    good = [draft(f"good-{number}", thread_created(f"good-{number}")) for number in range(6)]
    bad = [draft("bad", thread_created("bad")), draft("bad", patched({"later": 1}, "bad"), stream="meta-bad")]
    env.append(*good[:3], *bad, *good[3:])


async def good_threads(env: ProjectorEnv) -> int:
    return sum(name.startswith("good") for name in await found_ids(Threads(env.pool)))


async def test_an_internal_error_of_postgresql_parks_its_aggregate_and_no_other(own_env: ProjectorEnv) -> None:
    env = own_env
    await failing(env, FOR_BAD.format(body=RAISE.format(code="XX000")), "read_v1.threads")
    poisoned(env)
    async with env.projector():
        await env.folded()
    assert await env.parked() == [("threads", "bad")]
    assert await good_threads(env) == 6


@pytest.mark.parametrize("body", [RAISE.format(code=code) for code in ("53200", "57014", "58030", "40001")] + [END])
async def test_a_record_that_looks_like_an_outage_again_and_again_parks_its_aggregate_only(
    own_env: ProjectorEnv, body: str
) -> None:
    env = own_env
    await failing(env, FOR_BAD.format(body=body), "read_v1.threads")
    poisoned(env)
    async with env.projector():
        await env.folded()
        env.append(draft("bad", run_created("r1", "bad")), draft("good-1", run_created("r2", "good-1")))
        await env.folded()
    assert await env.parked() == [(LEDGER, "bad")]
    assert await good_threads(env) == 6
    rows = await env.pool.fetch('SELECT error FROM ledger.quarantine ORDER BY partition, "offset"')
    assert [str(row["error"])[:14] for row in rows] == ["its fold fails", "waits behind a", "waits behind a"]


async def test_parked_records_get_their_verdicts_in_order_once_they_can_be_folded(own_env: ProjectorEnv) -> None:
    env = own_env
    await failing(env, FOR_BAD.format(body=RAISE.format(code="53200")), "read_v1.threads")
    places = env.append(
        draft("bad", thread_created("bad")),
        draft("bad", patched({"a": 1}, "bad"), stream="meta-bad"),
        draft("bad", run_created("r1", "bad")),
    )
    connection = await connect_projector(env.uri)
    try:
        async with env.projector():
            await env.folded()
            assert await env.ledger.at(places) == []
            with pytest.raises(Unavailable):
                await retry(connection, env.log, read_models()[0], LEDGER, Key("bad"))
            assert await env.parked() == [(LEDGER, "bad")]
            await env.pool.execute("DROP FUNCTION fail() CASCADE")
            assert await retry(connection, env.log, read_models()[0], LEDGER, Key("bad")) == 3
            places += env.append(draft("bad", patched({"b": 2}, "bad"), stream="meta-bad"))
            await env.folded()
    finally:
        await connection.close()
    assert await env.parked() == []
    assert [await env.verdict(place) for place in places] == [Accepted(0), Accepted(0), Accepted(1), Accepted(1)]
    (found,) = await found_threads(Threads(env.pool))
    assert (found.thread.metadata["a"], found.thread.metadata["b"]) == (1, 2)


async def test_an_outage_parks_nothing_however_often_it_fails_a_batch(
    own_env: ProjectorEnv, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk refuses every write, also that of another connection."""
    env = own_env
    await failing(env, RAISE.format(code="53100"), "read_v1.threads", "ledger.quarantine")
    poisoned(env)

    def interrupted() -> int:
        return sum(record.getMessage() == "projector.interrupted" for record in caplog.records)

    async with env.projector():
        await env.until(lambda: interrupted() > 2 * RECORD_TRIES)
        assert await env.parked() == []
        await env.pool.execute("DROP FUNCTION fail() CASCADE")
        await env.folded()
    assert await env.parked() == []
    assert await good_threads(env) == 6


async def test_a_probe_tells_a_server_that_takes_writes_from_one_that_does_not(own_env: ProjectorEnv) -> None:
    assert await takes_writes(own_env.uri, 1)
    await failing(own_env, RAISE.format(code="53100"), "ledger.quarantine")
    assert not await takes_writes(own_env.uri, 1)
    assert not await takes_writes(own_env.uri.replace("projections", "none").replace("env_", "none_"), 1)
    assert await own_env.parked() == []


@pytest.mark.parametrize("fault", ["unknown schema", "missing blob"])
async def test_an_operator_parks_the_record_at_which_a_partition_stands(env: ProjectorEnv, fault: str) -> None:
    (here, more), _ = keys_of(env, 0, 2), None
    error = UnknownSchema("of 2031") if fault == "unknown schema" else BlobMissing("blob 4711 is missing")
    env.log.faults["odd"] = error
    places = env.append(
        draft(here, thread_created(here)),
        draft(here, run_created("r1", here), event_id="odd"),
        draft(more, thread_created(more)),
        draft(here, patched({"later": 1}, here), stream=f"meta-{here}"),
    )
    connection = await connect_projector(env.uri)
    try:
        async with env.projector():
            await env.until(lambda: stopped(env, 0, str(error)))
            (one,) = await stuck(env.pool, env.log)
            assert (one.topic, one.partition, one.offset, one.key) == ("agentlog.events", 0, 1, here)
            assert str(error) in one.error
            await park(connection, LogPosition(0, 1), one.key, one.error)
            await env.folded()
            assert await env.parked() == [(LEDGER, here)]
            assert [await env.verdict(place) for place in (places[0], places[2])] == [Accepted(0), Accepted(0)]
            assert await env.ledger.at([places[1], places[3]]) == []
            with pytest.raises(type(error)):
                await retry(connection, env.log, read_models()[0], LEDGER, Key(here))
            env.log.faults.clear()
            assert await retry(connection, env.log, read_models()[0], LEDGER, Key(here)) == 2
            await env.folded()
    finally:
        await connection.close()
    assert [await env.verdict(place) for place in (places[1], places[3])] == [Accepted(1), Accepted(0)]
    assert await env.parked() == []


async def test_a_partition_that_has_moved_on_is_not_parked(env: ProjectorEnv) -> None:
    await env.given(draft("t1", thread_created("t1")))
    connection = await connect_projector(env.uri)
    try:
        with pytest.raises(Conflict, match="has moved on"):
            await park(connection, LogPosition(env.log.partition_of(Key("t1")), 0), "t1", "too late")
    finally:
        await connection.close()
    assert await env.parked() == []


async def test_a_missing_blob_stops_its_partition_until_it_is_there(env: ProjectorEnv) -> None:
    """It was void for ever where the blob came a moment later; a rebuild accepted the same record."""
    (here, more), (other,) = keys_of(env, 0, 2), keys_of(env, 1, 1)
    env.log.faults["late"] = BlobMissing("blob 4711: an event names it, but it is not on agentlog.blobs-3")
    places = env.append(
        draft(here, thread_created(here)),
        draft(here, run_created("r1", here), event_id="late"),
        draft(more, thread_created(more)),
        draft(other, thread_created(other)),
    )
    async with env.projector():
        await env.until(lambda: stopped(env, 0, "cannot be read at 1: blob 4711"))
        places += env.append(draft(other, run_created("r2", other)))
        await env.until(lambda: env.ledger.at([places[4]]))
        assert await env.ledger.at([places[1], places[2]]) == []
        assert not await env.caught_up(0)
        del env.log.faults["late"]
        await env.folded()
        assert await env.caught_up(0)
    assert [await env.verdict(place) for place in places[:3]] == [Accepted(0), Accepted(1), Accepted(0)]


async def test_a_record_whose_blobs_cannot_be_read_stops_its_partition_and_no_other(env: ProjectorEnv) -> None:
    (here,), (other,) = keys_of(env, 0, 1), keys_of(env, 1, 1)
    env.log.faults["away"] = Unavailable("no records within 10000 ms")
    places = env.append(draft(here, thread_created(here), event_id="away"), draft(other, thread_created(other)))
    async with env.projector():
        await env.until(lambda: stopped(env, 0, "cannot be read at 0: no records"))
        await env.until(lambda: env.ledger.at([places[1]]))
        env.log.faults.clear()
        await env.folded()
    assert [await env.verdict(place) for place in places] == [Accepted(0), Accepted(0)]


async def test_a_value_that_the_driver_cannot_encode_is_no_outage(env: ProjectorEnv) -> None:
    for sql, value in (("SELECT $1::int8", 2**70), ("SELECT $1::text", "\ud800"), ("SELECT $1::int4[]", ["x"])):
        with pytest.raises(Exception) as caught:  # noqa: PT011  any class of the driver
            await env.pool.fetchval(sql, value)
        assert is_deterministic(caught.value), caught.value


def test_classes_of_sqlstate_tell_an_outage_from_a_record() -> None:
    outages = ("08006", "25006", "40P01", "53100", "53200", "55P03", "57P01", "57P03", "58030")
    records = ("XX000", "22P05", "23502", "54000", "22003")
    classes = {getattr(one, "sqlstate", None): one for one in vars(asyncpg.exceptions).values()}
    assert [is_deterministic(classes[code]("x")) for code in (*outages, *records)] == [False] * 9 + [True] * 5
