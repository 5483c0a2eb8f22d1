"""Random access to a Kafka topic: ranges of one partition, through a small pool of consumers."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from agentlog_facts.errors import Corrupt, Unavailable
from agentlog_infra.kafka_connection import Connection, kafka_faults

PATIENCE_MS = 5_000
POOL = 2

Record = ConsumerRecord[bytes, bytes]


class KafkaReader:
    """Reads `start <= offset < end` of a partition; at most POOL reads at a time, the others wait their turn."""

    def __init__(self, connection: Connection, topic: str, client_id: str) -> None:
        self._connection = connection
        self._topic = topic
        self._client_id = client_id
        self._idle: list[AIOKafkaConsumer] = []
        self._turns = asyncio.Semaphore(POOL)

    async def stop(self) -> None:
        """Disconnect."""
        while self._idle:
            await self._idle.pop().stop()

    async def end(self, partition: int) -> int:
        """Return the offset behind the last record. Raises: Unavailable."""
        at = TopicPartition(self._topic, partition)
        async with self._consumer() as consumer:
            with kafka_faults(self._topic):
                return (await consumer.end_offsets([at]))[at]

    async def read(self, partition: int, start: int, end: int) -> AsyncGenerator[Record]:
        """Yield the records of a range in order; close the generator (`aclosing`) when leaving it early.

        Raises: Unavailable when the log does not answer, Corrupt when the range is not (or no longer) there.
        """
        at = TopicPartition(self._topic, partition)
        async with self._consumer() as consumer:
            consumer.assign([at])
            consumer.seek(at, start)
            while start < end:
                for record in await self._some(consumer, at):
                    if record.offset >= end:
                        return
                    start = record.offset + 1
                    yield record

    async def _some(self, consumer: AIOKafkaConsumer, at: TopicPartition) -> list[Record]:
        with kafka_faults(self._topic):
            try:
                found = await consumer.getmany(at, timeout_ms=PATIENCE_MS)
            except OffsetOutOfRangeError as error:  # a KafkaError too, but not one of an absent log
                raise Corrupt(f"{at.topic}-{at.partition}: the wanted records are not there: {error}") from error
        if not found.get(at):
            raise Unavailable(f"{at.topic}-{at.partition}: no records within {PATIENCE_MS} ms")
        return found[at]

    @asynccontextmanager
    async def _consumer(self) -> AsyncGenerator[AIOKafkaConsumer]:
        async with self._turns:
            consumer = self._idle.pop() if self._idle else await self._connect()
            try:
                yield consumer
            except BaseException:
                await consumer.stop()
                raise
            consumer.unsubscribe()
            self._idle.append(consumer)

    async def _connect(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            **self._connection,
            client_id=self._client_id,
            auto_offset_reset="none",
            enable_auto_commit=False,
            fetch_max_wait_ms=100,
            retry_backoff_ms=20,
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )
        try:
            with kafka_faults(self._topic):
                await consumer.start()
        except BaseException:
            await consumer.stop()
            raise
        return consumer
