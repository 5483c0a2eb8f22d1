"""Starts after a kill: they take seconds, however much is stored."""

import asyncio
from collections.abc import Callable

import pytest
from aiokafka import TopicPartition
from tests.broker.servers import BrokerProcess, make_topic, producer, reader

PARTITIONS = 4
VALUE = b"v" * 1000
GIGABYTE = 1_000_000_000
START_S = 3.0
SMALL_START_S = 10.0
"""Limit for the small run, which shares the machine with others; the full run must start in three seconds."""


async def fill(bootstrap: str, topic: str, count: int) -> list[int]:
    """Append `count` records of 1 kB, spread over the partitions; return the end of each partition."""
    ends = [0] * PARTITIONS
    async with producer(bootstrap, linger_ms=5, max_request_size=8 << 20) as client:

        async def fill_one(partition: int) -> None:
            while ends[partition] < count // PARTITIONS:
                waits = [await client.send(topic, VALUE, partition=partition) for _ in range(2000)]
                ends[partition] = (await asyncio.gather(*waits))[-1].offset + 1

        await asyncio.gather(*(fill_one(partition) for partition in range(PARTITIONS)))
    return ends


@pytest.mark.timeout(400)
async def test_a_server_that_was_killed_starts_soon_on_much_that_is_stored(
    start_broker: Callable[..., BrokerProcess], full: bool
) -> None:
    broker = start_broker()
    topic = await make_topic(broker.bootstrap, partitions=PARTITIONS)
    ends = await fill(broker.bootstrap, topic, (GIGABYTE if full else GIGABYTE // 16) // len(VALUE))
    broker.kill()
    await asyncio.to_thread(broker.start)
    stored = sum(path.stat().st_size for path in broker.data_dir.rglob("*.log"))
    print(f"started in {broker.start_s:.2f} s on {stored / 1e6:.0f} MB, {sum(ends)} records")
    assert broker.start_s < (START_S if full else SMALL_START_S)
    parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    async with reader(broker.bootstrap, *parts) as client:
        assert list((await client.end_offsets(parts)).values()) == ends
        for part, end in zip(parts, ends, strict=True):
            client.seek(part, end - 1)
            assert (await client.getone(part)).value == VALUE
