"""Reader of ranges of `agentlog.outputs`: one fetch at a time, through a small pool of consumers.

No consumer is held while a client processes records: each call does one fetch and returns the consumer.
"""

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from agentlog_facts.errors import AgentlogError, Corrupt, Gap, Unavailable
from agentlog_facts.frame import position
from agentlog_facts.ports import PositionedFrames
from agentlog_facts.topics import OUTPUTS
from agentlog_infra import timeouts
from agentlog_infra.kafka.connection import Connection, kafka_faults
from agentlog_infra.kafka.consumer_pool import ConsumerPool, Reading
from agentlog_infra.kafka.outputs.records import DecodedFlushes, Stored, decoded, parts_of

POOL = 4
FETCH_BYTES = 2 * 1024 * 1024
MOST_RECORDS = 16
"""Records that are decompressed at once: parts of a few KB may be PART_BYTES then."""


def stored(record: ConsumerRecord[bytes, bytes]) -> Stored:
    """Convert a consumer's record."""
    return Stored(record.offset, record.key or b"", record.value or b"", record.headers)


async def _fetched(consumer: AIOKafkaConsumer, at: TopicPartition, end: int) -> list[ConsumerRecord[bytes, bytes]]:
    """Return the records of one fetch up to `end`, or the first ones with FETCH_BYTES of values."""
    found: list[ConsumerRecord[bytes, bytes]] = []
    size_bytes, timeout_ms = 0, timeouts.OUTPUTS_READ_MS
    while size_bytes < FETCH_BYTES and (not found or found[-1].offset + 1 < end):
        more = (await consumer.getmany(at, timeout_ms=timeout_ms, max_records=MOST_RECORDS)).get(at, [])
        if not more:
            break
        found += more
        size_bytes += sum(len(record.value or b"") for record in more)
        timeout_ms = 0
    return found


class FrameRanges:
    """Reads `start <= offset < end` of a partition; at most POOL fetches at a time, the others wait their turn."""

    def __init__(self, connection: Connection, topic: str = OUTPUTS) -> None:
        self._decoded = DecodedFlushes()
        self._pool = ConsumerPool(
            connection, topic, Reading("agentlog-frame-ranges", POOL, timeouts.OUTPUTS_FETCH_WAIT_MS, FETCH_BYTES)
        )

    async def stop(self) -> None:
        """Disconnect."""
        await self._pool.stop()

    async def end(self, partition: int) -> int:
        """Return the offset after the last record. Raises: Unavailable."""
        return await self._pool.end(partition)

    async def some(self, partition: int, start: int, end: int, base: int) -> list[Stored]:
        """Return the first records of a range; none only if the range is empty. Raises: Unavailable, Gap."""
        at = TopicPartition(self._pool.topic, partition)
        async with self._pool.consumer() as consumer:
            consumer.assign([at])
            consumer.seek(at, start)
            found: list[ConsumerRecord[bytes, bytes]] = []
            outside: AgentlogError | None = None
            with kafka_faults(f"{at.topic}-{partition}"):
                try:
                    found = await _fetched(consumer, at, end)
                except OffsetOutOfRangeError:
                    outside = await self._out_of_range(consumer, at, start, base)
            consumer.pause(at)
        if outside is not None:  # raised here, so that the pool keeps the consumer, which is intact
            raise outside
        if not found:
            raise Unavailable(f"{at.topic}-{partition}: no records from {start} in {timeouts.OUTPUTS_READ_MS} ms")
        return [stored(record) for record in found if record.offset < end]

    async def flush(self, record: Stored, partition: int, base: int) -> PositionedFrames:
        """Decode a record, collecting its value where that lies in parts. Raises: Corrupt, Unavailable, Gap."""
        wanted = parts_of(record, base)
        if not wanted:
            return self._decoded.decoded(record, partition, base)
        parts: dict[int, bytes] = {}
        at, end = min(wanted), max(wanted) + 1
        while at < end and (found := await self.some(partition, at, end, base)):
            parts |= {part.offset: part.value for part in found if part.offset in wanted}
            at = found[-1].offset + 1
        if len(parts) < len(wanted):
            raise Corrupt(f"outputs record {record.offset}: {len(parts)} of its {len(wanted)} parts are there")
        return decoded(record, partition, base, b"".join(parts[offset] for offset in wanted))

    async def _out_of_range(
        self, consumer: AIOKafkaConsumer, at: TopicPartition, start: int, base: int
    ) -> Gap | Unavailable:
        oldest = (await consumer.beginning_offsets([at]))[at]
        if start < oldest:
            return Gap(f"{at.topic}-{at.partition}: {start} has expired", position(base, oldest))
        return Unavailable(f"{at.topic}-{at.partition}: {start} is not there yet")
