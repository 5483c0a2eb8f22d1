"""Large values on `agentlog.blobs`: cut into parts, named by digest, found through an index folded on demand.

A blob is acknowledged before the event that names it. So a reader of the event finds the blob once the index is folded
to the end of the blob's partition. The index (`ledger.blob_index`) is a cache, like all rows. A mirrored or restored
log may hold a blob later than its event, damaged, or twice: then the reader raises BlobMissing until a copy of the blob
with the right digest is there.
"""

import hashlib
import re
from dataclasses import dataclass

from agentlog_facts.decoding import guarded
from agentlog_facts.errors import BlobMissing, Corrupt, Unavailable
from agentlog_facts.json_value import Json, load
from agentlog_facts.topics import BLOBS
from agentlog_infra.kafka.connection import kafka_faults
from agentlog_infra.kafka.partitions import partition_of
from agentlog_infra.kafka.producer import DurableProducer
from agentlog_infra.kafka.reader import KafkaReader, Record
from agentlog_postgres.connection import Pool, translated

PART_BYTES = 900 * 1024
RANGE = 64
"""Records held in memory at once while the index is folded."""

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
FORGET = "DELETE FROM {schema}.blob_index WHERE sha256 = $1 AND first_offset = $2"
SHORTEN = "UPDATE {schema}.blob_positions SET next_offset = $2 WHERE partition = $1 AND next_offset > $2"
"""The log ends before the position of the index, so an older copy of it was restored: the index is read again."""

DIGEST = re.compile(r"[0-9a-f]{64}")
NUMBER = re.compile(rb"[0-9]{1,9}")


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
        self._forget_sql, self._shorten_sql = FORGET.format(schema=schema), SHORTEN.format(schema=schema)
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
        """Return a value after checking its digest.

        Raises: Unavailable; BlobMissing while no whole copy is on the log; Corrupt if the value is no JSON, which its
        digest proves for every reader.
        """
        value = await self._stored(sha256)
        with guarded(f"blob {sha256}"):
            return load(value)

    async def _stored(self, sha256: str) -> bytes:
        """Return the bytes of a value. Raises: Unavailable, BlobMissing."""
        partition = partition_of(sha256.encode(), self._partitions)
        entry = await self._find(sha256)
        if entry is None:
            await self._fold(partition)
            entry = await self._find(sha256)
        if entry is None:
            raise BlobMissing(f"blob {sha256}: an event names it, but it is not on {self._topic}-{partition}")
        value = await self._joined(entry, partition)
        return await self._other_copy(entry, partition) if value is None else value

    async def _joined(self, entry: _BlobEntry, partition: int) -> bytes | None:
        """Join the parts, which lie in order, possibly with parts of other blobs between them; None: another digest."""
        parts: dict[int, bytes] = {}
        at, end = entry.first_offset, await self._reader.end(partition)
        while at < end and len(parts) < entry.parts:
            start, at = at, min(end, at + entry.parts - len(parts))
            for record in await self._records(partition, start, at):
                number = _number(record, "part")
                if record.key == entry.sha256.encode() and record.value is not None and number is not None:
                    parts[number] = record.value
        value = b"".join(parts[number] for number in sorted(parts))
        return value if hashlib.sha256(value).hexdigest() == entry.sha256 else None

    async def _other_copy(self, damaged: _BlobEntry, partition: int) -> bytes:
        """Return the value from another copy, and index that one. Raises: Unavailable, BlobMissing.

        Without another copy the damaged one is forgotten; a later copy is found as a new blob.
        """
        entries = [entry for entry in await self._entries(partition, 0) if entry.sha256 == damaged.sha256]
        with translated("blob index"):
            await self._rows().execute(self._forget_sql, damaged.sha256, damaged.first_offset)
        for entry in entries:
            value = await self._joined(entry, partition)
            if value is not None:
                with translated("blob index"):
                    await self._rows().execute(self._index_sql, *_columns([entry], partition))
                return value
        raise BlobMissing(f"blob {damaged.sha256}: the bytes on {self._topic}-{partition} have another digest")

    async def _find(self, sha256: str) -> _BlobEntry | None:
        with translated("blob index"):
            row = await self._rows().fetchrow(self._find_sql, sha256)
        return None if row is None else _BlobEntry(sha256, row["first_offset"], row["parts"], 0)

    async def _fold(self, partition: int) -> None:
        with kafka_faults(self._topic):
            end = await self._reader.end(partition)
        with translated("blob index"):
            start = await self._rows().fetchval(self._position_sql, partition) or 0
            if start > end:
                await self._rows().execute(self._shorten_sql, partition, end)
                start = 0
        entries = await self._entries(partition, start, end)
        with translated("blob index"):
            async with self._rows().acquire() as connection, connection.transaction():
                await connection.execute(self._index_sql, *_columns(entries, partition))
                await connection.execute(self._move_sql, partition, end, start)

    async def _entries(self, partition: int, start: int, end: int | None = None) -> list[_BlobEntry]:
        """Return the blobs that begin in a range, by default up to the end. Raises: Unavailable."""
        end = await self._reader.end(partition) if end is None else end
        found: list[_BlobEntry] = []
        for at in range(start, end, RANGE):
            records = await self._records(partition, at, min(end, at + RANGE))
            found += [entry for entry in map(_entry, records) if entry is not None]
        return found

    async def _records(self, partition: int, start: int, end: int) -> list[Record]:
        try:
            return [record async for record in self._reader.read(partition, start, end)]
        except Corrupt as error:  # about the range, not about an event: no reason for a verdict
            raise Unavailable(f"{self._topic}-{partition}: {error}") from error

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


def _entry(record: Record) -> _BlobEntry | None:
    """Return the blob that begins with a record, None for any other record: strangers' records are passed over."""
    parts, size = _number(record, "parts"), _number(record, "size")
    if record.key is None or _number(record, "part") != 0 or parts is None or size is None:
        return None
    key = record.key.decode("ascii", "replace")
    return _BlobEntry(key, record.offset, parts, size) if DIGEST.fullmatch(key) else None


def _number(record: Record, name: str) -> int | None:
    """Return the number in a header, None where there is none."""
    for key, value in record.headers:
        if key == name and value is not None and NUMBER.fullmatch(value):
            return int(value)
    return None
