"""Contract of `EventLog` and `EventTail`, for every adapter."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.contracts import event_envs
from tests.contracts.conftest import KINDS, bootstrap_of, connection_to
from tests.contracts.event_envs import EventsEnv
from tests.facts import commits as c
from tests.facts.commits import THREAD, commit
from tests.stack_fixtures import RunningStack

from agentlog_facts.envelope import Draft, LogPosition
from agentlog_facts.errors import Corrupt, Diverged
from agentlog_facts.ids import Key
from agentlog_facts.ports import RawRecord
from agentlog_facts.thread import ThreadMetadataPatched

DEADLINE_S = 20.0
LARGE = 5_000_000


@pytest.fixture(params=KINDS)
async def env(request: pytest.FixtureRequest) -> AsyncGenerator[EventsEnv]:
    """Yield the event log of one kind."""
    if request.param == "memory":
        async with event_envs.memory() as made:
            yield made
        return
    bootstrap, stack = bootstrap_of(str(request.param), request), request.getfixturevalue("stack")
    assert isinstance(stack, RunningStack)
    async with event_envs.kafka(bootstrap, connection_to(bootstrap), stack.postgres) as made:
        yield made


def draft(number: int, key: str = "t1") -> Draft:
    """Return a commit that differs from all others."""
    return replace(commit(ThreadMetadataPatched(THREAD, {"number": number})), key=Key(key))


async def taken(env: EventsEnv, count: int) -> list[RawRecord]:
    """Return the next records of the tail."""
    found: list[RawRecord] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            found += await env.tail.poll(100, timedelta(seconds=1))
    return found


async def numbers(env: EventsEnv, records: list[RawRecord]) -> list[object]:
    """Return the numbers in the commits of the records."""
    drafts = [await env.tail.resolve(record) for record in records]
    return [fact.metadata["number"] for d in drafts for fact in d.facts if isinstance(fact, ThreadMetadataPatched)]


async def test_a_commit_is_read_back_as_it_was_appended(env: EventsEnv) -> None:
    written = commit(c.thread_created(), c.run_created(due_at=c.NOW))
    place = await env.log.append(written)
    assert place.partition == env.log.partition_of(written.key)
    assert (await env.log.read(place)).draft == written


async def test_a_large_value_is_read_back_as_it_was_appended(env: EventsEnv) -> None:
    text = "x" * LARGE
    written = commit(ThreadMetadataPatched(THREAD, {"text": text, "other": 1}), c.thread_created())
    place = await env.log.append(written)
    assert (await env.log.read(place)).draft == written
    env.tail.seek(place.partition, place.offset)
    assert await env.tail.resolve((await taken(env, 1))[0]) == written


async def test_many_large_values_fit_into_one_commit(env: EventsEnv) -> None:
    facts = [ThreadMetadataPatched(THREAD, {"text": str(n) * 400_000}) for n in range(6)]
    written = commit(*facts)
    assert (await env.log.read(await env.log.append(written))).draft == written


async def test_commits_of_one_key_keep_their_order(env: EventsEnv) -> None:
    places = [await env.log.append(draft(number)) for number in range(30)]
    assert places == sorted(places)
    assert [place.offset - places[0].offset for place in places] == list(range(30))


async def test_the_tail_gives_everything_from_where_it_was_told(env: EventsEnv) -> None:
    places = [await env.log.append(draft(number)) for number in range(10)]
    env.tail.seek(places[0].partition, places[4].offset)
    assert await numbers(env, await taken(env, 6)) == [4, 5, 6, 7, 8, 9]
    env.tail.seek(places[0].partition, places[8].offset)
    assert await numbers(env, await taken(env, 2)) == [8, 9]


async def test_the_tail_waits_for_what_is_not_there_yet(env: EventsEnv) -> None:
    partition = env.log.partition_of(Key("t1"))
    env.tail.seek(partition, (await env.tail.ends())[partition])
    waiting = asyncio.ensure_future(taken(env, 1))
    await env.log.append(draft(1))
    assert await numbers(env, await waiting) == [1]


async def test_a_poll_ends_when_nothing_comes(env: EventsEnv) -> None:
    partition = env.log.partition_of(Key("t1"))
    env.tail.seek(partition, (await env.tail.ends())[partition])
    assert list(await env.tail.poll(10, timedelta(milliseconds=50))) == []


async def test_a_dropped_partition_is_not_read_on(env: EventsEnv) -> None:
    place = await env.log.append(draft(1))
    env.tail.seek(place.partition, place.offset)
    env.tail.drop(place.partition)
    assert list(await env.tail.poll(10, timedelta(milliseconds=50))) == []
    env.tail.seek(place.partition, place.offset)
    assert await numbers(env, await taken(env, 1)) == [1]


async def test_the_end_is_behind_the_last_record(env: EventsEnv) -> None:
    place = await env.log.append(draft(1))
    assert (await env.tail.ends())[place.partition] == place.offset + 1


async def test_a_place_without_a_record_is_corrupt(env: EventsEnv) -> None:
    place = await env.log.append(draft(1))
    for behind in (1, 2, 1000):
        with pytest.raises(Corrupt):
            await env.log.read(LogPosition(place.partition, place.offset + behind))


async def test_a_tail_that_stands_behind_the_end_says_that_the_log_is_another_one(env: EventsEnv) -> None:
    place = await env.log.append(draft(1))
    env.tail.seek(place.partition, place.offset + 1000)
    with pytest.raises(Diverged):
        await taken(env, 1)
