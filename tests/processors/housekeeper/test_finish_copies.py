"""Tests of the finish of copies: a log in memory under the real guard, and progress folded from it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from tests.fakes.memory_log import MemoryLog
from tests.fakes.ports import CountedIds, TestClock
from tests.projections.projector_env import draft

from agentlog_commands.submit import Intent, Submitter
from agentlog_commands.thread_copies import CopyPart, CopyProgress, OpenCopy, ask
from agentlog_facts import guard
from agentlog_facts.envelope import ANONYMOUS, Actor, Cause, Draft, Fact
from agentlog_facts.ids import Key, ThreadId
from agentlog_facts.thread import ThreadCopied, ThreadCreated
from agentlog_facts.thread_copy import ThreadCopyAsked, ThreadCopyContinued, ThreadCopyGivenUp
from agentlog_processors.housekeeper.finish_copies import CopyQueries, FinishCopies
from agentlog_processors.runs.dependencies import CommitWriter

TARGET = ThreadId("t1")
AT = datetime(2026, 1, 2, tzinfo=UTC)
ASKED = ThreadCopyAsked(TARGET, ThreadId("t0"), AT, {"thread": 3, "meta": None}, 7, {"a": 1}, None, {}, (), {})
EVENT = "00000000-0000-7000-8000-00000000000e"


@dataclass
class World:
    """A log with one copy that was asked for; each part copies two facts of its source, while that is there."""

    log: MemoryLog = field(default_factory=MemoryLog)
    clock: TestClock = field(default_factory=TestClock)
    ids: CountedIds = field(default_factory=CountedIds)
    gone: bool = False
    stands_still: bool = False
    """Its rows do not follow the log after the first commit."""
    before_the_end: Draft | None = None
    """Written by another command, once all parts are copied."""

    async def begin(self) -> None:
        intent = Intent(Key(TARGET), EVENT, "0" * 64, Cause(ANONYMOUS, "c"))
        await self.log.append(self._submitter().draft(intent, ask(ASKED)))

    def _submitter(self) -> Submitter:
        return Submitter(self.log, self.log, self.log, self.clock, self.ids)

    def housekeeper(self) -> FinishCopies:
        writer = CommitWriter(self._submitter(), self.log, self.clock, self.ids, Actor("system", "housekeeper"))
        return FinishCopies(CopyQueries(self.open_copies, self, self.log), writer)

    async def open_copies(self, asked_before: datetime, limit: int) -> Sequence[OpenCopy]:
        found = await self.progress(TARGET)
        is_open = found is not None and found.state == "open" and asked_before > AT
        return [OpenCopy(TARGET, EVENT, AT)] if is_open else []

    async def progress(self, thread_id: ThreadId) -> CopyProgress | None:
        found: CopyProgress | None = None
        for fact, version in self.accepted()[: 1 if self.stands_still else None]:
            match fact:
                case ThreadCopyAsked():
                    found = CopyProgress("open", version, 0)
                case ThreadCopyContinued():
                    found = CopyProgress("open", version, fact.up_to)
                case ThreadCopyGivenUp() if found is not None:
                    found = CopyProgress("given_up", version, found.copied_to)
                case ThreadCopied() if found is not None:
                    found = CopyProgress("done", found.version, found.copied_to)
                case _:
                    pass
        if self.before_the_end is not None and found is not None and found.copied_to >= ASKED.as_of:
            await self.log.append(self.before_the_end)
            self.before_the_end = None
        return found

    async def part(self, asked: ThreadCopyAsked, start: int) -> CopyPart | None:
        await asyncio.sleep(0)
        return None if self.gone else CopyPart((), min(start + 2, asked.as_of))

    def accepted(self) -> list[tuple[Fact, int]]:
        return [
            (fact, verdict.version)
            for draft, verdict in self.log.rows
            if isinstance(verdict, guard.Accepted)
            for fact in draft.facts
        ]

    def kinds(self) -> list[str]:
        return [type(fact).__name__ for fact, _ in self.accepted()]


async def begun() -> World:
    world = World()
    await world.begin()
    return world


async def test_a_copy_that_its_gateway_left_is_finished() -> None:
    world = await begun()
    world.clock.seconds = 59
    await world.housekeeper().look()
    assert world.kinds() == ["ThreadCopyAsked"]
    world.clock.seconds = 61
    await world.housekeeper().look()
    assert world.kinds() == ["ThreadCopyAsked", *["ThreadCopyContinued"] * 4, "ThreadCreated", "ThreadCopied"]
    await world.housekeeper().look()
    assert len(world.kinds()) == 7


async def test_several_housekeepers_finish_a_copy_once() -> None:
    world = await begun()
    world.clock.seconds = 61
    await asyncio.gather(*(world.housekeeper().look() for _ in range(3)))
    assert world.kinds() == ["ThreadCopyAsked", *["ThreadCopyContinued"] * 4, "ThreadCreated", "ThreadCopied"]


async def test_a_copy_is_given_up_after_an_hour_and_stays_so() -> None:
    world = await begun()
    world.clock.seconds = 3601
    await world.housekeeper().look()
    assert world.kinds() == ["ThreadCopyAsked", "ThreadCopyGivenUp"]
    world.clock.seconds = 3700
    await world.housekeeper().look()
    assert world.kinds() == ["ThreadCopyAsked", "ThreadCopyGivenUp"]


async def test_a_copy_whose_source_is_gone_is_given_up() -> None:
    world = await begun()
    world.clock.seconds, world.gone = 61, True
    await world.housekeeper().look()
    assert world.kinds() == ["ThreadCopyAsked", "ThreadCopyGivenUp"]


async def test_a_copy_whose_new_thread_was_made_by_another_command_is_given_up() -> None:
    world = await begun()
    await world.log.append(draft(TARGET, ThreadCreated(TARGET, {})))
    world.clock.seconds = 61
    await world.housekeeper().look()
    assert world.kinds() == ["ThreadCopyAsked", "ThreadCreated", "ThreadCopyGivenUp"]
    assert world.accepted()[-1][0] == ThreadCopyGivenUp(TARGET, "exists")
    assert len(world.log.rows) == 4  # one void part


async def test_a_thread_made_after_the_last_part_ends_the_copy_too() -> None:
    world = await begun()
    world.clock.seconds = 61
    world.before_the_end = draft(TARGET, ThreadCreated(TARGET, {}))
    await world.housekeeper().look()
    assert world.kinds()[-3:] == ["ThreadCopyContinued", "ThreadCreated", "ThreadCopyGivenUp"]


async def test_a_copy_without_progress_is_left_to_the_next_pass(caplog: pytest.LogCaptureFixture) -> None:
    world = await begun()
    world.clock.seconds, world.stands_still = 61, True
    async with asyncio.timeout(10):
        await world.housekeeper().look()
    assert len(world.log.rows) == 2
    assert "copy.failed" in caplog.messages
