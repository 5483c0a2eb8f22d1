"""Tests of frames on Kafka when the broker goes away, comes back, or had no reader for a while."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.broker.servers import make_topic, until
from tests.contracts.conftest import Server, connection_to
from tests.contracts.test_frame_log import numbers, taken
from tests.contracts.test_log_away import eventually

from agentlog_facts.errors import Unavailable
from agentlog_facts.frame import SLOTS, Frame, FrameRecord
from agentlog_facts.ids import RunId, ThreadId
from agentlog_infra.kafka.outputs.frame_log import KafkaFrameLog, KafkaFrameReads
from agentlog_infra.kafka.outputs.ranges import FETCH_BYTES, MOST_RECORDS
from agentlog_infra.kafka.outputs.records import PART_BYTES
from agentlog_infra.kafka.outputs.tail import PartitionTail

THREAD = ThreadId("thread-a")


def _flush(n: int) -> FrameRecord:
    return FrameRecord(RunId("run-1"), 1, n, (Frame("values", n),))


Frames = tuple[KafkaFrameLog, KafkaFrameReads]


@asynccontextmanager
async def outputs(bootstrap: str) -> AsyncGenerator[Frames]:
    """Yield writer and reader of an outputs topic of their own."""
    topic = await make_topic(bootstrap, "outputs")
    connection = connection_to(bootstrap)
    log, reads = KafkaFrameLog(connection, 1, _no_base, topic), KafkaFrameReads(connection, 1, _no_base, topic)
    await log.start()
    try:
        yield log, reads
    finally:
        await log.stop()
        await reads.stop()


@pytest.fixture
async def frames(own_server: Server) -> AsyncIterator[Frames]:
    """Yield writer and reader on a server that the test may kill."""
    async with outputs(own_server.bootstrap) as made:
        yield made


def _no_base(partition: int) -> int:
    return 0


async def test_parts_are_compressed_and_a_fetch_decompresses_a_bounded_number_of_them(own_server: Server) -> None:
    """A state of a long thread took as many bytes of the log at each superstep; one fetch now holds many of them."""
    states = [FrameRecord(RunId("run-1"), 1, n, (Frame("values", str(n) * (PART_BYTES - 1000)),)) for n in range(9)]
    async with outputs(own_server.bootstrap) as (log, reads):
        tail = await reads.tail(THREAD)
        end = [await log.append(THREAD, state) for state in (*states, *states, *states)][-1]
        fetched = await reads._ranges.some(0, 0, end // SLOTS, 0)  # pyright: ignore[reportPrivateUsage]  # what one fetch holds
        size_bytes = sum(len(one.value) for one in fetched)
        assert FETCH_BYTES + PART_BYTES < size_bytes < FETCH_BYTES + MOST_RECORDS * PART_BYTES
        found = [found async for found in reads.read(THREAD, 0, end)]
        assert [one.record for one in found] == [*states, *states, *states]
        tail.close()


async def test_a_tail_goes_on_where_it_was_when_the_broker_was_killed_and_started_again(
    own_server: Server, frames: Frames
) -> None:
    log, reads = frames
    tail = await reads.tail(THREAD)
    for n in range(5):
        await log.append(THREAD, _flush(n))
    before = await taken(tail, 5)
    own_server.kill()
    await asyncio.to_thread(own_server.start)
    for n in range(5, 10):
        await log.append(THREAD, _flush(n))
    assert numbers([*before, *await taken(tail, 5)]) == list(range(10))
    assert numbers([found async for found in reads.read(THREAD, 0, await reads.end(THREAD))]) == list(range(10))
    tail.close()


async def test_a_broker_that_is_away_is_said_to_be_unavailable_and_found_again(
    own_server: Server, frames: Frames
) -> None:
    log, reads = frames
    end = await log.append(THREAD, _flush(0))
    own_server.kill()
    with pytest.raises(Unavailable):
        await reads.tail(THREAD)
    with pytest.raises(Unavailable):
        assert [found async for found in reads.read(THREAD, 0, end)] == []
    await asyncio.to_thread(own_server.start)
    tail = await eventually(lambda: reads.tail(THREAD))
    await log.append(THREAD, _flush(1))
    assert numbers(await taken(tail, 1)) == [1]
    assert numbers([found async for found in reads.read(THREAD, 0, end)]) == [0]
    tail.close()


async def test_a_tail_without_readers_is_given_up_after_a_while(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[PartitionTail] = []

    class Watched(PartitionTail):
        async def stop(self) -> None:
            await super().stop()
            stopped.append(self)

    monkeypatch.setattr("agentlog_infra.timeouts.OUTPUTS_TAIL_IDLE_S", 0.05)
    monkeypatch.setattr("agentlog_infra.kafka.outputs.frame_log.PartitionTail", Watched)
    async with outputs(kafka) as (log, reads):
        first = await reads.tail(THREAD)
        first.close()
        second = await reads.tail(THREAD)
        assert stopped == []
        second.close()
        await until(lambda: len(stopped) == 1, "the tail is given up")
        third = await reads.tail(THREAD)
        await log.append(THREAD, _flush(0))
        assert numbers(await taken(third, 1)) == [0]
        third.close()
