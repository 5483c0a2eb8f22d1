"""Pool of consumers of one topic for random access: each read borrows one, and their number is limited."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition

from agentlog_infra import timeouts
from agentlog_infra.kafka.connection import Connection, kafka_faults
from agentlog_infra.kafka.shutdown import close_client


@dataclass(frozen=True, slots=True)
class Reading:
    """Options of the consumers; `wait_ms` is how long the broker may hold a fetch that finds no records."""

    client_id: str
    consumers: int
    wait_ms: int
    fetch_bytes: int


class ConsumerPool:
    """Lends consumers without an assignment: the borrower assigns and seeks."""

    def __init__(self, connection: Connection, topic: str, reading: Reading) -> None:
        self.topic = topic
        self._connection = connection
        self._reading = reading
        self._idle: list[AIOKafkaConsumer] = []
        self._turns = asyncio.Semaphore(reading.consumers)

    async def stop(self) -> None:
        """Disconnect."""
        while self._idle:
            await close_client(self._idle.pop())

    async def end(self, partition: int) -> int:
        """Return the offset after the last record. Raises: Unavailable."""
        return (await self.ends([partition]))[partition]

    async def ends(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Return the offset after the last record of each of these partitions. Raises: Unavailable."""
        wanted = [TopicPartition(self.topic, partition) for partition in partitions]
        async with self.consumer() as consumer:
            with kafka_faults(self.topic):
                found = await consumer.end_offsets(wanted)
        return {at.partition: offset for at, offset in found.items()}

    @asynccontextmanager
    async def consumer(self) -> AsyncGenerator[AIOKafkaConsumer]:
        """Yield a consumer; after an exception it is closed instead of reused. Raises: Unavailable."""
        broken: AIOKafkaConsumer | None = None
        try:
            async with self._turns:
                consumer = broken = self._idle.pop() if self._idle else await self._connect()
                yield consumer
                self._idle.append(consumer)
                broken = None
        finally:
            if broken is not None:  # outside the semaphore, so that nobody waits until it is closed
                await close_client(broken)

    async def _connect(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            **self._connection,
            client_id=self._reading.client_id,
            auto_offset_reset="none",
            enable_auto_commit=False,
            fetch_max_wait_ms=self._reading.wait_ms,
            retry_backoff_ms=timeouts.KAFKA_METADATA_RETRY_MS,
            max_partition_fetch_bytes=self._reading.fetch_bytes,
        )
        try:
            with kafka_faults(self.topic):
                await consumer.start()
        except BaseException:
            await close_client(consumer)
            raise
        return consumer
