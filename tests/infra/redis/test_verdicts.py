"""Tests of waiting for verdicts: by an early or late hint, by a query, and the unknown outcome at the deadline."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from tests.facts import commits as c
from tests.facts.commits import commit
from tests.fakes.memory_log import MemoryLog

from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import OutcomeUnknown, Unavailable
from agentlog_facts.guard import Accepted, Void
from agentlog_facts.notification import Hint, tries_of
from agentlog_facts.ports import Indexed, LedgerReads
from agentlog_infra.redis.verdicts import HintVerdicts
from agentlog_infra.system_ports import SystemClock

CLOCK = SystemClock()
MINE, OTHER = "0198-0000-7000-8000-00000000mine", "0198-0000-7000-8000-0000000other"


class Feed:
    """A feed of hints that the test sends."""

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


@dataclass
class Rows(MemoryLog):
    """A `log_index` with rows of the test; `hangs`: queries do not end; `fails`: errors of the next queries."""

    there: list[Indexed] = field(default_factory=list[Indexed])
    hangs: bool = False
    fails: list[Exception] = field(default_factory=list[Exception])
    queries: list[Sequence[LogPosition]] = field(default_factory=list[Sequence[LogPosition]])
    looked: asyncio.Event = field(default_factory=asyncio.Event)

    async def at(self, places: Sequence[LogPosition]) -> Sequence[Indexed]:
        self.queries.append(places)
        self.looked.set()
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            raise self.fails.pop(0)
        return [row for row in self.there if row.place in places]


def row(place: LogPosition, append_id: str, version: int) -> Indexed:
    return Indexed(place, "e1", append_id, "body", Accepted(version))


@asynccontextmanager
async def verdicts(ledger: LedgerReads) -> AsyncGenerator[tuple[HintVerdicts, Feed]]:
    feed = Feed()
    made = HintVerdicts(feed, ledger, CLOCK)
    await made.start()
    try:
        yield made, feed
    finally:
        await made.stop()


def soon(seconds: float = 10.0) -> float:
    return CLOCK.monotonic() + seconds


def hint_about(offset: int, version: int, append_id: str = MINE) -> Hint:
    """Return a hint about one accepted record."""
    return Hint(0, offset - 1, offset, {offset: version}, tries=tries_of([append_id]))


async def test_a_hint_that_comes_later_settles_the_record() -> None:
    async with verdicts(MemoryLog()) as (made, feed):
        waiting = asyncio.ensure_future(made.wait(LogPosition(0, 7), MINE, soon()))
        await asyncio.sleep(0)
        await feed.publish([hint_about(7, 3)])
        assert await waiting == Accepted(3)


async def test_a_hint_that_came_before_the_question_settles_it_too() -> None:
    async with verdicts(MemoryLog()) as (made, feed):
        void = {7: Void("gone")}
        await received(made, feed, Hint(0, 6, 7, {}, void, tries=tries_of([MINE])))
        assert await made.wait(LogPosition(0, 7), MINE, soon()) == Void("gone")


async def test_a_hint_about_other_records_settles_nothing() -> None:
    async with verdicts(MemoryLog()) as (made, feed):
        others = Hint(1, 6, 7, {7: 5}, tries=tries_of([MINE]))
        await feed.publish([Hint(0, 7, 9, {8: 0, 9: 1}, tries=tries_of([MINE, MINE])), others])
        with pytest.raises(OutcomeUnknown):
            await made.wait(LogPosition(0, 7), MINE, soon(0.05))


async def test_a_hint_tells_each_of_its_records_from_the_others() -> None:
    hint = Hint(0, 6, 9, {7: 1, 9: 2}, {8: Void("gone")}, tries=tries_of([OTHER, MINE, "short"]))
    tries = ((7, OTHER), (8, MINE), (9, "short"))
    assert [hint.verdict(*asked) for asked in tries] == [Accepted(1), Void("gone"), Accepted(2)]
    others = ((7, MINE), (8, OTHER), (6, OTHER), (9, ""), (10, ""))
    assert [hint.verdict(*asked) for asked in others] == [None] * 5


async def test_a_lost_hint_costs_one_look() -> None:
    log = MemoryLog()
    draft = commit(c.thread_created())
    place = await log.append(draft)
    async with verdicts(log) as (made, _):
        assert await made.wait(place, draft.append_id, soon()) == Accepted(0)


async def test_one_question_looks_for_all_whose_hint_is_lost() -> None:
    places = [LogPosition(0, offset) for offset in range(50)]
    ledger = Rows(there=[row(place, MINE, place.offset) for place in places])
    async with verdicts(ledger) as (made, _):
        found = await asyncio.gather(*(made.wait(place, MINE, soon()) for place in places))
    assert found == [Accepted(place.offset) for place in places]
    assert len(ledger.queries) == 1


async def test_a_look_that_fails_is_done_again() -> None:
    ledger = Rows(
        there=[row(LogPosition(0, 7), MINE, 3)], fails=[Unavailable("away"), ValueError("a row of a shape unknown")]
    )
    async with verdicts(ledger) as (made, _):
        assert await made.wait(LogPosition(0, 7), MINE, soon()) == Accepted(3)


async def test_the_row_of_another_record_that_lay_at_the_place_before_a_restore_is_no_verdict() -> None:
    ledger = Rows(there=[row(LogPosition(0, 7), OTHER, 41)])
    async with verdicts(ledger) as (made, _):
        with pytest.raises(OutcomeUnknown):
            await made.wait(LogPosition(0, 7), MINE, soon(1.0))
    assert ledger.looked.is_set()


async def test_a_hint_about_what_lay_at_the_place_before_a_restore_is_no_verdict_either() -> None:
    async with verdicts(MemoryLog()) as (made, feed):
        await received(made, feed, hint_about(7, 41, OTHER))
        waiting = asyncio.ensure_future(made.wait(LogPosition(0, 7), MINE, soon()))
        await received(made, feed, hint_about(7, 42, OTHER))
        assert not waiting.done()
        await feed.publish([hint_about(7, 3)])
        assert await waiting == Accepted(3)


async def test_what_lies_behind_a_restored_end_is_known_from_the_hints_of_the_restored_log() -> None:
    async with verdicts(MemoryLog()) as (made, feed):
        await received(made, feed, hint_about(7, 41, OTHER), hint_about(5, 1))
        assert await made.wait(LogPosition(0, 5), MINE, soon()) == Accepted(1)
        with pytest.raises(OutcomeUnknown):
            await made.wait(LogPosition(0, 7), MINE, soon(0.05))


async def test_a_database_that_hangs_does_not_hide_a_hint() -> None:
    ledger = Rows(hangs=True)
    async with verdicts(ledger) as (made, feed):
        waiting = asyncio.ensure_future(made.wait(LogPosition(0, 7), MINE, soon()))
        async with asyncio.timeout(5):
            await ledger.looked.wait()
            await feed.publish([hint_about(7, 3)])
            assert await waiting == Accepted(3)


async def test_a_database_that_hangs_does_not_move_the_deadline() -> None:
    ledger = Rows(hangs=True)
    async with verdicts(ledger) as (made, _), asyncio.timeout(3):
        with pytest.raises(OutcomeUnknown):
            await made.wait(LogPosition(0, 7), MINE, soon(1.0))
    assert ledger.looked.is_set()


async def test_a_question_that_hangs_is_given_up_and_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlog_infra.timeouts.VERDICT_QUERY_S", 0.05)
    ledger = Rows(there=[row(LogPosition(0, 7), MINE, 3)], hangs=True)
    async with verdicts(ledger) as (made, _):
        waiting = asyncio.ensure_future(made.wait(LogPosition(0, 7), MINE, soon()))
        await ledger.looked.wait()
        ledger.hangs = False
        assert await waiting == Accepted(3)


async def test_a_listener_gets_every_hint() -> None:
    async with verdicts(MemoryLog()) as (made, feed):
        hints = [Hint(0, 0, 1, {1: 0}, ended=("r1",), cancelled=("r2",)), Hint(0, 1, 2)]
        got: list[Hint] = []
        made.listen(got.append)
        await received(made, feed, *hints)
        assert got == hints


async def received(made: HintVerdicts, feed: Feed, *hints: Hint) -> None:
    """Publish hints and wait until they were received."""
    heard_last = asyncio.Event()
    made.listen(lambda hint: heard_last.set() if hint is hints[-1] else None)
    await feed.publish(hints)
    await asyncio.wait_for(heard_last.wait(), 10)
