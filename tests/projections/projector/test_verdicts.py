"""Verdicts on records, in the rows of the ledger, in its answers and in hints."""

import re
from datetime import timedelta
from hashlib import sha256

import pytest
from tests.projections.facts import patched, run_created, thread_created, thread_deleted
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.assistant import AssistantCreated
from agentlog_facts.envelope import Draft, LogPosition
from agentlog_facts.errors import Unavailable
from agentlog_facts.guard import Accepted, Duplicate, Void
from agentlog_facts.ids import AssistantId, Key, Stream
from agentlog_facts.store import StoreItemPut
from agentlog_facts.system import PartitionOpened
from agentlog_facts.vocabulary import encode_commit, encode_facts
from agentlog_projections.queries.purge import purge_deleted

ON_T1 = Stream("thread-t1")


def encoded(commit: Draft) -> bytes:
    """Return a commit in the encoding of its record."""
    return encode_commit(commit, encode_facts(commit))


async def test_accepted_commits_count_up_on_their_stream(env: ProjectorEnv) -> None:
    verdicts = await env.given(
        draft("t1", thread_created()),
        draft("t1", patched({}), stream="meta-t1"),
        draft("t1", run_created()),
    )
    assert verdicts == [Accepted(0), Accepted(0), Accepted(1)]


async def test_an_intent_counts_once_within_a_batch_and_over_restarts(env: ProjectorEnv) -> None:
    first = draft("t1", thread_created(), event_id="e1")
    again = draft("t1", thread_created(), event_id="e1")
    other = draft("t1", thread_created(), event_id="e1", body="other")
    reused = Void("idempotency_key_reused")
    assert await env.given(first, again, other) == [Accepted(0), Duplicate(0), reused]
    assert await env.given(again, other) == [Duplicate(0), reused]


async def test_a_void_does_not_consume_its_event_id(env: ProjectorEnv) -> None:
    too_early = draft("t1", run_created(), event_id="e1", demands={ON_T1: "exists"})
    in_time = draft("t1", run_created(), event_id="e1", demands={ON_T1: "exists"})
    verdicts = await env.given(too_early, draft("t1", thread_created()), in_time)
    assert verdicts == [Void("gone", ON_T1, "exists", "nothing"), Accepted(0), Accepted(1)]


async def test_demands_are_judged_against_what_was_stored_before_a_restart(env: ProjectorEnv) -> None:
    await env.given(draft("t1", thread_created()))
    verdicts = await env.given(
        draft("t1", thread_created(), demands={ON_T1: "absent"}),
        draft("t1", run_created(), demands={ON_T1: 0}),
        draft("t1", run_created("r2"), demands={ON_T1: 0}),
        draft("t1", thread_deleted(), demands={ON_T1: 1}),
        draft("t1", run_created("r3")),
    )
    assert verdicts == [
        Void("exists", ON_T1, "absent", "0"),
        Accepted(1),
        Void("version_conflict", ON_T1, "0", "1"),
        Accepted(2),
        Void("gone", ON_T1, "exists", "deleted"),
    ]


async def test_what_cannot_be_read_or_lies_elsewhere_is_void_and_the_fold_goes_on(env: ProjectorEnv) -> None:
    alien = draft("alien", thread_created("alien"))
    wrong = (env.log.partition_of(Key("t1")) + 1) % 2
    timeless = draft("t1", thread_created())
    long = "".join(sha256(bytes([number])).hexdigest() for number in range(60))  # an index would compress repetitions
    before_all_years = re.sub(rb'("occurred_at":")[^"]+', rb"\g<1>0001-01-01T00:00:00+14:00", encoded(timeless))
    places = [
        env.log.put(b"t1", before_all_years, 0),
        env.log.append(draft("t1", thread_created(), event_id=long), 0),
        env.log.append(draft(long, thread_created(long)), 0),
        env.log.put(long.encode(), b"{not json", 0),
        env.log.put(b"t1", b"{not json", 0),
        env.log.put(b"\xff\x00", encoded(alien), 0),
        env.log.put(b"t1", None, 0),
        env.log.append(draft("t1", thread_created(), event_id="nul\x00"), 0),
        env.log.append(draft("t1", thread_created()), wrong),
        env.log.append(draft("t1", thread_created())),
    ]
    async with env.projector():
        await env.folded()
    verdicts = [await env.verdict(place) for place in places]
    assert [getattr(verdict, "reason", verdict) for verdict in verdicts] == [
        *("unreadable",) * 8,
        "wrong_partition",
        Accepted(0),
    ]


