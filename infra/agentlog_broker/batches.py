"""Record batches (Kafka message format 2): the checks before they are stored, and the fields that the server sets.

Source: Kafka documentation, "Record Batch". The CRC covers everything from the attributes on, so base offset and
leader epoch can be set freely, and a changed timestamp needs a new CRC.
"""

import struct
from typing import NamedTuple

from .checksums import crc32c
from .errors import Code

HEADER = struct.Struct(">qiibIhiqqqhii")
_PREFIX = struct.Struct(">qii")
_CRC_AT = 17
_BODY_AT = 21
_LOG_APPEND_TIME = 0x08
_TRANSACTIONAL = 0x10
_CONTROL = 0x20
_CODEC_MASK = 0x07
_LAST_CODEC = 4


class Batch(NamedTuple):
    """Header of one batch; offsets in records, times in ms since the epoch."""

    base_offset: int
    size_after_length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_delta: int
    base_ms: int
    max_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int


def read_header(data: bytes | memoryview, at: int = 0) -> Batch:
    """Read the 61 bytes at `at`. Raises: struct.error if there are fewer."""
    return Batch._make(HEADER.unpack_from(data, at))


def check(batch: Batch, data: memoryview, max_bytes: int) -> int:
    """Return the error code of a batch from a producer, 0 if it is valid."""
    if batch.magic != 2:
        return Code.UNSUPPORTED_FOR_MESSAGE_FORMAT
    if len(data) > max_bytes:
        return Code.MESSAGE_TOO_LARGE
    if batch.size_after_length != len(data) - 12:
        return Code.INVALID_RECORD
    if crc32c(data[_BODY_AT:]) != batch.crc:
        return Code.CORRUPT_MESSAGE
    if batch.records < 1 or batch.last_delta != batch.records - 1:
        return Code.INVALID_RECORD
    if batch.attributes & (_TRANSACTIONAL | _CONTROL) or batch.attributes & _CODEC_MASK > _LAST_CODEC:
        return Code.INVALID_RECORD
    return Code.NONE


def place(batch: Batch, data: memoryview, base_offset: int) -> bytes:
    """Return the batch with its offset in the log."""
    return _PREFIX.pack(base_offset, batch.size_after_length, 0) + data[16:]


def stamp(batch: Batch, data: memoryview, base_offset: int, now_ms: int) -> bytes:
    """Return the batch with its offset, and with the time of the append instead of the producer's."""
    out = bytearray(data)
    _PREFIX.pack_into(out, 0, base_offset, batch.size_after_length, 0)
    struct.pack_into(">h", out, _BODY_AT, batch.attributes | _LOG_APPEND_TIME)
    struct.pack_into(">q", out, _BODY_AT + 14, now_ms)
    struct.pack_into(">I", out, _CRC_AT, crc32c(memoryview(out)[_BODY_AT:]))
    return bytes(out)
