"""Event log on `agentlog.events`: durable appends and reads by position; large values go to blobs first."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agentlog_facts.decoding import guarded
from agentlog_facts.envelope import BlobRef, Draft, LogPosition, Recorded
from agentlog_facts.errors import AgentlogError, Corrupt, OutcomeUnknown, Unavailable
from agentlog_facts.ids import Key
from agentlog_facts.json_value import Json, JsonObject, as_object, dump
from agentlog_facts.ports import Blobs, RawRecord
from agentlog_facts.system import PartitionOpened
from agentlog_facts.topics import BLOBS, EVENTS
from agentlog_facts.vocabulary import (
    blob_refs,
    decode_commit,
    encode_commit,
    encode_facts,
    parse_commit,
    place_blob,
)
from agentlog_infra.kafka.blobs import KafkaBlobs
from agentlog_infra.kafka.connection import connection
from agentlog_infra.kafka.partitions import partition_headers, partition_of
from agentlog_infra.kafka.producer import DurableProducer
from agentlog_infra.kafka.reader import KafkaReader, Record
from agentlog_infra.settings import Settings
from agentlog_postgres.connection import Pool

RECORD_BYTES = 900 * 1024
"""No record exceeds this, so that Kafka with its default settings accepts it."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = 250_000_000_000_000
"""Bounds of a timestamp, in milliseconds after EPOCH: a mirror may have stored any number."""


async def open_event_log(
    settings: Settings, pool: Pool, client_id: str, stack: AsyncExitStack, *, appends: bool = True
) -> "KafkaLog":
    """Connect to `events` and `blobs`, until `stack` closes; `pool` holds the index of blobs.

    Without `appends` no producer connects, and the log can only be read. Raises: Unavailable, Misconfigured.
    """
    connected = connection(settings)
    producer = DurableProducer(connected, client_id)
    if appends:
        await producer.start()
        stack.push_async_callback(producer.stop)
    events, blobs = KafkaReader(connected, EVENTS, client_id), KafkaReader(connected, BLOBS, client_id)
    stack.push_async_callback(events.stop)
    stack.push_async_callback(blobs.stop)
    return KafkaLog(producer, events, KafkaBlobs(producer, blobs, pool, settings.partitions), settings.partitions)


class KafkaLog:
    """Implements `ports.EventLog` and `ports.EventRecords`."""

    def __init__(
        self, producer: DurableProducer, reader: KafkaReader, blobs: KafkaBlobs, partitions: int, topic: str = EVENTS
    ) -> None:
        self._topic = topic
        self._producer = producer
        self._reader = reader
        self._blobs = blobs
        self._partitions = partitions

    def partition_of(self, key: Key) -> int:
        """Return the partition of an aggregate key."""
        return partition_of(key.encode(), self._partitions)

    async def append(self, draft: Draft) -> LogPosition:
        """Append one record, durable. Raises: Unavailable, OutcomeUnknown."""
        facts = encode_facts(draft)
        value = encode_commit(draft, facts)
        if len(value) > RECORD_BYTES:
            value = await self._with_blobs(draft, facts)
        return await self._producer.send(self._topic, draft.key.encode(), value, self.partition_of(draft.key))

    async def read(self, place: LogPosition) -> Recorded:
        """Return the commit at a position. Raises: Unavailable, Corrupt, UnknownSchema."""
        raw = await self.raw(place)
        return Recorded(place, await self.resolve(raw), raw.timestamp)

    async def raw(self, place: LogPosition) -> RawRecord:
        """Return the record at a position. Raises: Unavailable, Corrupt (there is none)."""
        record = await self._reader.one(place.partition, place.offset)
        if record is None:
            raise Corrupt(f"{self._topic}-{place.partition}: no record at offset {place.offset}")
        return raw_record(record)

    async def resolve(self, raw: RawRecord) -> Draft:
        """Decode a record, fetching its blobs. Raises: Corrupt, UnknownSchema, BlobMissing, Unavailable."""
        return await resolve(raw, self._blobs)

    async def end(self, partition: int) -> int:
        """Return the offset after the last record of a partition. Raises: Unavailable."""
        return await self._reader.end(partition)

    async def ends(self) -> Mapping[int, int]:
        """Return the offset after the last record of every partition. Raises: Unavailable."""
        return await self._reader.ends(range(self._partitions))

    async def check(self) -> None:
        """Check that the log answers, and that no append has failed or waited for long since the last success.

        Raises: Unavailable.
        """
        await self._reader.end(0)
        self._producer.check()

    async def headers(self) -> Sequence[PartitionOpened]:
        """Return the first fact of every partition, in order. Raises: Unavailable, Misconfigured."""
        return await partition_headers(self._reader, self._partitions)

    async def _with_blobs(self, draft: Draft, facts: list[Json]) -> bytes:
        """Move the largest values to blobs until the commit fits into one record."""
        blobs: list[BlobRef] = []
        for field in _largest_first(facts):
            try:
                sha256 = await self._blobs.write(field.encoded)
            except OutcomeUnknown as error:  # the outcome of the blob is unknown, but the event itself was not sent yet
                raise Unavailable(str(error)) from error
            blobs.append(BlobRef((field.fact, "data", field.name), sha256, len(field.encoded)))
            field.data[field.name] = None
            value = encode_commit(draft, facts, tuple(blobs))
            if len(value) <= RECORD_BYTES:
                return value
        raise AgentlogError(f"{draft.stream}: a commit of {len(facts)} facts does not fit into {RECORD_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class _Field:
    fact: int
    name: str
    data: JsonObject
    encoded: bytes


def _largest_first(facts: list[Json]) -> list[_Field]:
    found: list[_Field] = []
    for number, fact in enumerate(facts):
        data = as_object(as_object(fact, "fact")["data"], "data")
        found += [_Field(number, name, data, dump(value)) for name, value in data.items()]
    return sorted(found, key=lambda field: len(field.encoded), reverse=True)


def raw_record(record: Record) -> RawRecord:
    """Convert a consumer's record to the type of the port."""
    return RawRecord(LogPosition(record.partition, record.offset), record.key, record.value, append_time(record))


def append_time(record: Record) -> datetime:
    """Return the broker's append time of a record."""
    return EPOCH + timedelta(milliseconds=min(max(0, record.timestamp), LATEST))


async def resolve(raw: RawRecord, blobs: Blobs) -> Draft:
    """Decode a record, fetching the values that lie on blobs.

    Raises: Corrupt, UnknownSchema, BlobMissing, Unavailable, and nothing else, whatever the record holds.
    """
    if raw.key is None or raw.value is None:
        raise Corrupt(f"{EVENTS}-{raw.place.partition} offset {raw.place.offset}: a record without key or value")
    record = parse_commit(raw.value)
    for ref in blob_refs(record):
        place_blob(record, ref, await blobs.read(ref.sha256))
    with guarded(f"key of {EVENTS}-{raw.place.partition} offset {raw.place.offset}"):
        key = raw.key.decode()
    return decode_commit(key, record)
