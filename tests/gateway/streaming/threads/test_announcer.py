"""Tests of the announcer: what this gateway decides reaches the streams of a thread, and a fault stops nothing."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest
from tests.contracts.memory_frames import MemoryFrames
from tests.gateway.stream_env import DEADLINE_S, THREAD

from agentlog_commands.submit import Submitted
from agentlog_facts.envelope import Fact, LogPosition
from agentlog_facts.errors import Unavailable
from agentlog_facts.frame import STATE_UPDATE, Frame, FrameRecord
from agentlog_facts.ids import RunId
from agentlog_facts.thread import RunFinished, ThreadDeleted
from agentlog_gateway import timeouts
from agentlog_gateway.streaming.threads.announcer import NO_RUN, OutputsAnnouncer

ENDED = RunFinished(RunId("run-1"), "interrupted", None, {}, (), {})


def done(*facts: Fact, duplicate: bool = False) -> Submitted:
    return Submitted(LogPosition(0, 0), 0, facts, datetime.now(UTC), duplicate)


@pytest.fixture
def frames() -> MemoryFrames:
    return MemoryFrames()


@pytest.fixture
async def announcer(frames: MemoryFrames) -> AsyncGenerator[OutputsAnnouncer]:
    made = OutputsAnnouncer(frames)
    serving = asyncio.ensure_future(made.run())
    yield made
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def told(frames: MemoryFrames, count: int) -> list[FrameRecord]:
    """Wait for a number of announcements, and return them."""
    tail = await frames.tail(THREAD)
    async with asyncio.timeout(DEADLINE_S):
        while len(frames.of(THREAD)) < count:
            await tail.next()
    tail.close()
    return frames.of(THREAD)


async def test_the_ends_in_a_commit_are_announced_once(frames: MemoryFrames, announcer: OutputsAnnouncer) -> None:
    announcer.ends(THREAD, done(ENDED, ThreadDeleted(THREAD), duplicate=True), "again")
    announcer.ends(THREAD, done(ENDED, ThreadDeleted(THREAD)), "cancelled")
    assert await told(frames, 1) == [FrameRecord(ENDED.run_id, 0, 0, (), end="cancelled", of="cancelled")]


async def test_an_update_of_the_state_is_announced_with_its_snapshot(
    frames: MemoryFrames, announcer: OutputsAnnouncer
) -> None:
    async def read() -> bytes:
        return b'{"values":{"a":1}}'

    announcer.state(THREAD, "updated", read)
    [record] = await told(frames, 1)
    assert (record.run_id, record.of) == (NO_RUN, "updated")
    assert record.frames == (Frame(STATE_UPDATE, {"state": {"values": {"a": 1}}}),)


@pytest.mark.parametrize("fault", [Unavailable("rows: away"), ZeroDivisionError("user code")])
async def test_a_state_that_cannot_be_read_stops_no_later_announcement(
    frames: MemoryFrames, announcer: OutputsAnnouncer, fault: Exception
) -> None:
    async def read() -> bytes:
        raise fault

    announcer.state(THREAD, "updated", read)
    announcer.ends(THREAD, done(ENDED), "cancelled")
    assert [record.of for record in await told(frames, 1)] == ["cancelled"]


async def test_a_state_that_users_code_never_gives_holds_up_no_other_announcement(
    frames: MemoryFrames, announcer: OutputsAnnouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "ANNOUNCED_STATE_S", 0.05)

    async def hang() -> bytes:
        await asyncio.Event().wait()
        raise AssertionError("it never ends")

    announcer.state(THREAD, "hangs", hang)
    announcer.ends(THREAD, done(ENDED), "cancelled")
    assert [record.of for record in await told(frames, 1)] == ["cancelled"]
