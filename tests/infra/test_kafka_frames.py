"""What frames on Kafka do when the broker goes away, comes back, or had nobody listening for a while."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.broker.servers import BrokerProcess, make_topic, until
from tests.contracts.conftest import connection_to
from tests.contracts.test_frame_log import numbers, taken

from agentlog_facts.errors import Unavailable
from agentlog_facts.frame import Frame, FrameRecord
from agentlog_facts.ids import RunId, ThreadId
from agentlog_infra.kafka_frames import KafkaFrameLog, KafkaFrameReads

THREAD = ThreadId("thread-a")


def _flush(n: int) -> FrameRecord:
    return FrameRecord(RunId("run-1"), 1, n, (Frame("values", n),))


@pytest.fixture
async def own_broker(tmp_path: Path) -> AsyncIterator[BrokerProcess]:
    """Run a broker that the test may kill."""
    process = BrokerProcess(tmp_path / "data").start()
    yield process
    process.kill()


Frames = tuple[KafkaFrameLog, KafkaFrameReads]


@pytest.fixture
async def frames(own_broker: BrokerProcess) -> AsyncIterator[Frames]:
    """Give both sides of the outputs of a broker that may be killed."""
    topic = await make_topic(own_broker.bootstrap, "outputs")
    connection = connection_to(own_broker.bootstrap)
    log, reads = KafkaFrameLog(connection, 1, _no_base, topic), KafkaFrameReads(connection, 1, _no_base, topic)
    await log.start()
    yield log, reads
    await log.stop()
    await reads.stop()


def _no_base(partition: int) -> int:
    return 0


async def test_a_tail_goes_on_where_it_was_when_the_broker_was_killed_and_started_again(
    own_broker: BrokerProcess, frames: Frames
) -> None:
    log, reads = frames
    tail = await reads.tail(THREAD)
    for n in range(5):
        await log.append(THREAD, _flush(n))
    before = await taken(tail, 5)
    own_broker.kill()
    own_broker.start()
    for n in range(5, 10):
        await log.append(THREAD, _flush(n))
    assert numbers([*before, *await taken(tail, 5)]) == list(range(10))
    assert numbers([found async for found in reads.read(THREAD, 0, await reads.end(THREAD))]) == list(range(10))
    tail.close()


async def test_a_broker_that_is_away_is_said_to_be_unavailable_and_found_again(
    own_broker: BrokerProcess, frames: Frames
) -> None:
    log, reads = frames
    end = await log.append(THREAD, _flush(0))
    own_broker.kill()
    with pytest.raises(Unavailable):
        await reads.tail(THREAD)
    with pytest.raises(Unavailable):
        assert [found async for found in reads.read(THREAD, 0, end)] == []
    own_broker.start()
    tail = await reads.tail(THREAD)
    await log.append(THREAD, _flush(1))
    assert numbers(await taken(tail, 1)) == [1]
    assert numbers([found async for found in reads.read(THREAD, 0, end)]) == [0]
    tail.close()


async def test_a_tail_without_readers_is_given_up_after_a_while(
    frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlog_infra.frame_tail.WARM_S", 0.05)
    log, reads = frames
    first = await reads.tail(THREAD)
    first.close()
    second = await reads.tail(THREAD)
    assert reads.tailed() == {0}
    second.close()
    await until(lambda: not reads.tailed(), "the tail is given up")
    third = await reads.tail(THREAD)
    await log.append(THREAD, _flush(0))
    assert numbers(await taken(third, 1)) == [0]
    third.close()
