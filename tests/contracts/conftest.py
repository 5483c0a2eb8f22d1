"""Decides against what the contract suites run: memory, and the embedded broker as a process."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from tests.broker.servers import BrokerProcess, make_topic
from tests.contracts.memory_frames import MemoryFrames

from agentlog_facts.frame import SLOTS
from agentlog_facts.ids import ThreadId
from agentlog_facts.ports import FrameLog, FrameReads
from agentlog_infra.kafka_connection import Connection
from agentlog_infra.kafka_frames import KafkaFrameLog, KafkaFrameReads
from agentlog_infra.partitioner import partition_of

PARTITIONS = 2
BASE = 1000


@dataclass(frozen=True, slots=True)
class FramesWorld:
    """Both sides of the outputs, and a way to let old records expire."""

    log: FrameLog
    reads: FrameReads
    expire: Callable[[ThreadId, int], Awaitable[None]]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """Run one embedded broker for all contract suites; each test has a topic of its own."""
    process = BrokerProcess(tmp_path_factory.mktemp("contracts"), "--die-with-parent").start()
    yield process
    process.stop()


def connection_to(bootstrap: str) -> Connection:
    """Return how to connect to a plain broker."""
    context: ssl.SSLContext | None = None
    return Connection(
        bootstrap_servers=bootstrap,
        security_protocol="PLAINTEXT",
        ssl_context=context,
        sasl_mechanism="PLAIN",
        sasl_plain_username=None,
        sasl_plain_password=None,
        request_timeout_ms=5_000,
    )


async def _memory(request: pytest.FixtureRequest) -> AsyncIterator[FramesWorld]:
    frames = MemoryFrames()
    yield FramesWorld(frames, frames, frames.expire)


async def _broker(request: pytest.FixtureRequest) -> AsyncIterator[FramesWorld]:
    process = request.getfixturevalue("broker")
    assert isinstance(process, BrokerProcess)
    topic = await make_topic(process.bootstrap, "outputs", PARTITIONS, max_message_bytes=str(8 * 1024 * 1024))
    connection = connection_to(process.bootstrap)
    log = KafkaFrameLog(connection, PARTITIONS, lambda _: BASE, topic)
    reads = KafkaFrameReads(connection, PARTITIONS, lambda _: BASE, topic)

    async def expire(thread_id: ThreadId, before: int) -> None:
        client = AIOKafkaAdminClient(bootstrap_servers=process.bootstrap)
        await client.start()
        at = TopicPartition(topic, partition_of(thread_id.encode(), PARTITIONS))
        await client.delete_records({at: RecordsToDelete(before_offset=before // SLOTS - BASE)})
        await client.close()

    await log.start()
    try:
        yield FramesWorld(log, reads, expire)
    finally:
        await log.stop()
        await reads.stop()


WORLDS = {"memory": _memory, "agentlog_broker": _broker}


@pytest.fixture(params=list(WORLDS))
async def world(request: pytest.FixtureRequest) -> AsyncIterator[FramesWorld]:
    """Give the outputs of one kind of log."""
    async for made in WORLDS[request.param](request):
        yield made
