"""Search for a record by its time, the only code that reads the records inside batches."""

from collections.abc import Iterable
from importlib import import_module
from typing import Protocol


class _Record(Protocol):
    offset: int
    timestamp: int


def first_at_or_after(batch: bytes, time_ms: int, start: int) -> tuple[int, int] | None:
    """Return (offset, time in ms) of the first record at or after a time and not below `start`.

    Raises: the error of the codec if the batch cannot be decompressed.
    """
    # aiokafka reads records and all codecs, but has no types.
    records: Iterable[_Record] = import_module("aiokafka.record.default_records").DefaultRecordBatch(batch)
    for record in records:
        if record.timestamp >= time_ms and record.offset >= start:
            return record.offset, record.timestamp
    return None
