"""Implementations under the contract suites: memory, the embedded broker, Apache Kafka, PostgreSQL."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from tests.apache_kafka.server import ApacheKafka
from tests.broker.servers import BrokerProcess, make_topic
from tests.contracts import rows_envs
from tests.contracts.memory_frames import MemoryFrames
from tests.contracts.rows_envs import RowsEnv
from tests.projections.projector_env import migrated_database
from tests.stack_fixtures import RunningStack

from agentlog_facts.frame import SLOTS
from agentlog_facts.ids import ThreadId
from agentlog_facts.ports import FrameLog, FrameReads
from agentlog_infra.kafka.connection import Connection
from agentlog_infra.kafka.outputs.frame_log import KafkaFrameLog, KafkaFrameReads
from agentlog_infra.kafka.partitions import partition_of

PARTITIONS = 2
BASE = 1000


@dataclass(frozen=True, slots=True)
class FramesEnv:
    """Both sides of the outputs, and a function that expires old records."""

    log: FrameLog
    reads: FrameReads
    expire: Callable[[ThreadId, int], Awaitable[None]]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """Yield one embedded broker for all contract suites; each test has its own topic."""
    process = BrokerProcess(tmp_path_factory.mktemp("contracts"), "--die-with-parent").start()
    yield process
    process.stop()


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """Yield one node of Apache Kafka for all contract suites."""
    server = ApacheKafka(tmp_path_factory.mktemp("apache_kafka")).start()
    yield server
    server.stop()


Server = BrokerProcess | ApacheKafka


@contextmanager
def own_server_of(kind: str, folder: Path) -> Generator[Server]:
    """Run a server of one kind that a test may kill; after a restart it has the same port and records."""
    started = BrokerProcess(folder) if kind == "agentlog_broker" else ApacheKafka(folder)
    started.start()
    try:
        yield started
    finally:
        started.kill()


def bootstrap_of(kind: str, request: pytest.FixtureRequest) -> str:
    """Return the address of the embedded broker or of Apache Kafka, starting it if it does not run yet."""
    server = request.getfixturevalue("broker" if kind == "agentlog_broker" else "apache_kafka")
    assert isinstance(server, BrokerProcess | ApacheKafka)
    return server.bootstrap


def connection_to(bootstrap: str) -> Connection:
    """Return the connection to a broker without TLS and SASL."""
    context: ssl.SSLContext | None = None
    return Connection(
        bootstrap_servers=bootstrap,
        security_protocol="PLAINTEXT",
        ssl_context=context,
        sasl_mechanism="PLAIN",
        sasl_plain_username=None,
        sasl_plain_password=None,
        sasl_oauth_token_provider=None,
        request_timeout_ms=5_000,
    )


async def _memory() -> AsyncIterator[FramesEnv]:
    frames = MemoryFrames()
    yield FramesEnv(frames, frames, frames.expire)


async def _kafka(bootstrap: str) -> AsyncIterator[FramesEnv]:
    topic = await make_topic(bootstrap, "outputs", PARTITIONS, max_message_bytes=str(8 * 1024 * 1024))
    connection = connection_to(bootstrap)
    log = KafkaFrameLog(connection, PARTITIONS, lambda _: BASE, topic)
    reads = KafkaFrameReads(connection, PARTITIONS, lambda _: BASE, topic)

    async def expire(thread_id: ThreadId, before: int) -> None:
        client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await client.start()
        at = TopicPartition(topic, partition_of(thread_id.encode(), PARTITIONS))
        await client.delete_records({at: RecordsToDelete(before_offset=before // SLOTS - BASE)})
        await client.close()

    await log.start()
    try:
        yield FramesEnv(log, reads, expire)
    finally:
        await log.stop()
        await reads.stop()


APACHE = pytest.param("apache_kafka", marks=pytest.mark.needs("java", "mvn"))
KINDS = ["memory", "agentlog_broker", APACHE]


@pytest.fixture(params=KINDS)
async def env(request: pytest.FixtureRequest) -> AsyncIterator[FramesEnv]:
    """Yield the outputs of each kind of log."""
    kind = str(request.param)
    async for made in _memory() if kind == "memory" else _kafka(bootstrap_of(kind, request)):
        yield made


@pytest.fixture(scope="session")
def asked_tables(stack: RunningStack) -> str:
    """Return the address of a database with all tables."""
    return migrated_database(stack.postgres, "asked_rows")


@pytest.fixture(params=list(rows_envs.KINDS))
def kind_of_rows(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return a kind of rows, and its database or an empty text."""
    kind = str(request.param)
    return kind, str(request.getfixturevalue("asked_tables")) if kind == "postgres" else ""


@pytest.fixture
async def rows(kind_of_rows: tuple[str, str]) -> AsyncIterator[RowsEnv]:
    """Yield the rows that workers and gateways query, of each kind."""
    kind, database = kind_of_rows
    async with rows_envs.KINDS[kind](database) as env:
        yield env
