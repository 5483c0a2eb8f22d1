"""Random access to a Kafka topic: ranges of one partition, in order."""

from collections.abc import AsyncGenerator, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from agentlog_facts.errors import Corrupt, Unavailable
from agentlog_infra import timeouts
from agentlog_infra.kafka.connection import Connection, kafka_faults
from agentlog_infra.kafka.consumer_pool import ConsumerPool, Reading

POOL = 2
FETCH_BYTES = 4 * 1024 * 1024

Record = ConsumerRecord[bytes, bytes]


class KafkaReader:
    """Reads `start <= offset < end` of a partition; at most POOL reads at a time, the others wait their turn."""

    def __init__(self, connection: Connection, topic: str, client_id: str) -> None:
        self._pool = ConsumerPool(
            connection, topic, Reading(client_id, POOL, timeouts.READER_FETCH_WAIT_MS, FETCH_BYTES)
        )

    async def stop(self) -> None:
        """Disconnect."""
        await self._pool.stop()

    async def end(self, partition: int) -> int:
        """Return the offset after the last record. Raises: Unavailable."""
        return await self._pool.end(partition)

    async def ends(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Return the offset after the last record of each of these partitions. Raises: Unavailable."""
        return await self._pool.ends(partitions)

    async def read(self, partition: int, start: int, end: int) -> AsyncGenerator[Record]:
        """Yield the records of a range in order; read it to its end: leaving early costs a consumer.

        Raises: Unavailable if the log does not answer, Corrupt if the range is not (or no longer) on it.
        """
        at = TopicPartition(self._pool.topic, partition)
        async with self._pool.consumer() as consumer:
            consumer.assign([at])
            consumer.seek(at, start)
            while start < end:
                for record in await self._some(consumer, at, start):
                    start = record.offset + 1
                    if record.offset < end:
                        yield record
            consumer.unsubscribe()  # otherwise it would continue to fetch

    async def one(self, partition: int, offset: int) -> Record | None:
        """Return the record at an offset, None where the log has none. Raises: Unavailable, Corrupt."""
        found = [record async for record in self.read(partition, offset, offset + 1)]
        return found[0] if found else None

    async def _some(self, consumer: AIOKafkaConsumer, at: TopicPartition, start: int) -> list[Record]:
        with kafka_faults(self._pool.topic):
            try:
                for patience_ms in (timeouts.READER_FIRST_WAIT_MS, timeouts.READER_WAIT_MS):
                    found = await consumer.getmany(at, timeout_ms=patience_ms)
                    if found.get(at):
                        return found[at]
                    if (end := (await consumer.end_offsets([at]))[at]) <= start:
                        raise Corrupt(f"{at.topic}-{at.partition}: no record at offset {start}, the log ends at {end}")
            except OffsetOutOfRangeError as error:  # a KafkaError too, but the log is there
                raise Corrupt(f"{at.topic}-{at.partition}: the wanted records are not there: {error}") from error
        raise Unavailable(f"{at.topic}-{at.partition}: no records within {timeouts.READER_WAIT_MS} ms")
