"""Freeing of space by age, by size, and by deletion of records and topics; a start reads little of the data."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from tests.broker.servers import BrokerProcess, admin, make_topic, producer, read_all, reader, until

SMALL = ("--wal-file-bytes", "65536", "--segment-bytes", "20000", "--retention-check-s", "0.1")


def stored_bytes(broker: BrokerProcess) -> int:
    """Return the size of all segments on disk, while the server deletes some of them."""
    return sum(_size(path) for path in broker.data_dir.glob("segments/*/*.log"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


async def fill(broker: BrokerProcess, topic: str, size: int, timestamp_ms: int | None = None) -> None:
    """Append `size` bytes in records of 2 kB."""
    async with producer(broker.bootstrap) as client:
        waits = [await client.send(topic, b"x" * 2000, timestamp_ms=timestamp_ms) for _ in range(size // 2000)]
        await asyncio.gather(*waits)


async def test_records_older_than_the_retention_go_and_younger_stay(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker(*SMALL)
    topic = await make_topic(broker.bootstrap, retention_ms="3600000")
    await fill(broker, topic, 300_000, timestamp_ms=1_600_000_000_000)
    await fill(broker, topic, 10_000)
    await until(lambda: stored_bytes(broker) < 60_000, "old segments are deleted")
    records = await read_all(broker.bootstrap, topic)
    assert 5 <= len(records) < 30
    assert records[-1].offset == 154


async def test_old_records_go_even_when_nothing_new_comes(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker(*SMALL)
    topic = await make_topic(broker.bootstrap, retention_ms="1000")
    await fill(broker, topic, 10_000)
    async with reader(broker.bootstrap, part := TopicPartition(topic, 0)) as consumer:
        end = time.monotonic() + 10
        while await consumer.beginning_offsets([part]) != {part: 5}:
            assert time.monotonic() < end, "the records are still there"
    async with producer(broker.bootstrap) as client:
        assert (await client.send_and_wait(topic, b"next")).offset == 5


async def test_a_topic_keeps_to_its_size(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker(*SMALL)
    topic = await make_topic(broker.bootstrap, retention_bytes="100000")
    for _ in range(6):
        await fill(broker, topic, 100_000)
    await until(lambda: 0 < stored_bytes(broker) < 200_000, "the oldest segments are deleted")
    assert (await read_all(broker.bootstrap, topic))[-1].offset == 299


async def test_a_retention_of_before_deletes_nothing_of_a_topic_that_is_endless_now(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    broker = start_broker("--retention-check-s", "3600")
    kept, other = [await make_topic(broker.bootstrap, retention_bytes="100000") for _ in range(2)]
    for topic in (kept, other):
        await fill(broker, topic, 300_000)
    broker.stop()
    broker = start_broker(*SMALL, "--wal-max-age-s", "0.1", "--endless-topics", kept)
    part = TopicPartition(other, 0)
    async with reader(broker.bootstrap, part) as consumer, asyncio.timeout(10):
        while await consumer.beginning_offsets([part]) == {part: 0}:
            pass  # each look takes a while
    assert [record.offset for record in await read_all(broker.bootstrap, kept)] == list(range(150))


async def test_deleted_records_and_topics_free_their_space(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker(*SMALL)
    topic, other = await make_topic(broker.bootstrap), await make_topic(broker.bootstrap)
    for name in (topic, other):
        await fill(broker, name, 200_000)
    await until(lambda: stored_bytes(broker) > 250_000, "files are cut into segments")
    async with admin(broker.bootstrap) as client:
        await client.delete_records({TopicPartition(topic, 0): RecordsToDelete(95)})
        await client.delete_topics([other])
    await until(lambda: stored_bytes(broker) < 60_000, "the files are deleted")
    broker.kill()
    broker.start()
    assert [record.offset for record in await read_all(broker.bootstrap, topic)] == [95, 96, 97, 98, 99]


async def test_offsets_go_on_after_everything_was_deleted_and_the_server_restarted(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    broker = start_broker(*SMALL)
    topic = await make_topic(broker.bootstrap)
    await fill(broker, topic, 200_000)
    async with admin(broker.bootstrap) as client:
        await client.delete_records({TopicPartition(topic, 0): RecordsToDelete(-1)})
    await fill(broker, topic, 70_000)
    for end in (broker.stop, broker.kill):
        end()
        broker.start()
        assert [record.offset for record in await read_all(broker.bootstrap, topic)] == list(range(100, 135))


async def test_the_newest_files_are_cut_on_a_start_too(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker(*SMALL)
    topic = await make_topic(broker.bootstrap)
    for _ in range(4):
        await fill(broker, topic, 150_000)
        broker.kill()
        broker.start()
    assert [record.offset for record in await read_all(broker.bootstrap, topic)] == list(range(300))
    await until(lambda: len(list(broker.data_dir.glob("wal-*.log"))) == 1, "only the newest file is left")
