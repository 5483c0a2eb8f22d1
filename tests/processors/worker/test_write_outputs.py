"""Tests of the frame writer: batches, order, no duplicates for readers, and no failed run."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from tests.contracts.memory_frames import MemoryFrames
from tests.fakes.ports import TestClock
from tests.processors.examples import a_work

from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_facts.frame import MAX_FRAMES, Frame, FrameRecord
from agentlog_facts.ids import ThreadId
from agentlog_processors import timeouts
from agentlog_processors.runtime.loop_bridge import LoopBridge
from agentlog_processors.worker.write_outputs import FLUSH_BYTES, FrameWriter

WORK = a_work()
EPOCH = 3


@dataclass
class Outputs(MemoryFrames):
    """Outputs in memory; the next `away` appends fail, and always those with an event `bad`."""

    away: int = 0
    appends: int = 0
    bad: str = ""
    refused: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    records: list[FrameRecord] = field(default_factory=list[FrameRecord])

    def __post_init__(self) -> None:
        MemoryFrames.__init__(self)

    async def append(self, thread_id: ThreadId, record: FrameRecord) -> int:
        self.appends += 1
        if any(frame.event == self.bad for frame in record.frames):
            raise AgentlogError("a record that is no good")
        if self.away:
            self.away -= 1
            self.refused.release()
            raise Unavailable("outputs are away")
        self.records.append(record)
        return await MemoryFrames.append(self, thread_id, record)


@dataclass
class Written:
    """A running writer and its output."""

    outputs: Outputs
    writer: FrameWriter
    task: "asyncio.Task[None]"

    def events(self) -> list[str]:
        return [frame.event for record in self.outputs.records for frame in record.frames]


@pytest.fixture
async def written() -> AsyncIterator[Written]:
    outputs = Outputs()
    bridge = LoopBridge(asyncio.get_running_loop())
    writer = FrameWriter(outputs, bridge, TestClock(step_s=3.0), WORK, EPOCH)
    task = asyncio.create_task(writer.run())
    yield Written(outputs, writer, task)
    task.cancel()


async def test_what_comes_together_is_flushed_together(written: Written) -> None:
    for number in range(5):
        await written.writer.emit(Frame(f"e{number}", number))
    behind = await written.writer.finish(written.task, (), "end-id")
    assert written.events() == ["e0", "e1", "e2", "e3", "e4"]
    assert len(written.outputs.records) <= 2
    assert written.outputs.records[-1].end == "end-id"
    assert behind == await written.outputs.end(WORK.thread_id)


async def test_a_record_holds_no_more_frames_than_it_has_slots(written: Written) -> None:
    for number in range(MAX_FRAMES + 1):
        await written.writer.emit(Frame("e", number))
    await written.writer.finish(written.task, (), "end-id")
    assert [record.n for record in written.outputs.records] == list(range(len(written.outputs.records)))
    assert all(len(record.frames) <= MAX_FRAMES for record in written.outputs.records)
    assert len(written.events()) == MAX_FRAMES + 1


async def test_a_batch_ends_before_it_grows_too_large(written: Written) -> None:
    for _ in range(4):
        await written.writer.emit(Frame("e", "x" * (FLUSH_BYTES // 2)))
    await written.writer.finish(written.task, (), None)
    assert max(len(record.frames) for record in written.outputs.records) == 1


async def test_the_error_comes_last(written: Written) -> None:
    await written.writer.emit(Frame("values", {}))
    await written.writer.finish(written.task, (Frame("error", {"error": "ValueError"}),), "end-id")
    assert written.events() == ["values", "error"]


async def test_a_short_outage_repeats_the_record_under_its_number(written: Written) -> None:
    written.outputs.away = 2
    await written.writer.emit(Frame("values", {}))
    await written.writer.finish(written.task, (), "end-id")
    assert [record.n for record in written.outputs.records if record.frames] == [0]
    assert written.events() == ["values"]


async def test_a_long_outage_loses_frames_but_marks_the_gap(written: Written) -> None:
    written.outputs.away = 1000
    await written.writer.emit(Frame("lost", {}))
    async with asyncio.timeout(10):
        while written.writer.lost == 0:
            await written.outputs.refused.acquire()
    written.outputs.away = 0
    await written.writer.emit(Frame("kept", {}))
    behind = await written.writer.finish(written.task, (), "end-id")
    assert written.events() == ["gap", "kept"]
    assert behind is not None


async def test_outputs_that_stay_away_do_not_hold_up_the_end(written: Written) -> None:
    written.outputs.away = 1000
    await written.writer.emit(Frame("lost", {}))
    assert await asyncio.wait_for(written.writer.finish(written.task, (), "end-id"), 15) is None


async def test_frames_after_the_end_are_dropped(written: Written) -> None:
    await written.writer.finish(written.task, (), "end-id")
    await written.writer.emit(Frame("late", {}))
    assert written.events() == []


async def test_outputs_that_stay_away_are_waited_for_once_and_not_for_each_batch(written: Written) -> None:
    written.outputs.away = 1000
    for _ in range(20):
        await written.writer.emit(Frame("e", "x" * FLUSH_BYTES))
    async with asyncio.timeout(15):
        assert await written.writer.finish(written.task, (Frame("error", {}),), "end-id") is None
    assert written.outputs.appends <= timeouts.FLUSH_PATIENCE_S / 3.0 + 4, "the patience of one outage, and the end"
    assert written.writer.lost == 21


async def test_an_outage_that_ends_with_the_run_is_still_marked(written: Written) -> None:
    written.outputs.away = 1000
    await written.writer.emit(Frame("lost", {}))
    async with asyncio.timeout(10):
        while written.writer.lost == 0:
            await written.outputs.refused.acquire()
    written.outputs.away = 0
    await written.writer.finish(written.task, (), "end-id")
    assert [(frame.event, frame.data) for record in written.outputs.records for frame in record.frames] == [
        ("gap", {"reason": "outputs_unwritable", "frames": 1})
    ]


async def test_a_gap_that_could_not_be_written_is_told_with_the_next_one(written: Written) -> None:
    written.outputs.away = 1000
    for event in ("lost", "lost too"):
        await written.writer.emit(Frame(event, {}))
        before = written.writer.lost
        async with asyncio.timeout(10):
            while written.writer.lost == before:
                await written.outputs.refused.acquire()
    written.outputs.away = 0
    await written.writer.finish(written.task, (), "end-id")
    assert written.outputs.records[-1].frames[0].data == {"reason": "outputs_unwritable", "frames": 2}


async def test_a_record_that_is_no_good_is_given_up_alone(written: Written) -> None:
    written.outputs.bad = "bad"
    await written.writer.emit(Frame("bad", "x" * FLUSH_BYTES))
    await written.writer.emit(Frame("good", {}))
    behind = await written.writer.finish(written.task, (), "end-id")
    assert behind is not None
    assert written.events() == ["gap", "good"]


async def test_an_attempt_that_is_given_back_leaves_its_frames(written: Written) -> None:
    await written.writer.emit(Frame("values", {}))
    await written.writer.leave(written.task)
    assert written.events() == ["values"]
    assert written.outputs.records[-1].end is None


async def test_outputs_that_are_away_hold_up_no_release(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlog_processors.timeouts.FLUSH_BEFORE_RELEASE_S", 0.05)
    monkeypatch.setattr("agentlog_processors.timeouts.FLUSH_PATIENCE_S", 1e9)
    written.outputs.away = 1000
    await written.writer.emit(Frame("values", {}))
    async with asyncio.timeout(5):
        await written.writer.leave(written.task)
    assert written.events() == []
