"""Tail of one partition of `agentlog.outputs`: one consumer for all readers, each record decoded once."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from agentlog_facts.back_off import back_off
from agentlog_facts.errors import Corrupt, Gap, Unavailable
from agentlog_facts.frame import position
from agentlog_infra import timeouts
from agentlog_infra.kafka.connection import Connection, kafka_faults
from agentlog_infra.kafka.outputs.buffer import FrameBuffer
from agentlog_infra.kafka.outputs.ranges import MOST_RECORDS, FrameRanges, stored
from agentlog_infra.kafka.outputs.records import PART_BYTES, Stored, parts_of
from agentlog_infra.kafka.shutdown import close_client

log = logging.getLogger(__name__)


class PartitionTail:
    """Follows one partition from the end that it had at the start; after a fault it reconnects and continues."""

    def __init__(
        self,
        connection: Connection,
        at: TopicPartition,
        base: int,
        ranges: FrameRanges,
        on_idle: Callable[["PartitionTail"], None],
    ) -> None:
        self._connection = connection
        self._at = at
        self._base = base
        self._ranges = ranges
        self._on_idle = on_idle
        self._next = 0
        self._readers: dict[bytes, list[FrameBuffer]] = {}
        self._waiting = 0
        self._idle_timer: asyncio.TimerHandle | None = None
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._follow())
        self._task.add_done_callback(self._ended)

    async def enter(self, key: bytes) -> FrameBuffer:
        """Return a buffer that gets every flush acknowledged from now on. Raises: Unavailable."""
        self._waiting += 1
        try:
            await asyncio.shield(self._ready)
        finally:
            self._waiting -= 1
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        buffer = FrameBuffer(position(self._base, self._next), lambda left: self._leave(key, left))
        self._readers.setdefault(key, []).append(buffer)
        return buffer

    async def stop(self) -> None:
        """Stop following; readers continue from the log."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _leave(self, key: bytes, buffer: FrameBuffer) -> None:
        readers = self._readers.get(key, [])
        if buffer in readers:
            readers.remove(buffer)
        if not readers:
            self._readers.pop(key, None)
        if not self._readers and self._idle_timer is None and not self._task.done():
            self._idle_timer = asyncio.get_running_loop().call_later(timeouts.OUTPUTS_TAIL_IDLE_S, self._idle)

    def _idle(self) -> None:
        self._idle_timer = None
        if not self._readers and not self._waiting:
            self._on_idle(self)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Release the readers: they continue from the log and enter a new tail."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Unavailable):
            log.error("frames.tail_failed", extra={"partition": self._at.partition}, exc_info=error)
        if not self._ready.done():
            self._ready.set_exception(Unavailable(f"{self._at.topic}-{self._at.partition}: {error or 'stopped'}"))
            self._ready.exception()  # retrieved here, because there may be no waiter
        self._drop_readers()
        if error is not None:
            self._on_idle(self)

    def _drop_readers(self, key: bytes | None = None) -> None:
        for name in list(self._readers) if key is None else [key]:
            for buffer in list(self._readers.get(name, ())):
                buffer.overflow()

    async def _follow(self) -> None:
        pauses = back_off(timeouts.OUTPUTS_TAIL_FIRST_PAUSE_S, timeouts.OUTPUTS_TAIL_LONGEST_PAUSE_S)
        while True:
            try:
                await self._session()
            except OffsetOutOfRangeError:
                await self._lost()
            except (KafkaError, OSError, TimeoutError, Unavailable) as error:
                if not self._ready.done():
                    raise Unavailable(f"{self._at.topic}-{self._at.partition}: {error}") from error
                log.warning("frames.tail_away", extra={"partition": self._at.partition, "error": repr(error)})
                await asyncio.sleep(next(pauses))  # between attempts to connect, as long as the log is away

    async def _lost(self) -> None:
        """Continue at the end: the next record has expired, or the log was replaced. Readers find the gap."""
        log.error("frames.tail_lost", extra={"partition": self._at.partition, "offset": self._next})
        self._drop_readers()
        self._next = await self._ranges.end(self._at.partition)

    async def _session(self) -> None:
        consumer = AIOKafkaConsumer(
            **self._connection,
            client_id="agentlog-frame-tail",
            auto_offset_reset="none",
            enable_auto_commit=False,
            fetch_max_wait_ms=timeouts.OUTPUTS_TAIL_FETCH_WAIT_MS,
            retry_backoff_ms=timeouts.KAFKA_METADATA_RETRY_MS,
        )
        try:
            with kafka_faults(self._at.topic):
                await consumer.start()
                if not self._ready.done():
                    self._next = (await consumer.end_offsets([self._at]))[self._at]
            consumer.assign([self._at])
            consumer.seek(self._at, self._next)
            if not self._ready.done():
                self._ready.set_result(None)
            while True:
                found = await consumer.getmany(
                    self._at, timeout_ms=timeouts.OUTPUTS_TAIL_POLL_MS, max_records=MOST_RECORDS
                )
                for records in found.values():
                    await self._hand_out(records)
        finally:
            await close_client(consumer)

    async def _hand_out(self, records: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        for record in records:
            if record.key is not None and record.key in self._readers:
                await self._put(stored(record))
            self._next = record.offset + 1

    async def _put(self, record: Stored) -> None:
        if record.is_part:
            return
        try:
            flush = await self._ranges.flush(record, self._at.partition, self._base)
        except Corrupt as error:
            log.error("frames.unreadable", extra={"partition": self._at.partition, "error": str(error)})
            return
        except (Unavailable, Gap):  # its parts cannot be read now: readers retry on the log
            self._drop_readers(record.key)
            return
        size_bytes = len(record.value) + PART_BYTES * len(parts_of(record, self._base))
        for buffer in list(self._readers.get(record.key, ())):
            buffer.put(flush, size_bytes)
