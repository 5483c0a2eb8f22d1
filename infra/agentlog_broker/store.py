"""Store: the single owner of all stored data, with appends, reads, retention and the freeing of space.

Only the event loop's thread touches the state. Other threads write the log (`wal`), cut full files into segments and
read old segments; they hand their results back to the loop.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from time import time

from . import manifest
from .catalog import Catalog, Operation, Topic, pack
from .config_rules import forgets_by_age, number
from .cutting import Cut, Target, cut_file
from .disk import Disk
from .errors import BrokerError, StorageFailed
from .frames import FRAME_HEADER_BYTES, JOURNAL, check_payload, file_name
from .manifest import Marks, segment_directory
from .partitions import Partition, expired_until
from .recovery import recover
from .segments import Segment, SegmentIndex
from .settings import BrokerSettings
from .wal import Append, Wal, WalListener

log = logging.getLogger("agentlog_broker")

_INDEXES_KEPT = 8
_NEWEST_BYTES = 1 << 16
_CHORE_RETRIES = 5  # a failed chore is retried after this many pauses of a failed write


class NewBatch:
    """Batch to be written: its partition, its offsets, and its bytes."""

    __slots__ = ("base", "last", "max_ms", "partition", "payload")

    def __init__(self, partition: Partition, base: int, last: int, max_ms: int, payload: bytes) -> None:
        self.partition = partition
        self.base = base
        self.last = last
        self.max_ms = max_ms
        self.payload = payload


class BatchAppend(Append):
    """Append of the batches of one request."""

    __slots__ = ("batches",)

    def __init__(self, batches: list[NewBatch], done: Callable[[Append, StorageFailed | None], None]) -> None:
        Append.__init__(self, [(batch.partition.uid, batch.payload) for batch in batches], done)
        self.batches = batches


class Store(WalListener):
    """Data directory of the running server."""

    def __init__(self, settings: BrokerSettings, disk: Disk) -> None:
        self._settings = settings
        self._disk = disk
        self._dir = settings.data_dir
        self._loop = asyncio.get_running_loop()
        self._wal = Wal(self._dir, disk, settings.wal_file_bytes, self, self._loop)
        self._cutter = ThreadPoolExecutor(1, "cut")
        self._readers = ThreadPoolExecutor(2, "read")
        self._read_fds: dict[int, int] = {}
        self._sealed: dict[int, int] = {}  # files that are not cut yet, oldest first: sequence -> end
        self._first_wal = 1
        self._durable = (0, 0)
        self._chores: asyncio.Task[None] | None = None
        self._wake_chores = asyncio.Event()
        self._rolled_at = self._loop.time()
        self._manifest_due = False
        self._indexes: dict[Segment, SegmentIndex] = {}
        self._index_lock = Lock()  # two reader threads
        self.catalog = Catalog(settings.producers_per_partition_max, settings.max_message_bytes)
        self.read_only: StorageFailed | None = None
        self.failed = asyncio.Event()
        self.on_pressure: Callable[[], None] = lambda: None  # called when the queue for the disk gets long, or shorter

    # -- life

    def open(self) -> None:
        """Recover the directory and start writing. Raises: Damaged, OSError."""
        found = recover(self._dir, self.catalog)
        self._first_wal, self._sealed = found.first_wal, found.sealed
        self._durable = (found.end.sequence, found.end.position)
        self._wal.start(found.end, found.proven)
        if self._sealed:
            self._wake_chores.set()
        self._chores = self._loop.create_task(self._do_chores())
        self._chores.add_done_callback(self._chores_ended)

    def _chores_ended(self, chores: "asyncio.Task[None]") -> None:
        """Make the server end: without its chores the log would grow until the disk is full."""
        if not chores.cancelled() and (error := chores.exception()) is not None:
            log.critical("storage.chores_ended", exc_info=error)
            self.failed.set()

    async def close(self) -> None:
        """Write and sync everything, and record that in the manifest."""
        if self._chores is not None:
            self._chores.cancel()
            await asyncio.gather(self._chores, return_exceptions=True)
        end = await asyncio.to_thread(self._wal.stop)
        await asyncio.sleep(0)  # let the reports of the last round arrive
        if self.read_only is None:
            self._durable = (end.sequence, end.position)
            await self._write_manifest()
        self._cutter.shutdown()
        self._readers.shutdown()
        for fd in self._read_fds.values():
            os.close(fd)

    # -- appends

    @property
    def pending_bytes(self) -> int:
        """Return the size of all appends that are queued and not on disk yet."""
        return self._wal.pending_bytes

    def append(self, batches: list[NewBatch], done: Callable[[Append, StorageFailed | None], None]) -> None:
        """Queue batches; `done` is called when they are on disk and visible, or with the failure."""
        self._wal.append(BatchAppend(batches, done))
        if self._wal.pending_bytes >= self._settings.max_unwritten_bytes:
            self.on_pressure()

    async def journal(self, operation: Operation) -> None:
        """Make a change of the catalog durable, then apply it. Raises: StorageFailed."""
        if self.read_only is not None:
            raise self.read_only
        finished: asyncio.Future[None] = self._loop.create_future()

        def done(_: Append, failure: StorageFailed | None) -> None:
            if failure is None:
                self._drop(self.catalog.apply(operation))
            if finished.cancelled():
                return
            if failure is None:
                finished.set_result(None)
            else:
                finished.set_exception(failure)

        self._wal.append(Append([(JOURNAL, pack(operation))], done))
        await finished

    def _drop(self, partitions: list[Partition]) -> None:
        for partition in partitions:
            for waiter in list(partition.waiters):
                waiter()
        if partitions:
            self._wake_chores.set()

    # -- what the log reports

    def round_done(self, appends: list[Append], failure: StorageFailed | None) -> None:
        """See `WalListener`."""
        if failure is not None and self.read_only is None:
            self._go_read_only(failure)
        woken: set[Callable[[], None]] = set()
        for append in appends:
            if failure is None and isinstance(append, BatchAppend) and append.batches:
                self._make_visible(append, woken)
            append.done(append, failure)
        for waiter in woken:
            waiter()
        self.on_pressure()

    def _make_visible(self, append: BatchAppend, woken: set[Callable[[], None]]) -> None:
        places = zip(append.batches, append.sequences, append.positions, strict=True)
        for batch, sequence, position in places:
            partition = batch.partition
            partition.durable(batch.base, batch.last, batch.max_ms, sequence, position, len(batch.payload))
            partition.newest = (batch.base, batch.payload) if len(batch.payload) <= _NEWEST_BYTES else None
            if partition.waiters:
                woken |= partition.waiters
        last = append.batches[-1]
        self._durable = (append.sequences[-1], append.positions[-1] + len(last.payload))

    def _go_read_only(self, failure: StorageFailed) -> None:
        self.read_only = failure
        for partition in self.catalog.partitions.values():
            partition.roll_back()
        self._loop.call_later(self._settings.storage_retry_s, self._retry)

    def _retry(self) -> None:
        if self.read_only is not None:
            self._wal.resume()
            self._loop.call_later(self._settings.storage_retry_s, self._retry)

    def writable_again(self) -> None:
        """See `WalListener`."""
        self.read_only = None
        self._wake_chores.set()

    def file_sealed(self, sequence: int, end: int) -> None:
        """See `WalListener`."""
        self._sealed[sequence] = end
        self._rolled_at = self._loop.time()
        self._wake_chores.set()

    # -- reads

    async def read(self, partition: Partition, offset: int, max_bytes: int) -> bytes:
        """Return batches from the one that holds `offset` on, none if it has expired. Raises: Damaged, OSError."""
        if self.in_tail(partition, offset):
            return self.read_tail(partition, offset, max_bytes)
        segment = next((each for each in partition.segments if each.base <= offset < each.next), None)
        if segment is None:
            return b""
        return await self._loop.run_in_executor(self._readers, self._read_segment, segment, offset, max_bytes)

    @staticmethod
    def in_tail(partition: Partition, offset: int) -> bool:
        """Return whether an offset is still in the write-ahead files, so that reading it needs no thread."""
        return offset >= partition.cut_next

    def read_tail(self, partition: Partition, offset: int, max_bytes: int) -> bytes:
        """Return visible batches from the write-ahead files. Raises: Damaged, OSError."""
        newest = partition.newest
        if newest is not None and offset >= newest[0]:
            return newest[1]
        tail = partition.tail
        number, count = tail.find(offset), len(tail)
        parts: list[bytes | memoryview] = []
        room = max_bytes
        while number < count and (not parts or tail.sizes[number] <= room):
            parts.append(
                self._read_batch(partition.uid, tail.sequences[number], tail.positions[number], tail.sizes[number])
            )
            room -= tail.sizes[number]
            number += 1
        return b"".join(parts)

    def _read_batch(self, uid: int, sequence: int, position: int, size: int) -> memoryview:
        fd = self._read_fds.get(sequence)
        if fd is None:
            fd = self._read_fds[sequence] = os.open(self._dir / file_name(sequence), os.O_RDONLY)
        stored = os.pread(fd, size + FRAME_HEADER_BYTES, position - FRAME_HEADER_BYTES)
        return check_payload(self._dir / file_name(sequence), position, stored, uid)

    def _index_of(self, segment: Segment) -> SegmentIndex:
        with self._index_lock:
            index = self._indexes.pop(segment, None) or SegmentIndex(segment)
            self._indexes[segment] = index  # the least recently used index comes first and is dropped first
            while len(self._indexes) > _INDEXES_KEPT:
                del self._indexes[next(iter(self._indexes))]
            return index

    def _read_segment(self, segment: Segment, offset: int, max_bytes: int) -> bytes:
        index = self._index_of(segment)
        return index.read(index.find(offset), max_bytes)

    async def batch_at_or_after(self, partition: Partition, time_ms: int) -> bytes | None:
        """Return the first visible batch that has a record at or after a time, None beyond the end."""
        for segment in partition.segments:
            if segment.max_ms >= time_ms and segment.next > partition.start:
                found = await self._loop.run_in_executor(self._readers, self._find_time, segment, time_ms)
                if found is not None:
                    return found
        tail = partition.tail
        for at, max_ms in enumerate(tail.times_ms):
            if max_ms >= time_ms and tail.lasts[at] >= partition.start:
                return bytes(self._read_batch(partition.uid, tail.sequences[at], tail.positions[at], tail.sizes[at]))
        return None

    def _find_time(self, segment: Segment, time_ms: int) -> bytes | None:
        index = self._index_of(segment)
        number = index.at_or_after(time_ms)
        return None if number is None else index.read(number, 1)

    # -- chores: cutting, retention, deleting

    async def _do_chores(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._wake_chores.wait(), self._settings.retention_check_s)
            except TimeoutError:
                await self._roll_old_file()
            self._wake_chores.clear()
            try:
                await self._cut_sealed()
                await self._free_space()
            except (OSError, BrokerError) as error:
                log.error("storage.chore_failed", extra={"error": str(error)})
                self._loop.call_later(_CHORE_RETRIES * self._settings.storage_retry_s, self._wake_chores.set)

    async def _roll_old_file(self) -> None:
        if self._loop.time() - self._rolled_at >= self._settings.wal_max_age_s:
            self._rolled_at = self._loop.time()
            self._wal.roll()

    async def _cut_sealed(self) -> None:
        while self._sealed:
            sequence, end = next(iter(self._sealed.items()))
            path = self._dir / file_name(sequence)
            targets = {p.uid: self._target(p) for p in self.catalog.partitions.values()}
            cuts = await self._loop.run_in_executor(self._cutter, cut_file, path, end, targets, self._disk)
            for uid, cut in cuts.items():
                partition = self.catalog.partitions.get(uid)
                if partition is not None:
                    _apply_cut(partition, cut, sequence)
            del self._sealed[sequence]
            self._first_wal = sequence + 1
            self._manifest_due = True
            log.info("storage.file_cut", extra={"file": path.name, "partitions": len(cuts)})
            await self._record_cuts()
        await self._record_cuts()

    async def _record_cuts(self) -> None:
        """Write the cuts to the manifest and delete the files that were cut; retry this if it failed before."""
        if self._manifest_due:
            await self._write_manifest()
            self._manifest_due = False
            self._remove_cut_files()

    def _remove_cut_files(self) -> None:
        """Delete files that the manifest on disk no longer needs, also those that an earlier failure has left."""
        for path in self._dir.glob("wal-*.log"):
            sequence = int(path.stem.removeprefix("wal-"))
            if sequence < self._first_wal:
                fd = self._read_fds.pop(sequence, None)
                if fd is not None:
                    os.close(fd)
                path.unlink()

    def _target(self, partition: Partition) -> Target:
        size = number(self.catalog.topics[partition.topic].configs, "segment.bytes", self._settings)
        directory = segment_directory(self._dir, partition.uid)
        last = partition.segments[-1] if partition.segments else None
        return Target(partition.uid, directory, partition.start, last, size)

    async def _write_manifest(self) -> None:
        snapshot = manifest.snapshot(self.catalog, Marks(self._first_wal, self._durable))
        await self._loop.run_in_executor(self._cutter, manifest.write, self._dir, snapshot, self._disk)

    async def _free_space(self) -> None:
        await self._expire()
        for partition in self.catalog.partitions.values():
            while partition.segments and partition.segments[0].next <= partition.start:
                self._forget(partition.segments.pop(0))
        for directory in (self._dir / "segments").glob("*"):
            if int(directory.name) not in self.catalog.partitions:
                await asyncio.to_thread(shutil.rmtree, directory)

    def _forget(self, segment: Segment) -> None:
        with self._index_lock:
            self._indexes.pop(segment, None)
        segment.remove()

    async def _expire(self) -> None:
        """Move the start of partitions past the segments that their topic's retention no longer keeps."""
        now_ms = int(time() * 1000)
        starts: list[tuple[int, int]] = []
        stale_tail = False
        for topic in self.catalog.topics.values():
            if topic.name in self._settings.endless_topics:
                continue  # it may have got a retention before it was declared endless
            keep_ms = number(topic.configs, "retention.ms", self._settings)
            keep_bytes = number(topic.configs, "retention.bytes", self._settings)
            if not forgets_by_age(topic.configs):
                continue
            if keep_ms < 0 and keep_bytes < 0:
                continue
            for partition in topic.partitions:
                offset = expired_until(partition, now_ms - keep_ms if keep_ms >= 0 else None, keep_bytes)
                if offset > partition.start:
                    starts.append((partition.uid, offset))
                tail = partition.tail
                stale_tail |= keep_ms >= 0 and len(tail) > 0 and tail.times_ms[0] < now_ms - keep_ms
        if starts and self.read_only is None:
            await self.journal({"op": "start_moved", "starts": starts})
            log.info("storage.retention_applied", extra={"partitions": len(starts)})
        if stale_tail and self._loop.time() - self._rolled_at >= self._settings.retention_check_s:
            self._wal.roll()

    def partition_starts_moved(self) -> None:
        """Schedule the freeing of space."""
        self._wake_chores.set()

    async def delete_topic(self, topic: Topic) -> None:
        """Delete a topic with its records. Raises: StorageFailed."""
        await self.journal({"op": "topic_deleted", "name": topic.name, "uids": [p.uid for p in topic.partitions]})


def _apply_cut(partition: Partition, cut: Cut, sequence: int) -> None:
    if cut.extended is not None:
        partition.segments[-1] = cut.extended
    partition.segments += cut.segments
    partition.tail.drop_files_through(sequence)
    partition.cut_next = cut.next
    for note in cut.producers:
        partition.cut_producers.note(*note)
