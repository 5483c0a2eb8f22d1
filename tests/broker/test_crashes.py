"""Kills of the server: an acknowledged record survives at the same offset, once."""

import asyncio
import json
import shutil
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from tests.broker.servers import BrokerProcess, admin, make_topic, producer, read_all, until
from tests.broker.wire_client import WireClient, make_batch

WRITERS, PARTITIONS = 32, 4
PROGRESS_S = 60.0
"""Time for 800 acknowledgements on a busy machine; on an idle one they take 0.4 s."""
SMALL_FILES = ("--wal-file-bytes", "65536", "--segment-bytes", "20000")


async def _write_through_kills(broker: BrokerProcess, topic: str, kills: int) -> dict[bytes, tuple[int, int]]:
    """Append from many writers while the server is killed and started again; return the acknowledged records."""
    acked: dict[bytes, tuple[int, int]] = {}
    going = True

    async def write(number: int, client: AIOKafkaProducer) -> None:
        """Append to all partitions with a producer of its own, so that each partition has several producers."""
        each = number
        while going:
            value = b"%d-%d" % (number, each)
            sent = await client.send_and_wait(topic, value + b"x" * 100, partition=each % PARTITIONS)
            acked[value] = (sent.partition, sent.offset)
            each += 1

    async def more() -> None:
        enough = len(acked) + 800
        await until(lambda: len(acked) >= enough, "the writers get on", PROGRESS_S)

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(producer(broker.bootstrap)) for _ in range(WRITERS)]
        writing = [asyncio.ensure_future(write(number, client)) for number, client in enumerate(clients)]
        for _ in range(kills):
            await more()
            broker.kill()
            await asyncio.to_thread(broker.start)
        await more()
        going = False
        await asyncio.gather(*writing)
    return acked


async def test_kills_under_32_idempotent_writers_lose_move_and_double_nothing(
    start_broker: Callable[..., BrokerProcess], full: bool
) -> None:
    broker = start_broker(*SMALL_FILES)
    topic = await make_topic(broker.bootstrap, partitions=PARTITIONS)
    acked = await _write_through_kills(broker, topic, 24 if full else 8)
    broker.kill()
    broker.start()
    records = await read_all(broker.bootstrap, topic, PARTITIONS)
    stored = [((record.value or b"").rstrip(b"x"), (record.partition, record.offset)) for record in records]
    places = dict(stored)
    assert len(places) == len(stored), "a record is there twice"
    assert {value: places.get(value) for value in acked} == acked, "a record is missing or elsewhere"
    for part in range(PARTITIONS):
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


async def test_a_restored_server_gives_nobody_the_id_of_a_producer_that_is_still_alive(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    broker = start_broker()
    topic = await make_topic(broker.bootstrap)
    copy = broker.data_dir.with_name("copy")
    await new_producer_id(broker.bootstrap)
    broker.kill()
    shutil.copytree(broker.data_dir, copy)
    broker.start()
    alive = await new_producer_id(broker.bootstrap)
    await append(broker.bootstrap, topic, alive, [b"a0", b"a1"])
    broker.kill()
    shutil.rmtree(broker.data_dir)
    shutil.copytree(copy, broker.data_dir)
    broker.start()
    new = await new_producer_id(broker.bootstrap)
    assert new != alive
    await append(broker.bootstrap, topic, new, [b"b0", b"b1", b"b2"])
    await append(broker.bootstrap, topic, alive, [b"a2"], first=2)
    stored = [record.value for record in await read_all(broker.bootstrap, topic)]
    assert stored == [b"b0", b"b1", b"b2", b"a2"], "an acknowledged record was taken for a repeat of another one"


async def new_producer_id(bootstrap: str) -> int:
    """Return a new producer id, as a producer that has just started gets it."""
    client = await WireClient.connect(bootstrap)
    answer = await client.ask(22, 0, b"\xff\xff" + struct.pack(">i", 1000))
    await client.close()
    code: int
    _, code, producer_id, _ = struct.unpack(">ihqh", answer)
    assert code == 0
    return int(producer_id)


async def append(bootstrap: str, topic: str, producer_id: int, values: list[bytes], first: int = 0) -> None:
    """Append records of an idempotent producer; each one must be acknowledged."""
    client = await WireClient.connect(bootstrap)
    for sequence, value in enumerate(values, first):
        batch = make_batch([value], producer_id=producer_id, epoch=0, sequence=sequence)
        assert (await client.produce(topic, batch)).code == 0
    await client.close()


async def test_positions_of_a_deleted_topic_do_not_come_back_for_its_namesake(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    from aiokafka.admin import NewTopic

    broker = start_broker()
    topic = await make_topic(broker.bootstrap)
    part = TopicPartition(topic, 0)
    async with producer(broker.bootstrap) as client:
        for _ in range(8):
            await client.send_and_wait(topic, b"x")
    await commit(broker.bootstrap, part, 7)
    async with admin(broker.bootstrap) as operator:
        await operator.delete_topics([topic])
        await operator.create_topics([NewTopic(topic, 1, 1)])
    assert broker.stop() == 0  # writes a manifest that knows the new topic, before the log is replayed
    broker.start()
    assert await committed(broker.bootstrap, part) is None
    await commit(broker.bootstrap, part, 0)
    assert broker.stop() == 0
    broker.start()
    assert await committed(broker.bootstrap, part) == 0


async def commit(bootstrap: str, part: TopicPartition, offset: int) -> None:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id="g", enable_auto_commit=False) as consumer:
        consumer.assign([part])
        await consumer.commit({part: offset})


async def committed(bootstrap: str, part: TopicPartition) -> int | None:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id="g", enable_auto_commit=False) as consumer:
        consumer.assign([part])
        return await consumer.committed(part)
