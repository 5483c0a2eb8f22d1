"""Layout of a write-ahead file, and the distinction between a torn tail and damage.

A file starts with a header that names the end of the file before it. Frames follow, each with the checksum of itself
and of the frame before (a chain through all files), and with the position up to which the file was on disk when the
frame was written. So a bad frame is a torn tail only if no later frame proves that it had been on disk; otherwise it is
damage.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .checksums import crc32
from .errors import Damaged

MAGIC = b"aLg1"
_FILE_MAGIC = b"agentlogWAL\x01"
_FILE = struct.Struct("<12sIIII")  # magic, sequence, end of the file before, chain there, crc
_FRAME = struct.Struct("<4sIIIIII")  # magic, sequence of the file, size, target, durable position, chain, crc
FILE_HEADER_BYTES = _FILE.size
FRAME_HEADER_BYTES = _FRAME.size
JOURNAL = 0
MARK = 0xFFFFFFFF


class Place(NamedTuple):
    """Position between two frames: file, byte, and the checksum of the frame that ends there."""

    sequence: int
    position: int
    chain: int


class Frame(NamedTuple):
    """Stored frame: `position` is the start of its payload, `durable` the position on disk when it was written."""

    target: int
    position: int
    payload: memoryview
    end: Place
    durable: int


@dataclass(frozen=True, slots=True)
class FileHeader:
    """Header of a write-ahead file: its number, and the end of its predecessor."""

    sequence: int
    previous_end: int
    chain: int


def file_name(sequence: int) -> str:
    """Return the name of a write-ahead file."""
    return f"wal-{sequence:010d}.log"


def pack_file_header(header: FileHeader) -> bytes:
    """Return the first bytes of a write-ahead file."""
    head = _FILE.pack(_FILE_MAGIC, header.sequence, header.previous_end, header.chain, 0)[:-4]
    return head + struct.pack("<I", crc32(head))


def read_file_header(path: Path, data: memoryview) -> FileHeader:
    """Read and check the first bytes of a file. Raises: Damaged."""
    if len(data) < FILE_HEADER_BYTES:
        raise Damaged(path, 0, f"{len(data)} bytes, a header has {FILE_HEADER_BYTES}")
    magic, sequence, previous_end, chain, crc = _FILE.unpack_from(data)
    if magic != _FILE_MAGIC or crc != crc32(data[: FILE_HEADER_BYTES - 4]):
        raise Damaged(path, 0, "the header is not what was written")
    if path.name != file_name(sequence):
        raise Damaged(path, 0, f"the header belongs to {file_name(sequence)}")
    return FileHeader(sequence, previous_end, chain)


def pack_frame(sequence: int, target: int, durable: int, chain: int, payload: bytes) -> tuple[bytes, int]:
    """Return the header of a frame, and its checksum, which is the chain for the next frame."""
    head = _FRAME.pack(MAGIC, sequence, len(payload), target, durable, chain, 0)[:-4]
    crc = crc32(payload, crc32(head))
    return head + crc.to_bytes(4, "little"), crc


def check_payload(path: Path, position: int, stored: bytes, target: int) -> memoryview:
    """Return the payload of a frame read with its header. Raises: Damaged."""
    at = position - FRAME_HEADER_BYTES
    if len(stored) <= FRAME_HEADER_BYTES:
        raise Damaged(path, at, "the file ends inside a frame")
    _, _, size, found, _, _, crc = _FRAME.unpack_from(stored)
    view = memoryview(stored)
    if size + FRAME_HEADER_BYTES != len(stored) or crc != crc32(view[28:], crc32(view[:24])) or found != target:
        raise Damaged(path, at, "the checksum of the frame does not match")
    return view[FRAME_HEADER_BYTES:]


def _frame_at(data: memoryview, at: int, sequence: int) -> tuple[int, int, int, int, int] | None:
    """Return (size, target, durable, chain, crc) of the frame at a position, None if it is not valid."""
    if at + FRAME_HEADER_BYTES > len(data):
        return None
    magic, found, size, target, durable, chain, crc = _FRAME.unpack_from(data, at)
    start = at + FRAME_HEADER_BYTES
    if magic != MAGIC or found != sequence or start + size > len(data):
        return None
    if crc != crc32(data[start : start + size], crc32(data[at : start - 4])):
        return None
    return size, target, durable, chain, crc


def scan(path: Path, data: memoryview, end: int | None, durable: int = 0) -> Iterator[Frame]:
    """Yield the frames of a file in order.

    `end` is the end of the file that its successor names, None for the last file, whose torn tail is left out.
    `durable` is a position that is known to have been on disk. Raises: Damaged.
    """
    header = read_file_header(path, data)
    at, chain = FILE_HEADER_BYTES, header.chain
    while end is None or at < end:
        found = _frame_at(data, at, header.sequence)
        if found is None or found[3] != chain:
            if end is not None or at < durable or _was_durable(data, at, header.sequence):
                raise Damaged(path, at, "a frame that was on disk is not what was written")
            return
        size, target, proven, _, chain = found
        start = at + FRAME_HEADER_BYTES
        at = start + size
        yield Frame(target, start, data[start:at], Place(header.sequence, at, chain), proven)


def _was_durable(data: memoryview, at: int, sequence: int) -> bool:
    """Return whether any later frame proves that the bytes at a position had been on disk."""
    raw = bytes(data[at:])
    found = raw.find(MAGIC, 1)
    while found >= 0:
        frame = _frame_at(data, at + found, sequence)
        if frame is not None and frame[2] > at:
            return True
        found = raw.find(MAGIC, found + 1)
    return False