async def test_a_partition_knows_its_log_from_its_first_record(env: ProjectorEnv) -> None:
    opened = PartitionOpened("log-1", 3, 1, 2, 500)
    place = env.log.append(draft("partition-1", opened, stream="partition-1"), 1)
    async with env.projector():
        await env.folded()
    assert await env.verdict(place) == Accepted(0)
    row = await env.pool.fetchrow(
        "SELECT log_id, generation, base, partitions FROM ledger.positions WHERE partition = 1"
    )
    assert row is not None
    assert tuple(row) == ("log-1", 3, 500, 2)


async def test_the_ledger_answers_by_place_by_intent_and_by_try(env: ProjectorEnv) -> None:
    first, again = draft("t1", thread_created(), event_id="e1"), draft("t1", thread_created(), event_id="e1")
    places = env.append(first, again)
    async with env.projector():
        await env.folded()
        partition = places[0].partition
        assert await env.caught_up(partition)
        assert await env.ledger.position(partition) == 2
    at, _ = sorted(await env.ledger.at([*places, LogPosition(partition, 2)]), key=lambda row: row.place.offset)
    assert (at.event_id, at.append_id, at.body_sha256, at.verdict) == ("e1", first.append_id, "body", Accepted(0))
    assert await env.ledger.accepted(Key("t1"), "e1") == at
    tried = await env.ledger.by_append(Key("t1"), again.append_id)
    assert tried is not None
    assert (tried.place, tried.verdict) == (places[1], Duplicate(0))
    assert await env.ledger.at([LogPosition(partition, 2)]) == []
    assert await env.ledger.accepted(Key("t1"), "e2") is None
    rows = await env.pool.fetch("SELECT types FROM ledger.log_index WHERE key = 't1'")
    assert [row["types"] for row in rows] == [["ThreadCreated"], ["ThreadCreated"]]


async def test_the_ledger_knows_an_aggregate_of_any_kind_from_its_first_accepted_commit_on(env: ProjectorEnv) -> None:
    assistant = AssistantCreated(AssistantId("a1"), "agent", {}, {}, {}, "agent", None)
    await env.given(
        draft("a1", assistant, stream="assistant-a1"),
        draft("s1", StoreItemPut(("users",), "name", {}), stream="store-s1"),
        draft("t1", thread_created()),
        draft("t1", thread_deleted()),
        draft("t2", run_created(thread="t2"), demands={Stream("thread-t2"): "exists"}),
    )
    await purge_deleted(env.pool, timedelta())
    assert [await env.ledger.knows(Key(name)) for name in ("a1", "s1", "t1", "t2", "t3")] == [True] * 3 + [False] * 2


async def test_the_ledger_says_of_no_aggregate_that_it_never_was_while_rows_are_being_built(env: ProjectorEnv) -> None:
    await env.given(draft("t1", thread_created()))
    await env.pool.execute("UPDATE ledger.positions SET present = false")
    assert await env.ledger.knows(Key("t1"))
    with pytest.raises(Unavailable):
        await env.ledger.knows(Key("t2"))


async def test_a_partition_that_nobody_folded_is_not_present(env: ProjectorEnv) -> None:
    assert not await env.caught_up(0)
    assert await env.ledger.position(0) == 0


async def test_a_try_that_lies_on_the_log_twice_is_known_by_its_acceptance(env: ProjectorEnv) -> None:
    thread = Stream("thread-t1")
    twice = draft("t1", patched({"a": 1}), stream="meta-t1", demands={thread: "exists"})
    places = env.append(twice, draft("t1", thread_created()), twice, twice)
    async with env.projector():
        await env.folded()
    assert isinstance(await env.verdict(places[0]), Void)
    found = await env.ledger.by_append(Key("t1"), twice.append_id)
    assert found is not None
    assert (found.place, found.verdict) == (places[2], Accepted(0))


async def test_the_writer_of_an_unreadable_record_gets_its_verdict(env: ProjectorEnv) -> None:
    """Neither hint nor row told whose record it was, so its writer waited, and appended it again, for ever."""
    async with env.projector():
        await env.until(lambda: env.caught_up(env.log.partition_of(Key("t1"))))
        deep = draft("t1", thread_created("t1", {"deep": 1}))
        value = encoded(deep).replace(b'{"deep":1}', b"[" * 300 + b"]" * 300)
        place = env.log.put(b"t1", value)
        await env.folded()
        await env.until(lambda: env.feed.hints)
    verdict = env.feed.hints[-1].verdict(place.offset, deep.append_id)
    assert isinstance(verdict, Void)
    assert verdict.reason == "unreadable"
    found = await env.ledger.by_append(Key("t1"), deep.append_id)
    assert found is not None
    assert (found.place, found.verdict) == (place, verdict)
