"""Log of stream frames on `agentlog.outputs`: the writer of a worker and the reader of a gateway.

A position is the partition's base (from its `PartitionOpened`) plus the record's offset, times the slots of a record.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

from aiokafka import TopicPartition

from agentlog_facts.errors import Corrupt
from agentlog_facts.frame import SLOTS, FrameRecord, encode_record, position
from agentlog_facts.ids import ThreadId
from agentlog_facts.ports import FrameTail, PositionedFrames
from agentlog_facts.topics import OUTPUTS
from agentlog_infra.kafka.connection import Connection
from agentlog_infra.kafka.outputs.ranges import FrameRanges
from agentlog_infra.kafka.outputs.records import LARGE_BYTES, PART, Headers, cut, naming
from agentlog_infra.kafka.outputs.tail import PartitionTail
from agentlog_infra.kafka.partitions import partition_of
from agentlog_infra.kafka.producer import DurableProducer

log = logging.getLogger(__name__)

PARTS_IN_FLIGHT = 4

Base = Callable[[int], int]
"""Returns the base of a partition's positions."""


class KafkaFrameLog:
    """Implements `ports.FrameLog`, with producers of its own, so that a flood of frames never delays facts.

    Records of usual size are short-lived and read at once, so they are not compressed. Parts are: they are mostly whole
    states of long threads, which repeat themselves.
    """

    def __init__(self, connection: Connection, partitions: int, base: Base, topic: str = OUTPUTS) -> None:
        self._producer = DurableProducer(connection, "agentlog-frames", compression=None)
        self._parts = DurableProducer(connection, "agentlog-frame-parts", compression="zstd")
        self._ranges = FrameRanges(connection, topic)
        self._partitions = partitions
        self._base = base
        self._topic = topic

    async def start(self) -> None:
        """Connect. Raises: Unavailable."""
        await self._producer.start()
        await self._parts.start()

    async def stop(self) -> None:
        """Flush and disconnect."""
        await asyncio.gather(self._producer.stop(), self._parts.stop())
        await self._ranges.stop()

    async def append(self, thread_id: ThreadId, record: FrameRecord) -> int:
        """Append one flush, durable; return the position after it.

        Raises: Unavailable; OutcomeUnknown if the flush may be on the log. Appending it again with the same (epoch, n)
        is harmless: readers show it once.
        """
        value, headers = encode_record(record)
        partition = partition_of(thread_id.encode(), self._partitions)
        if len(value) > LARGE_BYTES:
            headers = naming(headers, await self._append_parts(thread_id, partition, value, headers))
            value = b""
        return await self._send(self._producer, thread_id, partition, value, headers) + SLOTS

    async def end(self, thread_id: ThreadId) -> int:
        """Return the position after the last record of the thread's partition. Raises: Unavailable."""
        partition = partition_of(thread_id.encode(), self._partitions)
        return position(self._base(partition), await self._ranges.end(partition))

    async def _append_parts(self, thread_id: ThreadId, partition: int, value: bytes, headers: Headers) -> list[int]:
        turns = asyncio.Semaphore(PARTS_IN_FLIGHT)

        async def one(number: int, part: bytes) -> int:
            async with turns:
                return await self._send(self._parts, thread_id, partition, part, [*headers, (PART, b"%d" % number)])

        return await asyncio.gather(*(one(number, part) for number, part in enumerate(cut(value))))

    async def _send(
        self, producer: DurableProducer, thread_id: ThreadId, partition: int, value: bytes, headers: Headers
    ) -> int:
        place = await producer.send(self._topic, thread_id.encode(), value, partition, headers)
        return position(self._base(partition), place.offset)


class KafkaFrameReads:
    """Implements `ports.FrameReads`; follows only partitions that have readers."""

    def __init__(self, connection: Connection, partitions: int, base: Base, topic: str = OUTPUTS) -> None:
        self._connection = connection
        self._partitions = partitions
        self._base = base
        self._topic = topic
        self._ranges = FrameRanges(connection, topic)
        self._tails: dict[int, PartitionTail] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Disconnect; readers get SlowReader."""
        for tail in list(self._tails.values()):
            await tail.stop()
        await asyncio.gather(*self._stopping)
        await self._ranges.stop()

    async def tail(self, thread_id: ThreadId) -> FrameTail:
        """Open a tail of a thread that gets every flush acknowledged after this returns. Raises: Unavailable."""
        key = thread_id.encode()
        partition = partition_of(key, self._partitions)
        tail = self._tails.get(partition)
        if tail is None:
            at = TopicPartition(self._topic, partition)
            tail = PartitionTail(self._connection, at, self._base(partition), self._ranges, self._forget)
            self._tails[partition] = tail
        return await tail.enter(key)

    async def read(self, thread_id: ThreadId, start: int, end: int) -> AsyncGenerator[PositionedFrames]:
        """Yield the thread's flushes with start <= position < end, in order. Raises: Unavailable, Gap."""
        key = thread_id.encode()
        partition = partition_of(key, self._partitions)
        base = self._base(partition)
        at, stop = -(-start // SLOTS) - base, -(-end // SLOTS) - base
        while at < stop and (records := await self._ranges.some(partition, at, stop, base)):
            at = records[-1].offset + 1
            for record in records:
                if record.key != key or record.is_part:
                    continue
                try:
                    flush = await self._ranges.flush(record, partition, base)
                except Corrupt as error:
                    log.error("frames.unreadable", extra={"partition": partition, "error": str(error)})
                    continue
                yield flush

    async def end(self, thread_id: ThreadId) -> int:
        """Return the position after the last record of the thread's partition. Raises: Unavailable."""
        partition = partition_of(thread_id.encode(), self._partitions)
        return position(self._base(partition), await self._ranges.end(partition))

    def _forget(self, tail: PartitionTail) -> None:
        """Forget and stop a tail that has ended or is no longer needed."""
        for partition, known in list(self._tails.items()):
            if known is tail:
                del self._tails[partition]
        stopping = asyncio.get_running_loop().create_task(tail.stop())
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)
