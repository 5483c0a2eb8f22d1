"""Large values on `agentlog.blobs`: cut into parts, named by digest, found through an index folded on demand.

A blob is acknowledged before the event that names it. So a reader of the event finds the blob once the index is folded
to the end of the blob's partition. The index (`ledger.blob_index`) is a cache, like all rows.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from agentlog_facts.errors import Corrupt, Unavailable
from agentlog_facts.json_value import Json, load
from agentlog_infra.kafka.connection import BLOBS, kafka_faults
from agentlog_infra.kafka.partitions import partition_of
from agentlog_infra.kafka.producer import DurableProducer
from agentlog_infra.kafka.reader import KafkaReader
from agentlog_postgres.connection import Pool, translated

PART_BYTES = 900 * 1024

FIND = "SELECT partition, first_offset, parts FROM {schema}.blob_index WHERE sha256 = $1"
POSITION = "SELECT next_offset FROM {schema}.blob_positions WHERE partition = $1"
INDEX = """
INSERT INTO {schema}.blob_index (sha256, partition, first_offset, parts, size)
SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::int[], $5::bigint[])
ON CONFLICT (sha256) DO NOTHING
"""
# Only if the index still reaches as far as when reading began: a rebuild may have replaced its tables meanwhile.
MOVE = """
INSERT INTO {schema}.blob_positions AS p (partition, next_offset)
SELECT $1, $2 WHERE $3::bigint = 0 OR EXISTS (SELECT FROM {schema}.blob_positions WHERE partition = $1)
ON CONFLICT (partition) DO UPDATE SET next_offset = greatest(p.next_offset, excluded.next_offset)
 WHERE p.next_offset >= $3
"""


@dataclass(frozen=True, slots=True)
class _BlobEntry:
    sha256: str
    first_offset: int
    parts: int
    size: int


class KafkaBlobs:
    """Implements `ports.Blobs`; values are immutable, so writing one twice is harmless."""

    def __init__(
        self,
        producer: DurableProducer,
        reader: KafkaReader,
        pool: "Pool | None",
        partitions: int,
        topic: str = BLOBS,
        schema: str = "ledger",
    ) -> None:
        """`schema` holds the tables of the index."""
        self._topic = topic
        self._find_sql, self._position_sql = FIND.format(schema=schema), POSITION.format(schema=schema)
        self._index_sql, self._move_sql = INDEX.format(schema=schema), MOVE.format(schema=schema)
        self._producer = producer
        self._reader = reader
        self._pool = pool
        self._partitions = partitions

    async def write(self, value: bytes) -> str:
        """Append a value in parts, durable; return its digest. Raises: Unavailable, OutcomeUnknown."""
        sha256 = hashlib.sha256(value).hexdigest()
        partition = partition_of(sha256.encode(), self._partitions)
        parts = [value[at : at + PART_BYTES] for at in range(0, len(value), PART_BYTES)]
        for number, part in enumerate(parts):
            headers = [("part", b"%d" % number), ("parts", b"%d" % len(parts)), ("size", b"%d" % len(value))]
            await self._producer.send(self._topic, sha256.encode(), part, partition, headers)
        return sha256

    async def read(self, sha256: str) -> Json:
        """Return a value after checking its digest. Raises: Unavailable, Corrupt."""
        entry = await self._find(sha256)
        if entry is None:
            await self._fold(partition_of(sha256.encode(), self._partitions))
            entry = await self._find(sha256)
        if entry is None:
            raise Corrupt(f"blob {sha256}: an event names it, but it is not on {self._topic}")
        return load(await self._joined(entry))

    async def _joined(self, entry: _BlobEntry) -> bytes:
        """Join the parts: they lie in order, possibly with parts of other blobs between them."""
        partition = partition_of(entry.sha256.encode(), self._partitions)
        parts: dict[int, bytes] = {}
        at, end = entry.first_offset, await self._reader.end(partition)
        while at < end and len(parts) < entry.parts:
            start, at = at, min(end, at + entry.parts - len(parts))
            async for record in self._reader.read(partition, start, at):
                if record.key == entry.sha256.encode() and record.value is not None:
                    parts[_number(record.headers, "part")] = record.value
        value = b"".join(parts[number] for number in sorted(parts))
        if hashlib.sha256(value).hexdigest() != entry.sha256:
            raise Corrupt(f"blob {entry.sha256}: the stored bytes have another digest")
        return value

    async def _find(self, sha256: str) -> _BlobEntry | None:
        with translated("blob index"):
            row = await self._rows().fetchrow(self._find_sql, sha256)
        return None if row is None else _BlobEntry(sha256, row["first_offset"], row["parts"], 0)

    async def _fold(self, partition: int) -> None:
        with kafka_faults(self._topic):
            end = await self._reader.end(partition)
        with translated("blob index"):
            start = await self._rows().fetchval(self._position_sql, partition) or 0
        entries = [
            _BlobEntry(
                record.key.decode(), record.offset, _number(record.headers, "parts"), _number(record.headers, "size")
            )
            async for record in self._reader.read(partition, start, end)
            if record.key is not None and _number(record.headers, "part") == 0
        ]
        with translated("blob index"):
            async with self._rows().acquire() as connection, connection.transaction():
                await connection.execute(self._index_sql, *_columns(entries, partition))
                await connection.execute(self._move_sql, partition, end, start)

    def _rows(self) -> Pool:
        if self._pool is None:
            raise Unavailable("blobs: this process has no database to find them with")
        return self._pool


def _columns(entries: list[_BlobEntry], partition: int) -> tuple[list[str], list[int], list[int], list[int], list[int]]:
    return (
        [entry.sha256 for entry in entries],
        [partition] * len(entries),
        [entry.first_offset for entry in entries],
        [entry.parts for entry in entries],
        [entry.size for entry in entries],
    )


def _number(headers: Sequence[tuple[str, bytes]], name: str) -> int:
    for key, value in headers:
        if key == name:
            return int(value)
    raise Corrupt(f"{BLOBS}: a record without header {name}")
