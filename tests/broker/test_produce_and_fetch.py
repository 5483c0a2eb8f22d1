"""Produce and fetch: order, offsets, times, long polls, limits."""

import asyncio
import time
from typing import Literal

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import MessageSizeTooLargeError, OffsetOutOfRangeError
from tests.broker.servers import make_topic, producer, read_all, reader


async def test_records_come_back_with_key_value_headers_and_time(kafka: str) -> None:
    topic = await make_topic(kafka)
    async with producer(kafka) as client:
        sent = await client.send_and_wait(topic, b"v", b"k", headers=[("h", b"1")], timestamp_ms=1_700_000_000_123)
    (record,) = await read_all(kafka, topic)
    assert (sent.offset, record.offset) == (0, 0)
    assert (record.key, record.value, list(record.headers)) == (b"k", b"v", [("h", b"1")])
    assert (record.timestamp, record.timestamp_type) == (1_700_000_000_123, 0)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_batches_come_back(kafka: str, codec: Literal["gzip", "snappy", "lz4", "zstd"]) -> None:
    topic = await make_topic(kafka)
    async with producer(kafka, compression=codec, linger_ms=20) as client:
        waits = [await client.send(topic, b"a" * 500) for _ in range(20)]
        offsets = [(await wait).offset for wait in waits]
    assert offsets == list(range(20))
    assert [record.value for record in await read_all(kafka, topic)] == [b"a" * 500] * 20


async def test_offsets_are_dense_per_partition_under_many_writers(kafka: str) -> None:
    topic = await make_topic(kafka, partitions=3)

    async def write(number: int) -> None:
        async with producer(kafka) as client:
            for each in range(40):
                await client.send_and_wait(topic, b"%d-%d" % (number, each), partition=each % 3)

    await asyncio.gather(*(write(number) for number in range(4)))
    records = await read_all(kafka, topic, 3)
    assert len({record.value for record in records}) == 160
    for part in range(3):
        offsets = [record.offset for record in records if record.partition == part]
        assert offsets == list(range(len(offsets)))


async def test_log_append_time_replaces_the_time_of_the_sender(kafka: str) -> None:
    topic = await make_topic(kafka, message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    async with producer(kafka, linger_ms=20) as client:
        waits = [await client.send(topic, b"x", timestamp_ms=1) for _ in range(3)]
        sent = [await wait for wait in waits]
    records = await read_all(kafka, topic)  # the consumer checks the batch's CRC
    after = int(time.time() * 1000)
    assert [record.timestamp_type for record in records] == [1, 1, 1]
    assert all(before <= record.timestamp <= after for record in records)
    assert [each.timestamp for each in sent] == [record.timestamp for record in records]


async def test_a_fetch_waits_for_the_append_and_not_for_its_time_out(kafka: str) -> None:
    topic = await make_topic(kafka)
    part = TopicPartition(topic, 0)
    async with reader(kafka, part, wait_ms=5000) as consumer, producer(kafka) as client:
        await client.send_and_wait(topic, b"first")
        assert (await consumer.getone()).value == b"first"
        waiting = asyncio.ensure_future(consumer.getone())
        for number in range(5):  # the consumer sits in a long poll by now
            began = time.monotonic()
            await client.send_and_wait(topic, b"%d" % number)
            assert (await asyncio.wait_for(waiting, 2)).value == b"%d" % number
            assert time.monotonic() - began < 1
            waiting = asyncio.ensure_future(consumer.getone())
        waiting.cancel()


async def test_reading_starts_inside_a_batch(kafka: str) -> None:
    topic = await make_topic(kafka)
    async with producer(kafka, linger_ms=50) as client:
        waits = [await client.send(topic, b"%d" % number) for number in range(50)]
        await asyncio.gather(*waits)
    async with reader(kafka, part := TopicPartition(topic, 0)) as consumer:
        consumer.seek(part, 33)
        record = await asyncio.wait_for(consumer.getone(), 5)
    assert (record.offset, record.value) == (33, b"33")


@pytest.mark.parametrize("offset", [7, 1000])
async def test_an_offset_outside_the_log_is_an_error_and_not_a_hang(kafka: str, offset: int) -> None:
    topic = await make_topic(kafka)
    async with producer(kafka) as client:
        await client.send_and_wait(topic, b"1")
    async with reader(kafka, part := TopicPartition(topic, 0), reset="none") as consumer:
        consumer.seek(part, offset)
        with pytest.raises(OffsetOutOfRangeError):
            await asyncio.wait_for(consumer.getone(), 5)


async def test_first_last_and_offsets_by_time(kafka: str) -> None:
    topic = await make_topic(kafka)
    part, start = TopicPartition(topic, 0), 1_700_000_000_000
    async with producer(kafka) as client:
        for number in range(10):
            await client.send_and_wait(topic, b"x", timestamp_ms=start + number * 1000)
    async with producer(kafka, linger_ms=50) as client:
        waits = [await client.send(topic, b"x", timestamp_ms=start + 20_000 + number) for number in range(5)]
        await asyncio.gather(*waits)
    async with reader(kafka, part) as consumer:
        assert await consumer.beginning_offsets([part]) == {part: 0}
        assert await consumer.end_offsets([part]) == {part: 15}
        for asked, expected in ((0, 0), (start + 4000, 4), (start + 4001, 5), (start + 20_003, 13)):
            found = (await consumer.offsets_for_times({part: asked}))[part]
            assert found is not None
            assert found.offset == expected
        assert (await consumer.offsets_for_times({part: start + 10**9}))[part] is None


async def test_a_large_record_passes_and_one_over_the_topics_limit_is_refused(kafka: str) -> None:
    topic = await make_topic(kafka, max_message_bytes="2000000")
    async with producer(kafka, max_request_size=8 << 20) as client:
        assert (await client.send_and_wait(topic, b"x" * 1_900_000)).offset == 0
        with pytest.raises(MessageSizeTooLargeError):
            await client.send_and_wait(topic, b"x" * 2_100_000)
    async with producer(kafka) as client:  # aiokafka's idempotent producer does not survive a refused batch
        assert (await client.send_and_wait(topic, b"small")).offset == 1
    assert [len(record.value or b"") for record in await read_all(kafka, topic)] == [1_900_000, 5]


async def test_a_read_larger_than_the_fetch_limit_still_gets_on(kafka: str) -> None:
    topic = await make_topic(kafka, partitions=2, max_message_bytes="4000000")
    async with producer(kafka, max_request_size=4 << 20) as client:
        for number in range(6):
            await client.send_and_wait(topic, b"%d" % number * 1_500_000, partition=number % 2)
    records = await read_all(kafka, topic, 2)
    assert [(record.value or b"")[:1] for record in records] == [b"0", b"2", b"4", b"1", b"3", b"5"]
