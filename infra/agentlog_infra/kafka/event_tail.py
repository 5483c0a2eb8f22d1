"""Tail of `agentlog.events` for the projector: assigned partitions, offsets kept by the caller, no consumer group.

A client that reconnects continues at its offset, although the log may meanwhile have been restored from an older copy
and have grown again. So a tail whose connection was replaced raises Unavailable before it returns another record, and
the projector checks whether the last record it folded is still there.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from agentlog_facts.envelope import Draft
from agentlog_facts.errors import Diverged, Unavailable
from agentlog_facts.ports import RawRecord
from agentlog_facts.topics import BLOBS, EVENTS
from agentlog_infra import timeouts
from agentlog_infra.kafka.blobs import KafkaBlobs
from agentlog_infra.kafka.connection import Connection, connection, kafka_faults
from agentlog_infra.kafka.event_log import raw_record, resolve
from agentlog_infra.kafka.producer import DurableProducer
from agentlog_infra.kafka.reader import KafkaReader
from agentlog_infra.kafka.shutdown import close_client
from agentlog_infra.settings import Settings
from agentlog_postgres.connection import Pool

if TYPE_CHECKING:
    from aiokafka.conn import AIOKafkaConnection

    Links: TypeAlias = dict[tuple[object, object], AIOKafkaConnection]

BOOTSTRAP = "bootstrap"


async def open_event_tail(
    settings: Settings,
    pool: Pool,
    client_id: str,
    stack: AsyncExitStack,
    *,
    schema: str = "ledger",
    fetch_wait_ms: int = timeouts.EVENT_TAIL_FETCH_WAIT_MS,
) -> "KafkaTail":
    """Connect a tail of `events`, until `stack` closes; `schema` of `pool` holds the index of blobs.

    Raises: Unavailable, Misconfigured.
    """
    connected = connection(settings)
    reader = KafkaReader(connected, BLOBS, client_id)
    stack.push_async_callback(reader.stop)
    producer = DurableProducer(connected, client_id)  # it never connects, because blobs are only read here
    blobs = KafkaBlobs(producer, reader, pool, settings.partitions, schema=schema)
    tail = KafkaTail(connected, blobs, settings.partitions, client_id, fetch_wait_ms=fetch_wait_ms)
    await tail.start()
    stack.push_async_callback(tail.stop)
    return tail


class KafkaTail:
    """Implements `ports.EventTail`."""

    def __init__(
        self,
        connection: Connection,
        blobs: KafkaBlobs,
        partitions: int,
        client_id: str,
        topic: str = EVENTS,
        fetch_wait_ms: int = timeouts.EVENT_TAIL_FETCH_WAIT_MS,
    ) -> None:
        """`fetch_wait_ms`: how long the broker may hold a fetch that finds no records. Other requests on the same
        connection wait for it, so a take-over takes as long."""
        self._topic = topic
        self._blobs = blobs
        self._partitions = partitions
        self._assigned: set[TopicPartition] = set()
        self._positions: dict[int, int] = {}
        self._links: Links | None = None
        self._consumer = AIOKafkaConsumer(
            **connection,
            client_id=client_id,
            auto_offset_reset="none",
            enable_auto_commit=False,
            fetch_max_wait_ms=fetch_wait_ms,
            max_partition_fetch_bytes=4 * 1024 * 1024,
        )

    async def start(self) -> None:
        """Connect; once. Raises: Unavailable."""
        try:
            with kafka_faults(self._topic):
                await self._consumer.start()
        except BaseException:
            await close_client(self._consumer)
            raise

    async def stop(self) -> None:
        """Disconnect."""
        await close_client(self._consumer)

    def seek(self, partition: int, offset: int) -> None:
        """Continue a partition at `offset`."""
        at = TopicPartition(self._topic, partition)
        if at not in self._assigned:
            positions = dict(self._positions)
            self._assigned.add(at)
            self._consumer.assign(self._assigned)
            for other, position in positions.items():
                self._consumer.seek(TopicPartition(self._topic, other), position)
        self._consumer.seek(at, offset)
        self._positions[partition] = offset

    def drop(self, partition: int) -> None:
        """Stop reading a partition."""
        at = TopicPartition(self._topic, partition)
        if at in self._assigned:
            self._assigned.discard(at)
            self._positions.pop(partition, None)
            self._consumer.assign(self._assigned)
            for other, position in self._positions.items():
                self._consumer.seek(TopicPartition(self._topic, other), position)

    async def poll(self, max_records: int, patience: timedelta) -> Sequence[RawRecord]:
        """Return the records that have arrived, waiting for the first.

        Raises: Unavailable (also when the connection was replaced meanwhile), Diverged (an offset is gone).
        """
        links = self._connections() if self._links is None else self._links
        try:
            with kafka_faults(self._topic):
                found = await self._consumer.getmany(
                    timeout_ms=int(patience.total_seconds() * 1000), max_records=max_records
                )
        except Unavailable as error:
            if isinstance(error.__cause__, OffsetOutOfRangeError):
                raise Diverged(f"{self._topic}: the next record is not on the log: {error.__cause__}") from error
            raise
        self._links = self._connections()
        if any(self._links.get(node) is not link for node, link in links.items()):
            self._links = None
            raise Unavailable(f"{self._topic}: the connection to the log was lost, so the last record is checked again")
        records = [raw_record(record) for batch in found.values() for record in batch]
        for record in records:
            self._positions[record.place.partition] = record.place.offset + 1
        return records

    def _connections(self) -> "Links":
        """Return node -> open connection, without the bootstrap connection, which the client itself closes."""
        found = self._consumer._client._conns  # pyright: ignore[reportPrivateUsage]  # no public access
        return {node: link for node, link in found.items() if node[0] != BOOTSTRAP}

    async def ends(self) -> Mapping[int, int]:
        """Return the offset after the last record of every partition. Raises: Unavailable."""
        wanted = [TopicPartition(self._topic, partition) for partition in range(self._partitions)]
        with kafka_faults(self._topic):
            found = await self._consumer.end_offsets(wanted)
        return {at.partition: offset for at, offset in found.items()}

    async def resolve(self, raw: RawRecord) -> Draft:
        """Decode a record, fetching its blobs. Raises: Corrupt, UnknownSchema, Unavailable."""
        return await resolve(raw, self._blobs)
