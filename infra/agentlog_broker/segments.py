"""Segments, the sealed part of a partition: record batches as Kafka clients see them, back to back, and an index.

`<base>.log` holds the batches, `<base>.idx` one entry per batch with a checksum over entry and batch, so that every
read finds a flipped bit in either file. Only the lengths in the manifest count; bytes beyond them are leftovers.
"""

import os
import struct
from array import array
from bisect import bisect_right
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from .checksums import crc32
from .disk import Disk
from .errors import Damaged

_PLACE = struct.Struct("<IqqqQI")  # partition uid, base offset, last offset, newest time, position, size
_CRC = struct.Struct("<I")
_ENTRY = struct.Struct("<IqqqQII")
ENTRY_BYTES = _PLACE.size + _CRC.size

SegmentRow = tuple[int, int, int, int, int]


class Entry(NamedTuple):
    """Index entry: the place of one batch in its segment."""

    base: int
    last: int
    max_ms: int
    position: int
    size: int
    crc: int


class Stored(NamedTuple):
    """Batch to be written to a segment."""

    base: int
    last: int
    max_ms: int
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Segment:
    """Description of one sealed range of a partition, known without opening its files."""

    directory: Path
    uid: int
    base: int
    next: int
    max_ms: int
    size_bytes: int
    entries: int

    @property
    def log_path(self) -> Path:
        """Return the file with the batches."""
        return self.directory / f"{self.base:020d}.log"

    @property
    def index_path(self) -> Path:
        """Return the file with the entries."""
        return self.directory / f"{self.base:020d}.idx"

    def row(self) -> SegmentRow:
        """Return the row for the manifest."""
        return self.base, self.next, self.max_ms, self.size_bytes, self.entries

    def remove(self) -> None:
        """Delete the files of the segment, if they exist."""
        self.log_path.unlink(missing_ok=True)
        self.index_path.unlink(missing_ok=True)

    def check_files(self) -> None:
        """Cut leftovers off and check that no bytes are missing. Raises: Damaged."""
        for path, size in ((self.log_path, self.size_bytes), (self.index_path, self.entries * ENTRY_BYTES)):
            found = path.stat().st_size if path.exists() else -1
            if found < size:
                raise Damaged(path, max(found, 0), f"{size} bytes expected, the file has {max(found, 0)}")
            if found > size:
                os.truncate(path, size)


class SegmentIndex:
    """Loaded index of one segment, for searches by offset or time."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._raw = _read(segment.index_path, 0, segment.entries * ENTRY_BYTES)
        self._bases = array("q", (fields[1] for fields in _ENTRY.iter_unpack(self._raw)))

    def entry(self, number: int) -> Entry:
        """Return an entry. Raises: Damaged if it belongs to another partition or place."""
        at = number * ENTRY_BYTES
        uid, base, last, max_ms, position, size = _PLACE.unpack_from(self._raw, at)
        ours = uid == self._segment.uid and self._segment.base <= base <= last < self._segment.next
        if not ours or position + size > self._segment.size_bytes:
            raise Damaged(self._segment.index_path, at, "an entry is not what was written")
        return Entry(base, last, max_ms, position, size, _CRC.unpack_from(self._raw, at + _PLACE.size)[0])

    def find(self, offset: int) -> int:
        """Return the number of the entry that holds an offset of this segment. Raises: Damaged if none does."""
        number = max(0, bisect_right(self._bases, offset) - 1)
        if not self.entry(number).base <= offset <= self.entry(number).last:
            raise Damaged(self._segment.index_path, number * ENTRY_BYTES, "entries do not follow each other")
        return number

    def at_or_after(self, time_ms: int) -> int | None:
        """Return the number of the first entry with a record at or after a time. Raises: Damaged."""
        if time_ms > self._segment.max_ms:
            return None
        for number in range(len(self._bases)):
            if self.entry(number).max_ms >= time_ms:
                if number:
                    self.read(number - 1, 1)  # checks the entry before: a flipped bit must not hide it
                return number
        raise Damaged(self._segment.index_path, 0, "no entry has the newest time of the segment")

    def read(self, number: int, max_bytes: int) -> bytes:
        """Return batches from an entry on: at least one, then as many as fit. Raises: Damaged."""
        first = self.entry(number)
        wanted, expected = [first], first.last + 1
        end = first.position + first.size
        for each in range(number + 1, len(self._bases)):
            entry = self.entry(each)
            if entry.position + entry.size - first.position > max_bytes:
                break
            if entry.base != expected or entry.position != end:
                raise Damaged(self._segment.index_path, each * ENTRY_BYTES, "entries do not follow each other")
            wanted.append(entry)
            expected, end = entry.last + 1, entry.position + entry.size
        data = _read(self._segment.log_path, first.position, end - first.position)
        self._check(wanted, memoryview(data))
        return data

    def _check(self, entries: list[Entry], data: memoryview) -> None:
        first = entries[0].position
        for entry in entries:
            at = entry.position - first
            if crc32(data[at : at + entry.size], _seed(self._segment.uid, entry)) != entry.crc:
                raise Damaged(self._segment.log_path, entry.position, "the checksum of the batch does not match")

    def verify(self) -> None:
        """Read and check everything. Raises: Damaged."""
        number, expected = 0, self._segment.base
        while number < len(self._bases):
            if self.entry(number).base != expected:
                raise Damaged(self._segment.index_path, number * ENTRY_BYTES, "entries do not follow each other")
            data = self.read(number, 8 << 20)
            number = self._after(self.entry(number).position + len(data))
            expected = self.entry(number - 1).last + 1

    def _after(self, position: int) -> int:
        """Return the number of the first entry at or after a position in the file."""
        low, high = 0, len(self._bases)
        while low < high:
            middle = (low + high) // 2
            if self.entry(middle).position < position:
                low = middle + 1
            else:
                high = middle
        return low


def extend(segment: Segment, batches: list[Stored], disk: Disk) -> Segment:
    """Append batches to a segment, sync its files and return the longer segment. Raises: OSError."""
    position, data, entries = segment.size_bytes, list[memoryview](), list[bytes]()
    for batch in batches:
        place = _PLACE.pack(segment.uid, batch.base, batch.last, batch.max_ms, position, len(batch.payload))
        entries.append(place + _CRC.pack(crc32(batch.payload, crc32(place))))
        data.append(batch.payload)
        position += len(batch.payload)
    _write_at(segment.log_path, segment.size_bytes, b"".join(data), disk)
    _write_at(segment.index_path, segment.entries * ENTRY_BYTES, b"".join(entries), disk)
    return replace(
        segment,
        next=batches[-1].last + 1,
        max_ms=max(segment.max_ms, max(batch.max_ms for batch in batches)),
        size_bytes=position,
        entries=segment.entries + len(batches),
    )


def _seed(uid: int, entry: Entry) -> int:
    return crc32(_PLACE.pack(uid, entry.base, entry.last, entry.max_ms, entry.position, entry.size))


def _write_at(path: Path, position: int, data: bytes, disk: Disk) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(fd, position)
        disk.write(fd, data, position)
        disk.sync(fd)
    finally:
        os.close(fd)


def _read(path: Path, position: int, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(fd, size, position)
    finally:
        os.close(fd)
    if len(data) != size:
        raise Damaged(path, position + len(data), f"{size} bytes expected, {len(data)} found")
    return data
