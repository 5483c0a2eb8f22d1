"""Tests of the shutdown of Kafka clients over TLS on uvloop, where an unanswered close would take 30 s."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from tests.apache_kafka.secured import SecuredKafka
from tests.broker.servers import make_topic, producer
from tests.certificates import Certificates
from tests.contracts import event_envs
from tests.contracts.test_event_log import draft
from tests.facts.commits import THREAD, commit
from tests.stack_fixtures import RunningStack

from agentlog_facts.frame import Frame, FrameRecord
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.system import PartitionOpened
from agentlog_facts.thread import ThreadMetadataPatched
from agentlog_facts.vocabulary import encode_commit, encode_facts
from agentlog_infra.kafka.blobs import KafkaBlobs
from agentlog_infra.kafka.connection import Connection, connection
from agentlog_infra.kafka.event_tail import KafkaTail
from agentlog_infra.kafka.outputs.frame_log import KafkaFrameLog, KafkaFrameReads
from agentlog_infra.kafka.partitions import partition_headers
from agentlog_infra.kafka.producer import DurableProducer
from agentlog_infra.kafka.reader import POOL, KafkaReader
from agentlog_infra.kafka.shutdown import close_client
from agentlog_infra.settings import Settings

pytestmark = pytest.mark.needs("java", "mvn")

SOON_S = 10.0
"""Much longer than any of it takes, much shorter than uvloop's limit for one close (30 s)."""
TIMES = 10
PARTITIONS = 64
Given = tuple[Connection, str]


@pytest.fixture
def tls(secured_kafka: SecuredKafka, certificates: Certificates) -> Given:
    """Return a connection over TLS, and the open port for the checks of the tests."""
    given: dict[str, object] = {
        "kafka_bootstrap": secured_kafka.door("TLS"),
        "kafka_security_protocol": "SSL",
        "kafka_ssl_cafile": certificates.ca,
    }
    return connection(Settings.load(given)), secured_kafka.bootstrap


@pytest.fixture
def consumers(monkeypatch: pytest.MonkeyPatch) -> list[AIOKafkaConsumer]:
    """Return the consumers that were connected."""
    made: list[AIOKafkaConsumer] = []
    start = AIOKafkaConsumer.start

    async def counted(consumer: AIOKafkaConsumer) -> None:
        made.append(consumer)
        await start(consumer)

    monkeypatch.setattr(AIOKafkaConsumer, "start", counted)
    return made


async def each_soon(what: Callable[[], Awaitable[object]], times: int = TIMES) -> None:
    """Do something several times; none may take as long as a close that nobody answers."""
    for _ in range(times):
        async with asyncio.timeout(SOON_S):
            await what()


def test_the_bases_of_all_partitions_are_read_by_the_consumers_of_one_pool(
    tls: Given, consumers: list[AIOKafkaConsumer]
) -> None:
    connected, open_door = tls

    async def scenario() -> None:
        topic = await make_topic(open_door, "events", PARTITIONS)
        writer = DurableProducer(connected, "test")
        await writer.start()
        opening = commit(PartitionOpened("log", 1, 0, PARTITIONS, 7))
        value = encode_commit(opening, encode_facts(opening))
        for partition in range(PARTITIONS):
            for _ in range(3):  # so that there is more to fetch after the first
                await writer.send(topic, b"k", value, partition)
        reader = KafkaReader(connected, topic, "test")
        async with asyncio.timeout(SOON_S):
            assert [one.base for one in await partition_headers(reader, PARTITIONS)] == [7] * PARTITIONS
        assert len(consumers) <= POOL
        async with asyncio.timeout(SOON_S):
            await reader.stop()
            await writer.stop()

    uvloop.run(scenario())


def test_single_commits_and_their_blobs_are_read_at_once(
    tls: Given, consumers: list[AIOKafkaConsumer], stack: RunningStack
) -> None:
    connected, open_door = tls

    async def scenario() -> None:
        async with event_envs.kafka(open_door, connected, stack.postgres) as env:
            large = commit(ThreadMetadataPatched(THREAD, {"text": "x" * 2_000_000}))
            small = [await env.log.append(draft(number)) for number in range(TIMES)][3]
            place = await env.log.append(large)
            await env.log.append(large)  # so that there is more to fetch after the first
            assert (await env.log.read(place)).draft == large
            await each_soon(lambda: env.log.read(small))
            await each_soon(lambda: env.log.read(place))
            assert len(consumers) == len(("tail", "events", "blobs"))

    uvloop.run(scenario())


def test_a_client_is_let_go_soon_with_a_question_in_flight(tls: Given) -> None:
    connected, open_door = tls

    async def scenario() -> None:
        topic = await make_topic(open_door, "t")
        at = TopicPartition(topic, 0)
        async with producer(open_door) as client:
            await client.send_and_wait(topic, b"x")

        async def listened() -> None:
            consumer = AIOKafkaConsumer(**connected, auto_offset_reset="none", fetch_max_wait_ms=100)
            await consumer.start()
            consumer.assign([at])
            consumer.seek(at, 0)
            assert await consumer.getmany(at, timeout_ms=5_000)
            await close_client(consumer)

        await each_soon(listened)

    uvloop.run(scenario())


def test_tails_are_stopped_soon(tls: Given) -> None:
    connected, open_door = tls

    async def scenario() -> None:
        topic = await make_topic(open_door, "outputs")
        thread = ThreadId("thread")

        async def of_events() -> None:
            blobs = KafkaBlobs(DurableProducer(connected, "test"), KafkaReader(connected, topic, "test"), None, 1)
            tail = KafkaTail(connected, blobs, 1, "test", topic)
            await tail.start()
            tail.seek(0, 0)
            await tail.ends()
            await tail.stop()

        async def of_frames() -> None:
            log, reads = (
                KafkaFrameLog(connected, 1, lambda _: 0, topic),
                KafkaFrameReads(connected, 1, lambda _: 0, topic),
            )
            await log.start()
            tail = await reads.tail(thread)
            await log.append(thread, FrameRecord(RunId("run"), 1, 0, (Frame("values", {}),)))
            assert await tail.next()
            tail.close()
            await reads.stop()
            await log.stop()

        await each_soon(of_events, 5)
        await each_soon(of_frames, 5)

    uvloop.run(scenario())
