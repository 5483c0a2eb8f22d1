"""A writer learns its verdict by hint, early or late, or by a look into the rows; at the deadline it is told so."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.facts import commits as c
from tests.facts.commits import commit
from tests.fakes.memory_log import MemoryLog

from agentlog_facts.envelope import Place
from agentlog_facts.errors import OutcomeUnknown
from agentlog_facts.guard import Accepted, Void
from agentlog_facts.hint import Hint
from agentlog_infra.system_ports import SystemClock
from agentlog_infra.verdicts import REMEMBERED_S, HintVerdicts

CLOCK = SystemClock()


class Feed:
    """Hints as a test gives them."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Hint] = asyncio.Queue()

    async def publish(self, hints: Sequence[Hint]) -> None:
        for hint in hints:
            self.queue.put_nowait(hint)

    @asynccontextmanager
    async def subscribe(self) -> AsyncGenerator[AsyncIterator[Hint]]:
        yield self._hints()

    async def _hints(self) -> AsyncGenerator[Hint]:
        while True:
            yield await self.queue.get()


@asynccontextmanager
async def verdicts(log: MemoryLog) -> AsyncGenerator[tuple[HintVerdicts, Feed]]:
    feed = Feed()
    made = HintVerdicts(feed, log, CLOCK)
    await made.start()
    try:
        yield made, feed
    finally:
        await made.stop()


def soon(seconds: float = 10.0) -> float:
    return CLOCK.monotonic() + seconds


async def test_a_hint_that_comes_later_settles_the_record() -> None:
    async with verdicts(MemoryLog()) as (made, feed):
        waiting = asyncio.ensure_future(made.wait(Place(0, 7), soon()))
        await asyncio.sleep(0)
        await feed.publish([Hint(0, 6, 7, {7: 3})])
        assert await waiting == Accepted(3)


async def test_a_hint_that_came_before_the_question_settles_it_too() -> None:
    async with verdicts(MemoryLog()) as (made, feed):
        with made.run_ended("r1") as seen:
            await feed.publish([Hint(0, 6, 7, {}, {7: Void("gone")}, ended=("r1",))])
            await asyncio.wait_for(seen.wait(), 10)
        assert await made.wait(Place(0, 7), soon()) == Void("gone")


async def test_a_hint_about_other_records_settles_nothing() -> None:
    async with verdicts(MemoryLog()) as (made, feed):
        await feed.publish([Hint(0, 7, 9, {8: 0, 9: 1}), Hint(1, 6, 7, {7: 5})])
        with pytest.raises(OutcomeUnknown):
            await made.wait(Place(0, 7), soon(0.05))


async def test_a_lost_hint_costs_one_look() -> None:
    log = MemoryLog()
    place = await log.append(commit(c.thread_created()))
    async with verdicts(log) as (made, _):
        assert await made.wait(place, soon()) == Accepted(0)


async def test_who_watches_a_run_is_woken() -> None:
    async with verdicts(MemoryLog()) as (made, feed):
        with made.run_ended("r1") as ended, made.run_cancelled("r2") as cancelled:
            await feed.publish([Hint(0, 0, 1, {1: 0}, ended=("r1",), cancelled=("r2",))])
            await asyncio.wait_for(asyncio.gather(ended.wait(), cancelled.wait()), 10)


class HandClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return self.at


async def heard(made: HintVerdicts, feed: Feed, *hints: Hint) -> None:
    """Publish hints and wait until they were heard."""
    with made.run_ended("marker") as seen:
        await feed.publish([*hints[:-1], replace(hints[-1], ended=("marker",))])
        await asyncio.wait_for(seen.wait(), 10)


async def test_a_log_that_went_back_makes_hints_about_its_former_records_void() -> None:
    async with verdicts(MemoryLog()) as (made, feed):
        await heard(made, feed, Hint(0, 6, 7, {7: 3}), Hint(0, 4, 5, {5: 1}))
        with pytest.raises(OutcomeUnknown):
            await made.wait(Place(0, 7), soon(0.05))
        assert await made.wait(Place(0, 5), soon()) == Accepted(1)


async def test_a_hint_settles_records_for_a_few_seconds_only() -> None:
    feed, clock, log = Feed(), HandClock(), MemoryLog()
    place = await log.append(commit(c.thread_created()))
    made = HintVerdicts(feed, log, clock)
    await made.start()
    try:
        await heard(made, feed, Hint(place.partition, place.offset - 1, place.offset, {place.offset: 9}))
        assert await made.wait(place, clock.at + 10) == Accepted(9)
        clock.at += REMEMBERED_S + 1
        assert await made.wait(place, clock.at + 10) == Accepted(0)
    finally:
        await made.stop()
