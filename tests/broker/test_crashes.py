"""What was acknowledged survives the death of the server, at the same offset, once."""

import asyncio
import json
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from tests.broker.servers import BrokerProcess, admin, make_topic, producer, read_all, until

WRITERS = 32
SMALL_FILES = ("--wal-file-bytes", "65536", "--segment-bytes", "20000")


async def _write_through_kills(broker: BrokerProcess, topic: str, kills: int) -> dict[bytes, tuple[int, int]]:
    """Let many writers append while the server is killed and started again; return what was acknowledged."""
    acked: dict[bytes, tuple[int, int]] = {}
    going = True
    clients = [
        AIOKafkaProducer(
            bootstrap_servers=broker.bootstrap,
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=5000,
            retry_backoff_ms=20,
        )
        for _ in range(4)
    ]
    for client in clients:
        await client.start()

    async def write(number: int) -> None:
        each = 0
        while going:
            value = b"%d-%d" % (number, each)
            sent = await clients[number % 4].send_and_wait(topic, value + b"x" * 100, partition=number % 4)
            acked[value] = (sent.partition, sent.offset)
            each += 1

    writing = [asyncio.ensure_future(write(number)) for number in range(WRITERS)]
    for kill in range(kills):
        before = len(acked)
        await until(lambda: len(acked) >= before + 800, "the writers get on")  # noqa: B023
        broker.kill()
        await asyncio.to_thread(broker.start)
        assert broker.start_s < 5, f"start {kill} took {broker.start_s} s"
    before = len(acked)
    await until(lambda: len(acked) >= before + 800, "the writers get on")
    going = False
    await asyncio.gather(*writing)
    for client in clients:
        await client.stop()
    return acked


async def test_kills_under_32_idempotent_writers_lose_move_and_double_nothing(
    start_broker: Callable[..., BrokerProcess], full: bool
) -> None:
    broker = start_broker(*SMALL_FILES)
    topic = await make_topic(broker.bootstrap, partitions=4)
    acked = await _write_through_kills(broker, topic, 24 if full else 8)
    broker.kill()
    broker.start()
    records = await read_all(broker.bootstrap, topic, 4)
    stored = [((record.value or b"").rstrip(b"x"), (record.partition, record.offset)) for record in records]
    places = dict(stored)
    assert len(places) == len(stored), "a record is there twice"
    assert {value: places.get(value) for value in acked} == acked, "a record is missing or elsewhere"
    for part in range(4):
        offsets = [record.offset for record in records if record.partition == part]
        assert offsets == list(range(len(offsets)))
    print(f"{len(acked)} acknowledged, {len(stored)} stored, none missing, moved or doubled")
    manifest = json.loads((broker.data_dir / "manifest.json").read_bytes().split(b"\n", 1)[1])
    assert any(part["segments"] for row in manifest["topics"] for part in row["partitions"]), "no file was ever cut"


async def test_topics_settings_positions_and_starts_survive_a_kill(start_broker: Callable[..., BrokerProcess]) -> None:
    from aiokafka.admin import RecordsToDelete
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    broker = start_broker()
    topic = await make_topic(broker.bootstrap, partitions=2, retention_ms="123456")
    gone = await make_topic(broker.bootstrap, "gone")
    part = TopicPartition(topic, 0)
    async with producer(broker.bootstrap) as client, admin(broker.bootstrap) as operator:
        for _ in range(5):
            await client.send_and_wait(topic, b"x", partition=0)
        await operator.delete_records({part: RecordsToDelete(3)})
        await operator.delete_topics([gone])
    async with AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, group_id="g", enable_auto_commit=False) as consumer:
        consumer.assign([part])
        await consumer.commit({part: (4, "here")})
    broker.kill()
    broker.start()
    assert [record.offset for record in await read_all(broker.bootstrap, topic, 2)] == [3, 4]
    async with admin(broker.bootstrap) as operator:
        assert gone not in await operator.list_topics()
        (answer,) = await operator.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        assert {entry[0]: entry[1] for entry in answer.resources[0][4]}["retention.ms"] == "123456"
    async with AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, group_id="g", enable_auto_commit=False) as consumer:
        assert await consumer.committed(part) == 4


async def test_a_producer_that_outlives_the_server_goes_on_where_it_was(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    broker = start_broker()
    topic = await make_topic(broker.bootstrap)
    async with producer(broker.bootstrap) as client:
        for number in range(3):
            assert (await client.send_and_wait(topic, b"x")).offset == number
        for end in (broker.kill, broker.stop):
            end()
            await asyncio.to_thread(broker.start)
            assert (await client.send_and_wait(topic, b"x")).offset >= 3
    assert [record.offset for record in await read_all(broker.bootstrap, topic)] == [0, 1, 2, 3, 4]


async def test_a_reader_catches_up_through_segments_and_the_newest_file(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    broker = start_broker(*SMALL_FILES)
    topic = await make_topic(broker.bootstrap, partitions=2)
    expected: list[list[bytes]] = [[], []]
    async with producer(broker.bootstrap) as client:
        for number in range(600):
            value = b"%d" % number * 100
            await client.send_and_wait(topic, value, partition=number % 2)
            expected[number % 2].append(value)
    await until(lambda: len(list(broker.data_dir.glob("segments/*/*.log"))) > 2, "files are cut into segments")
    records = await read_all(broker.bootstrap, topic, 2)
    assert [record.value for record in records] == expected[0] + expected[1]
