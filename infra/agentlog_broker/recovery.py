"""Recovery of a data directory: the manifest, then every newer write-ahead file in order, then the leftovers.

Stored bytes that differ from the written ones stop the start with the file and the byte. Only a torn tail of the last
file is left out, because no part of it was ever acknowledged.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from . import manifest
from .batches import read_header
from .catalog import Catalog, unpack
from .errors import Damaged
from .frames import FILE_HEADER_BYTES, JOURNAL, MARK, FileHeader, Frame, Place, file_name, read_file_header, scan
from .manifest import Marks

log = logging.getLogger("agentlog_broker")


@dataclass(frozen=True, slots=True)
class Recovered:
    """End of the log, the position up to which it is proven to be on disk, and the write-ahead files."""

    end: Place
    proven: int
    first_wal: int
    sealed: dict[int, int]


def recover(data_dir: Path, catalog: Catalog) -> Recovered:
    """Rebuild the catalog from the files. Raises: Damaged, OSError."""
    for draft in data_dir.glob("*.new"):
        draft.unlink()
    found = manifest.read(data_dir, catalog)
    marks = found or Marks(1, (0, 0))
    headers = _headers(data_dir, marks)
    if found is None and not headers and any((data_dir / "segments").glob("*/*")):
        raise Damaged(data_dir / "manifest.json", 0, "the file is missing, and so are all write-ahead files")
    end, proven, sealed = Place(0, 0, 0), 0, dict[int, int]()
    for header, after in zip(headers, [*headers[1:], None], strict=False):
        end, proven = _replay(data_dir, catalog, header, after, marks)
        if after is not None:
            sealed[header.sequence] = after.previous_end
    if marks.durable > (end.sequence, end.position):
        path = data_dir / file_name(marks.durable[0])
        raise Damaged(path, end.position, f"the log was on disk up to byte {marks.durable[1]} of this file")
    _check_segments(catalog)
    _remove_leftovers(data_dir, catalog)
    return Recovered(end, proven, headers[0].sequence if headers else 1, sealed)


def _headers(data_dir: Path, marks: Marks) -> list[FileHeader]:
    headers: list[FileHeader] = []
    for path in sorted(data_dir.glob("wal-*.log")):
        with path.open("rb") as file:
            header = read_file_header(path, memoryview(file.read(FILE_HEADER_BYTES)))
        if header.sequence < marks.first_wal:
            path.unlink()
            continue
        expected = marks.first_wal + len(headers)
        if header.sequence != expected:
            raise Damaged(data_dir / file_name(expected), 0, "the file is missing")
        headers.append(header)
    if not headers and marks.first_wal > 1:
        raise Damaged(data_dir / file_name(marks.first_wal), 0, "the file is missing")
    return headers


def _replay(
    data_dir: Path, catalog: Catalog, header: FileHeader, after: FileHeader | None, marks: Marks
) -> tuple[Place, int]:
    """Replay a file; return its end and the position up to which it is known to be on disk."""
    path = data_dir / file_name(header.sequence)
    end = Place(header.sequence, FILE_HEADER_BYTES, header.chain)
    durable = marks.durable[1] if marks.durable[0] == header.sequence else 0
    known_end = after.previous_end if after is not None else None
    proven = max(durable, FILE_HEADER_BYTES)
    view = memoryview(path.read_bytes())  # read, not mapped: a bad sector under a map is a signal, not an error
    for frame in scan(path, view, known_end, durable):
        _apply(path, catalog, frame)
        end, proven = frame.end, max(proven, frame.durable)
    if after is None:
        _note_torn_tail(path, view, end)
    if after is not None and (end.position, end.chain) != (after.previous_end, after.chain):
        raise Damaged(path, end.position, "the file does not end where the next one says")
    return end, proven


def _note_torn_tail(path: Path, view: memoryview, end: Place) -> None:
    if any(view[end.position : end.position + 64]):
        log.warning("storage.torn_tail_cut", extra={"file": path.name, "position": end.position})


def _apply(path: Path, catalog: Catalog, frame: Frame) -> None:
    if frame.target == MARK:
        return
    if frame.target == JOURNAL:
        catalog.apply(unpack(bytes(frame.payload)))
        return
    partition = catalog.partitions.get(frame.target)
    if partition is None:
        return  # its topic was deleted
    batch = read_header(frame.payload)
    if batch.base_offset != partition.next:
        raise Damaged(path, frame.position, f"offset {partition.next} expected, {batch.base_offset} found")
    last = batch.base_offset + batch.last_delta
    partition.durable(batch.base_offset, last, batch.max_ms, frame.end.sequence, frame.position, len(frame.payload))
    partition.next = partition.high
    if batch.producer_id >= 0:
        partition.producers.note(
            batch.producer_id, batch.producer_epoch, batch.base_sequence, batch.records, batch.base_offset
        )


def _check_segments(catalog: Catalog) -> None:
    for partition in catalog.partitions.values():
        for segment in list(partition.segments):
            if segment.next <= partition.start:
                segment.remove()
                partition.segments.remove(segment)
            else:
                segment.check_files()


def _remove_leftovers(data_dir: Path, catalog: Catalog) -> None:
    """Delete files of deleted partitions, and of cuts that are not in the manifest."""
    for directory in (data_dir / "segments").glob("*"):
        partition = catalog.partitions.get(int(directory.name)) if directory.name.isdecimal() else None
        if partition is None:
            shutil.rmtree(directory)
            continue
        known = {path.name for segment in partition.segments for path in (segment.log_path, segment.index_path)}
        for path in directory.iterdir():
            if path.name not in known:
                path.unlink()
