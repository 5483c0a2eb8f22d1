"""Kafka producer with bounded acknowledgement: acknowledged means durable, and a silent client is replaced.

aiokafka's idempotent producer neither raises a time-out nor expires a batch, so this module limits the wait. It
replaces an aiokafka producer only after PRODUCER_SILENCE_S without any acknowledgement, or after a fatal error. Batches
of the replaced one may still arrive; `event_id` and `append_id` make them harmless.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Literal, TypeAlias

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError
from aiokafka.structs import RecordMetadata

from agentlog_facts.back_off import back_off
from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import OutcomeUnknown, Unavailable
from agentlog_infra import timeouts
from agentlog_infra.kafka.connection import Connection, kafka_faults
from agentlog_infra.kafka.shutdown import close_producer

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1_000_000
NO_OFFSET = -1
"""Log start in an acknowledgement without an offset: Kafka recognises the batch as a repeat, but no longer knows its
offset (DUPLICATE_SEQUENCE_NUMBER), and aiokafka 0.14 reports a success. Its offset is no sign: it counts up from -1."""

Compression: TypeAlias = Literal["gzip", "snappy", "lz4", "zstd"]
"""History is kept for ever and is repetitive text: zstd stores a conversation in about a third."""


class DurableProducer:
    """One aiokafka producer at a time: acks=all, idempotent, in order per partition."""

    def __init__(
        self,
        connection: Connection,
        client_id: str,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        compression: Compression | None = "zstd",
    ) -> None:
        self._compression: Compression | None = compression
        self._connection = connection
        self._client_id = client_id
        self._max_request_bytes = max_request_bytes
        self._producer: AIOKafkaProducer | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._last_ack = 0.0
        self._waiting: dict[object, float] = {}
        self._failed_at: float | None = None

    async def start(self) -> None:
        """Connect. Raises: Unavailable."""
        self._producer = await self._connect()
        self._last_ack = time.monotonic()

    async def stop(self) -> None:
        """Flush the records in flight, for at most PRODUCER_SILENCE_S, and disconnect."""
        if self._replacing is not None:
            self._replacing.cancel()
            await asyncio.gather(self._replacing, return_exceptions=True)
        producer, self._producer = self._producer, None
        if producer is not None:
            await close_producer(producer, timeouts.PRODUCER_SILENCE_S)

    async def send(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        partition: int,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> LogPosition:
        """Append one record and wait until the log has it.

        Raises: Unavailable (nothing was sent), OutcomeUnknown (no acknowledgement in time).
        """
        started = object()
        self._waiting[started] = time.monotonic()
        try:
            place = await self._send(topic, key, value, partition, headers)
        except Unavailable:
            self._failed_at = time.monotonic()
            raise
        finally:
            del self._waiting[started]
        self._failed_at = None
        return place

    def check(self) -> None:
        """Check that records are acknowledged. Raises: Unavailable.

        An append that failed counts for PRODUCER_FAILED_S: if no other one succeeds or fails, nothing more is known.
        """
        now = time.monotonic()
        longest = now - min(self._waiting.values(), default=now)
        if longest > timeouts.PRODUCER_OVERDUE_S:
            raise Unavailable(f"the log takes no writes: no acknowledgement for {longest:.0f} s")
        if self._failed_at is not None and now - self._failed_at < timeouts.PRODUCER_FAILED_S:
            raise Unavailable(f"the log takes no writes: the last append failed {now - self._failed_at:.0f} s ago")

    async def _send(
        self, topic: str, key: bytes, value: bytes, partition: int, headers: Sequence[tuple[str, bytes]] | None
    ) -> LogPosition:
        producer = self._producer
        if producer is None:
            raise Unavailable(f"{topic}: no connection to the log yet")
        try:
            with kafka_faults(topic):
                async with asyncio.timeout(timeouts.PRODUCER_SEND_S):
                    delivery = await producer.send(topic, value, key, partition, headers=headers)
        except Unavailable as error:
            if _is_broken(error.__cause__):  # its sender died while nobody waited for an acknowledgement
                self._replace(producer)
            raise
        delivery.add_done_callback(_log_failure)
        metadata = await self._acknowledged(topic, producer, delivery)
        self._last_ack = time.monotonic()
        if metadata.log_start_offset == NO_OFFSET:
            raise OutcomeUnknown(f"{topic}: the log has the record, but did not return its offset")
        return LogPosition(metadata.partition, metadata.offset)

    async def _acknowledged(
        self, topic: str, producer: AIOKafkaProducer, delivery: asyncio.Future[RecordMetadata]
    ) -> RecordMetadata:
        try:
            done, _ = await asyncio.wait({delivery}, timeout=timeouts.PRODUCER_SILENCE_S)
            if done:
                return delivery.result()
        except KafkaError as error:
            self._replace(producer)
            raise OutcomeUnknown(f"{topic}: {type(error).__name__} {error}") from error
        if time.monotonic() - self._last_ack >= timeouts.PRODUCER_SILENCE_S:
            self._replace(producer)
        raise OutcomeUnknown(f"{topic}: no acknowledgement within {timeouts.PRODUCER_SILENCE_S:g} s")

    def _replace(self, old: AIOKafkaProducer) -> None:
        if self._producer is old:
            log.warning("producer.replaced", extra={"client": self._client_id})
            self._producer = None
            self._replacing = asyncio.get_running_loop().create_task(self._reconnect(old))

    async def _reconnect(self, old: AIOKafkaProducer) -> None:
        try:
            await close_producer(old, 0)
        except Exception:  # the old producer is abandoned in any case
            log.exception("producer.not_stopped", extra={"client": self._client_id})
        for pause_s in back_off(timeouts.PRODUCER_FIRST_PAUSE_S, timeouts.PRODUCER_LONGEST_PAUSE_S):
            try:
                self._producer = await self._connect()
                self._last_ack = time.monotonic()
                return
            except Unavailable as error:
                log.warning("producer.unavailable", extra={"client": self._client_id, "error": str(error)})
            except Exception:  # nothing else would connect again
                log.exception("producer.not_connected", extra={"client": self._client_id})
            await asyncio.sleep(pause_s)  # between attempts to connect, as long as the log is away

    async def _connect(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **self._connection,
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            max_request_size=self._max_request_bytes,
            compression_type=self._compression,
            retry_backoff_ms=timeouts.PRODUCER_RETRY_MS,
        )
        try:
            with kafka_faults(self._client_id):
                async with asyncio.timeout(timeouts.PRODUCER_START_S):
                    await producer.start()
        except BaseException:
            await close_producer(producer, 0)
            raise
        return producer


def _is_broken(error: BaseException | None) -> bool:
    """Return whether a producer that refuses a record with this error will refuse all others too."""
    passing = isinstance(error, KafkaTimeoutError | MessageSizeTooLargeError)
    return isinstance(error, KafkaError) and not passing and not error.retriable


def _log_failure(delivery: asyncio.Future[RecordMetadata]) -> None:
    """Log a failure that comes after its waiter has given up; asyncio would warn about it otherwise."""
    if not delivery.cancelled() and delivery.exception() is not None:
        log.info("producer.not_delivered", extra={"error": str(delivery.exception())})
