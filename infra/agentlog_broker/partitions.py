"""Partition of a topic: its batches, the offsets that readers may see, and the readers that wait for more."""

from array import array
from bisect import bisect_right
from collections.abc import Callable

from .producers import Producers
from .segments import Segment

Waiter = Callable[[], None]


class Tail:
    """Batches of a partition that are still in write-ahead files, in offset order."""

    __slots__ = ("bases", "lasts", "positions", "sequences", "sizes", "times_ms")

    def __init__(self) -> None:
        self.bases = array("q")
        self.lasts = array("q")
        self.times_ms = array("q")
        self.sequences = array("q")
        self.positions = array("q")
        self.sizes = array("q")

    def __len__(self) -> int:
        return len(self.bases)

    def add(self, base: int, last: int, max_ms: int, sequence: int, position: int, size: int) -> None:
        """Append the next batch."""
        self.bases.append(base)
        self.lasts.append(last)
        self.times_ms.append(max_ms)
        self.sequences.append(sequence)
        self.positions.append(position)
        self.sizes.append(size)

    def find(self, offset: int) -> int:
        """Return the index of the batch that holds an offset."""
        return max(0, bisect_right(self.bases, offset) - 1)

    def drop_files_through(self, sequence: int) -> None:
        """Remove the batches of sealed files, which are now in segments."""
        count = bisect_right(self.sequences, sequence)
        for column in (self.bases, self.lasts, self.times_ms, self.sequences, self.positions, self.sizes):
            del column[:count]


class Partition:
    """Partition of a topic.

    `start` <= a readable offset < `high` <= `next`. `next` rises when a batch is queued, `high` only when the batch is
    on disk.
    """

    __slots__ = (
        "cut_next",
        "cut_producers",
        "gone",
        "high",
        "index",
        "newest",
        "next",
        "producers",
        "segments",
        "start",
        "tail",
        "topic",
        "uid",
        "waiters",
    )

    def __init__(self, uid: int, topic: str, index: int, producers_max: int) -> None:
        self.uid = uid
        self.topic = topic
        self.index = index
        self.start = 0
        self.high = 0
        self.next = 0
        self.segments: list[Segment] = []
        self.tail = Tail()
        self.producers = Producers(producers_max)
        self.cut_producers = Producers(producers_max)  # as of the end of the segments, for the manifest
        self.cut_next = 0  # records below it are in segments, the others in write-ahead files
        self.newest: tuple[int, bytes] | None = None  # base and bytes of the last batch, for readers at the tail
        self.gone = False  # its topic was deleted
        self.waiters: set[Waiter] = set()

    def durable(self, base: int, last: int, max_ms: int, sequence: int, position: int, size: int) -> None:
        """Make a batch visible that is now on disk."""
        self.tail.add(base, last, max_ms, sequence, position, size)
        self.high = last + 1

    def roll_back(self) -> None:
        """Remove the batches that were queued and never reached the disk."""
        self.next = self.high
        self.producers.forget_from(self.high)

    @property
    def size_bytes(self) -> int:
        """Return the size of all batches of the partition."""
        return sum(segment.size_bytes for segment in self.segments) + sum(self.tail.sizes)


def expired_until(partition: Partition, older_than_ms: int | None, keep_bytes: int) -> int:
    """Return the offset below which whole segments may be deleted."""
    offset, size = partition.start, partition.size_bytes
    for segment in partition.segments:
        too_old = older_than_ms is not None and segment.max_ms < older_than_ms
        too_much = keep_bytes >= 0 and size - segment.size_bytes >= keep_bytes
        if not (too_old or too_much):
            break
        offset, size = segment.next, size - segment.size_bytes
    return offset
