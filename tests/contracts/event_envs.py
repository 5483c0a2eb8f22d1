"""Implementations of `EventLog` and `EventTail`: memory, and servers with the Kafka protocol."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from tests.broker.servers import make_topic, unique
from tests.fakes.memory_log import MemoryLog, MemoryTail

from agentlog_facts.ports import EventLog, EventTail
from agentlog_infra.kafka.blobs import KafkaBlobs
from agentlog_infra.kafka.connection import Connection
from agentlog_infra.kafka.event_log import KafkaLog
from agentlog_infra.kafka.event_tail import KafkaTail
from agentlog_infra.kafka.producer import DurableProducer
from agentlog_infra.kafka.reader import KafkaReader
from agentlog_infra.postgres import migrate

PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class EventsEnv:
    """Both sides of the event log."""

    log: EventLog
    tail: EventTail


@asynccontextmanager
async def memory() -> AsyncGenerator[EventsEnv]:
    """Yield a log in memory."""
    log = MemoryLog()
    yield EventsEnv(log, MemoryTail(log))


@asynccontextmanager
async def kafka(bootstrap: str, connection: Connection, postgres: str) -> AsyncGenerator[EventsEnv]:
    """Yield a log with its own topics, and its own database for the index of blobs."""
    events, large = await make_topic(bootstrap, "events", PARTITIONS), await make_topic(bootstrap, "blobs", PARTITIONS)
    uri = await new_database(postgres)
    producer = DurableProducer(connection, "contract")
    readers = [KafkaReader(connection, topic, "contract") for topic in (events, large)]
    await producer.start()
    pool = await asyncpg.create_pool(uri, min_size=1)
    blobs = KafkaBlobs(producer, readers[1], pool, PARTITIONS, large)
    tail = KafkaTail(connection, blobs, PARTITIONS, "contract", events)
    await tail.start()
    try:
        yield EventsEnv(KafkaLog(producer, readers[0], blobs, PARTITIONS, events), tail)
    finally:
        await tail.stop()
        for reader in readers:
            await reader.stop()
        await pool.close()
        await producer.stop()


async def new_database(postgres: str) -> str:
    """Create a database with the ledger's tables and return its address."""
    name = unique("contract").replace("-", "_")
    connection = await asyncpg.connect(postgres)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
    uri = postgres.replace("/postgres?", f"/{name}?")
    await migrate.upgrade(uri, [])
    return uri
