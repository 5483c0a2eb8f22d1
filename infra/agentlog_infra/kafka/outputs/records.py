"""Encoding of a flush as Kafka records: one record, or parts of its value before the record that names them.

Parts have the header `part` and expire with the record that names them, which lists their positions in `parts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from agentlog_facts.decoding import guarded
from agentlog_facts.frame import SLOTS, decode_record, position
from agentlog_facts.lru import Lru
from agentlog_facts.ports import PositionedFrames

LARGE_BYTES = 256 * 1024
PART_BYTES = 512 * 1024
PART = "part"
PARTS = "parts"
KEPT_BYTES = 1024 * 1024
"""Bytes of values of the flushes that are kept decoded: those of a run that many readers join."""

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Stored:
    """A record of `agentlog.outputs` as fetched."""

    offset: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes | None]]

    @property
    def is_part(self) -> bool:
        """Return whether this is a part of another record's value."""
        return any(name == PART for name, _ in self.headers)


def cut(value: bytes) -> list[bytes]:
    """Split a large value into parts."""
    return [value[at : at + PART_BYTES] for at in range(0, len(value), PART_BYTES)]


def naming(headers: Headers, positions: Sequence[int]) -> list[tuple[str, bytes]]:
    """Return the headers of the record that names its parts."""
    return [*headers, (PARTS, b",".join(b"%d" % at for at in positions))]


def parts_of(stored: Stored, base: int) -> list[int]:
    """Return the offsets of the parts of a record's value, in order; [] for a record that carries its value.

    Raises: Corrupt, also for parts that do not lie before the record: a reader would wait for them.
    """
    named = dict(stored.headers).get(PARTS)
    with guarded(f"outputs record {stored.offset}"):
        found = [] if named is None else [int(at) // SLOTS - base for at in named.split(b",")]
        if any(not 0 <= offset < stored.offset for offset in found):
            raise ValueError("a part does not lie before the record that names it")
    return found


def decoded(stored: Stored, partition: int, base: int, value: bytes) -> PositionedFrames:
    """Return the flush of a record. Raises: Corrupt."""
    at = position(base, stored.offset)
    record = decode_record(value, stored.headers)
    return PositionedFrames(partition, stored.offset, at, record, crc32(value), len(value))


class DecodedFlushes:
    """The flushes decoded last, so that readers of one run share the work; at most KEPT_BYTES of their values."""

    def __init__(self) -> None:
        self._kept: Lru[tuple[int, int, int], tuple[Stored, PositionedFrames]] = Lru(KEPT_BYTES)

    def decoded(self, stored: Stored, partition: int, base: int) -> PositionedFrames:
        """Return the flush of a record that carries its value. Raises: Corrupt."""
        at = (partition, base, stored.offset)
        known = self._kept.get(at)
        if known is not None and known[0] == stored:  # another log may have another record there
            return known[1]
        flush = decoded(stored, partition, base, stored.value)
        self._kept.put(at, (stored, flush), len(stored.value))
        return flush
