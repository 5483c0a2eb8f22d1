"""Consumer groups: each partition has one reader, offsets survive, dead members are replaced."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from tests.broker.servers import make_topic, producer, unique, until


@asynccontextmanager
async def member(
    kafka: str, topic: str, group: str, *, instance: str | None = None
) -> AsyncGenerator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=kafka,
        group_id=group,
        group_instance_id=instance,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=6000,
        heartbeat_interval_ms=100,
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


_MEMBER = """
import asyncio, sys
from aiokafka import AIOKafkaConsumer
async def main():
    async with AIOKafkaConsumer(sys.argv[2], bootstrap_servers=sys.argv[1], group_id=sys.argv[3],
                                session_timeout_ms=1000, heartbeat_interval_ms=100) as consumer:
        await consumer.getone()
asyncio.run(main())
"""


async def test_positions_survive_the_consumer(kafka: str) -> None:
    topic, group = await make_topic(kafka, partitions=2), unique("g")
    part = TopicPartition(topic, 0)
    async with producer(kafka) as client:
        for number in range(6):
            await client.send_and_wait(topic, b"%d" % number, partition=0)
    async with member(kafka, topic, group) as consumer:
        assert (await consumer.getone()).value == b"0"
        await consumer.commit({part: (4, "note")})
    async with member(kafka, topic, group) as consumer:
        assert await consumer.committed(part) == 4
        assert (await consumer.getone()).value == b"4"


async def test_two_members_share_the_partitions_and_one_takes_over(kafka: str) -> None:
    topic, group = await make_topic(kafka, partitions=6), unique("g")
    seen: list[bytes] = []

    async def read(consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            seen.append(record.value or b"")
            await consumer.commit()

    async with member(kafka, topic, group) as first, producer(kafka) as client:
        reading = [asyncio.ensure_future(read(first))]
        await until(lambda: len(first.assignment()) == 6, "one member reads all partitions")
        async with member(kafka, topic, group) as second:
            reading.append(asyncio.ensure_future(read(second)))
            await until(lambda: len(first.assignment()) == len(second.assignment()) == 3, "both read half of them")
            for number in range(30):
                await client.send_and_wait(topic, b"%d" % number, partition=number % 6)
            await until(lambda: len(seen) >= 30, "both together read everything")
            reading.pop().cancel()
        await until(lambda: len(first.assignment()) == 6, "the one that stays takes over")
        await client.send_and_wait(topic, b"last", partition=5)
        await until(lambda: b"last" in seen, "it reads on")
        reading.pop().cancel()
    assert sorted(set(seen) - {b"last"}) == sorted(b"%d" % number for number in range(30))


async def test_a_member_that_died_is_replaced_after_its_session(kafka: str) -> None:
    topic, group = await make_topic(kafka, partitions=4), unique("g")
    async with member(kafka, topic, group) as stays:
        await until(lambda: len(stays.assignment()) == 4, "alone it has all")
        dies = await asyncio.create_subprocess_exec(sys.executable, "-c", _MEMBER, kafka, topic, group)
        try:
            await until(lambda: len(stays.assignment()) == 2, "both have half")
        finally:
            dies.kill()  # no LeaveGroup
            await dies.wait()
        await until(lambda: len(stays.assignment()) == 4, "the other takes over")


async def test_a_static_member_comes_back_without_a_rebalance(kafka: str) -> None:
    topic, group = await make_topic(kafka, partitions=4), unique("g")
    async with member(kafka, topic, group, instance="one") as other:
        async with member(kafka, topic, group, instance="two") as before:
            await until(lambda: len(other.assignment()) == len(before.assignment()) == 2, "both have half")
            held = before.assignment()
        async with member(kafka, topic, group, instance="two") as after:
            await until(lambda: len(after.assignment()) == 2, "it has partitions again")
            assert after.assignment() == held
            assert len(other.assignment()) == 2


async def test_a_commit_of_an_older_generation_is_refused(kafka: str) -> None:
    topic, group = await make_topic(kafka), unique("g")
    async with member(kafka, topic, group) as consumer:
        await until(lambda: len(consumer.assignment()) == 1, "joined")
        outsider = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
        try:
            await outsider.start()
            outsider.assign([TopicPartition(topic, 0)])
            with pytest.raises(KafkaError):
                await outsider.commit({TopicPartition(topic, 0): 1})
        finally:
            await outsider.stop()
        assert await consumer.committed(TopicPartition(topic, 0)) is None
