"""Tests of the cached end offsets: given a known end, when `outputs` is away, then that end."""

import pytest
from tests.contracts.memory_frames import MemoryFrames
from tests.fakes.ports import TestClock

from agentlog_facts.errors import Unavailable
from agentlog_facts.frame import Frame, FrameRecord
from agentlog_facts.ids import RunId, ThreadId
from agentlog_processors import timeouts
from agentlog_processors.runs.output_offsets import CachedEndOffsets

THREAD = ThreadId("t1")


class AwayFrames(MemoryFrames):
    """Frames whose end cannot be read while `away`; counts the queries."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.calls = 0

    async def end(self, thread_id: ThreadId) -> int:
        self.calls += 1
        if self.away:
            raise Unavailable("no leader")
        return await super().end(thread_id)


async def test_outputs_that_are_away_hold_up_no_claim_once_their_end_was_seen() -> None:
    frames, clock = AwayFrames(), TestClock()
    ends = CachedEndOffsets(frames, lambda _: 0, clock)
    seen = await ends.at_most(THREAD)
    await frames.append(THREAD, FrameRecord(RunId("r1"), 1, 0, (Frame("values", 1),)))
    frames.away, clock.seconds = True, 2 * timeouts.END_OFFSET_FRESH_S
    assert [await ends.at_most(THREAD) for _ in range(5)] == [seen] * 5
    assert frames.calls == 2, "not every claim queries an end that is away"
    frames.away, clock.seconds = False, 4 * timeouts.END_OFFSET_FRESH_S
    assert await ends.at_most(THREAD) > seen


async def test_outputs_that_were_never_seen_are_waited_for() -> None:
    frames = AwayFrames()
    frames.away = True
    with pytest.raises(Unavailable):
        await CachedEndOffsets(frames, lambda _: 0, TestClock()).at_most(THREAD)
