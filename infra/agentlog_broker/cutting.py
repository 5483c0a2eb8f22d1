"""Cut of a full write-ahead file into segments: its batches are grouped by partition, written and synced.

The cut runs in a thread of its own and touches only files; the store applies its result in the event loop. A crash in
between is harmless: lengths count only once they are in the manifest, and the file is cut again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .batches import read_header
from .disk import Disk
from .frames import JOURNAL, MARK, scan
from .segments import Segment, Stored, extend

ProducerNote = tuple[int, int, int, int, int]  # producer id, epoch, first sequence, count, base offset


@dataclass(frozen=True, slots=True)
class Target:
    """Destination for the batches of one partition."""

    uid: int
    directory: Path
    start: int
    open_segment: Segment | None
    segment_bytes: int


@dataclass(slots=True)
class Cut:
    """Result for one partition: `extended` replaces its last segment, `segments` follow after that one."""

    next: int = 0
    extended: Segment | None = None
    segments: list[Segment] = field(default_factory=list[Segment])
    producers: list[ProducerNote] = field(default_factory=list[ProducerNote])


@dataclass(slots=True)
class _Batches:
    kept: list[Stored] = field(default_factory=list[Stored])
    producers: list[ProducerNote] = field(default_factory=list[ProducerNote])
    next: int = 0


def cut_file(path: Path, end: int, targets: Mapping[int, Target], disk: Disk) -> dict[int, Cut]:
    """Write the batches of one sealed file into segments. Raises: OSError, Damaged.

    The file is read, not mapped: a bad sector under a map is a signal that ends the process.
    """
    collected = _collect(path, memoryview(path.read_bytes()), end, targets)
    touched: list[Segment] = []
    try:
        return {uid: _write(targets[uid], batches, disk, touched) for uid, batches in collected.items()}
    except OSError:
        _undo(touched)
        raise


def _collect(path: Path, view: memoryview, end: int, targets: Mapping[int, Target]) -> dict[int, _Batches]:
    collected: dict[int, _Batches] = {}
    for frame in scan(path, view, end):
        target = targets.get(frame.target)
        if frame.target in (JOURNAL, MARK) or target is None:
            continue
        header = read_header(frame.payload)
        batches = collected.setdefault(target.uid, _Batches())
        last = header.base_offset + header.last_delta
        batches.next = last + 1
        if header.producer_id >= 0:
            note = (header.producer_id, header.producer_epoch, header.base_sequence, header.records, header.base_offset)
            batches.producers.append(note)
        if last >= target.start:
            batches.kept.append(Stored(header.base_offset, last, header.max_ms, frame.payload))
    return collected


def _undo(touched: list[Segment]) -> None:
    """Free the space of a failed cut: on a full disk the log itself needs it."""
    for segment in touched:
        if segment.entries == 0:
            segment.remove()
        else:
            segment.check_files()


def _write(target: Target, batches: _Batches, disk: Disk, touched: list[Segment]) -> Cut:
    cut = Cut(next=batches.next, producers=batches.producers)
    if not batches.kept:
        return cut
    made = not target.directory.exists()
    target.directory.mkdir(parents=True, exist_ok=True)
    current = target.open_segment
    if current is not None and (current.next != batches.kept[0].base or current.size_bytes >= target.segment_bytes):
        current = None
    for part in _parts(
        batches.kept, target.segment_bytes - (current.size_bytes if current else 0), target.segment_bytes
    ):
        if current is not None:
            touched.append(current)
            cut.extended = extend(current, part, disk)
            current = None
        else:
            empty = Segment(target.directory, target.uid, part[0].base, part[0].base, 0, 0, 0)
            touched.append(empty)
            cut.segments.append(extend(empty, part, disk))
    disk.sync_directory(target.directory)
    if made:
        disk.sync_directory(target.directory.parent)
        disk.sync_directory(target.directory.parent.parent)
    return cut


def _parts(batches: Iterable[Stored], room: int, segment_bytes: int) -> Iterable[list[Stored]]:
    """Split batches so that no part is larger than a segment, unless one batch alone is."""
    part: list[Stored] = []
    for batch in batches:
        if part and room < len(batch.payload):
            yield part
            part, room = [], segment_bytes
        part.append(batch)
        room -= len(batch.payload)
    yield part
