"""Writer of the write-ahead log: one thread writes the queued appends, syncs once, and only then reports them.

Appends that arrive during a sync go into the next round (group commit). A failed write or sync ends the file at the
last position that is known to be on disk. Until a new file has been created, all appends are refused, so that an
acknowledgement always means that the bytes are on disk.
"""

import logging
import os
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Protocol

from .disk import Disk
from .errors import StorageFailed
from .frames import (
    FILE_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    MARK,
    FileHeader,
    Place,
    file_name,
    pack_file_header,
    pack_frame,
)

log = logging.getLogger("agentlog_broker")

_ROUND_BYTES = 8 << 20
_MARK_AFTER_S = 0.25


@dataclass(slots=True)
class Append:
    """Frames that become durable together; `done` is called in the loop with None or the failure.

    After success, `sequences` and `positions` hold the file and the position of each frame's payload.
    """

    frames: list[tuple[int, bytes]]
    done: Callable[["Append", StorageFailed | None], None]
    size_bytes: int = 0
    sequences: list[int] = field(default_factory=list[int])
    positions: list[int] = field(default_factory=list[int])


class WalListener(Protocol):
    """Callbacks to the owner of the log, always in the event loop's thread."""

    def round_done(self, appends: list[Append], failure: StorageFailed | None) -> None:
        """Handle the end of a round: all of its appends are on disk, or none of them counts."""
        ...

    def file_sealed(self, sequence: int, end: int) -> None:
        """Handle a file that is complete and will never be written again."""
        ...

    def writable_again(self) -> None:
        """Handle the end of a failure: appends are accepted again."""
        ...


class _Order:
    """Order to the writer thread, for the time between two rounds."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind


_STOP, _ROLL, _RESUME = _Order("stop"), _Order("roll"), _Order("resume")


class Wal:
    """Write side of the write-ahead files of one data directory."""

    def __init__(
        self, directory: Path, disk: Disk, file_bytes: int, listener: WalListener, loop: AbstractEventLoop
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._file_bytes = file_bytes
        self._listener = listener
        self._loop = loop
        self._queue: SimpleQueue[Append | _Order] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="wal", daemon=True)
        self._fd = -1
        self._size = 0
        self._end = Place(0, 0, 0)  # where the next frame goes
        self._durable = 0  # position in the current file that is on disk
        self._durable_chain = 0
        self._failed: StorageFailed | None = None
        self._opened_at = monotonic()
        self.pending_bytes = 0  # queued and not yet reported; touched in the event loop only

    # -- the loop's side

    def start(self, end: Place, proven: int) -> None:
        """Continue to write at the end that recovery has found; sequence 0 means an empty directory.

        The bytes between `proven` and the end are written again before the sync. If a sync failed before, the kernel
        may hold those bytes as clean although they are on no disk, and would sync nothing.
        """
        if end.sequence == 0:
            self._create(1, 0, 0)
        else:
            self._fd = os.open(self._directory / file_name(end.sequence), os.O_RDWR)
            self._size = os.fstat(self._fd).st_size
            self._end, self._durable, self._durable_chain = end, end.position, end.chain
            unproven = os.pread(self._fd, end.position - proven, proven)
            self._disk.write(self._fd, unproven, proven)
            self._disk.sync(self._fd)
        self._thread.start()

    def append(self, append: Append) -> None:
        """Queue frames; the order of calls is the order on disk."""
        append.size_bytes = sum(len(payload) for _, payload in append.frames)
        self.pending_bytes += append.size_bytes
        self._queue.put(append)

    def roll(self) -> None:
        """Request a new file; the current one is sealed if it holds any frame."""
        self._queue.put(_ROLL)

    def resume(self) -> None:
        """Request a new attempt to write after a failure."""
        self._queue.put(_RESUME)

    def stop(self) -> Place:
        """Write and sync the queued appends, end the thread and return the end of the log. Blocks."""
        self._queue.put(_STOP)
        self._thread.join()
        os.close(self._fd)
        return Place(self._end.sequence, self._durable, self._durable_chain)

    # -- the writer thread's side

    def _run(self) -> None:
        unmarked = False
        while True:
            try:
                item = self._queue.get(timeout=_MARK_AFTER_S if unmarked else None)
            except Empty:
                self._mark()
                unmarked = False
                continue
            if isinstance(item, _Order):
                if item is _STOP:
                    return
                self._carry_out(item)
                continue
            appends, order = self._gather(item)
            self._round(appends)
            unmarked = True
            if order is _STOP:
                return
            if order is not None:
                self._carry_out(order)

    def _gather(self, first: Append) -> tuple[list[Append], _Order | None]:
        """Return the queued appends, in order, up to an order or a size limit."""
        appends, size = [first], first.size_bytes
        while size < _ROUND_BYTES:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            if isinstance(item, _Order):
                return appends, item
            appends.append(item)
            size += item.size_bytes
        return appends, None

    def _round(self, appends: list[Append]) -> None:
        durable: list[Append] = []
        if self._failed is None:
            try:
                self._write(appends, durable)
            except OSError as error:
                self._fail(error)
        if durable:
            self._loop.call_soon_threadsafe(self._report, durable, None)
        if len(durable) < len(appends):
            self._loop.call_soon_threadsafe(self._report, appends[len(durable) :], self._failed)

    def _report(self, appends: list[Append], failure: StorageFailed | None) -> None:
        for append in appends:
            self.pending_bytes -= append.size_bytes
        self._listener.round_done(appends, failure)

    def _write(self, appends: list[Append], durable: list[Append]) -> None:
        """Write and sync; `durable` gets the appends that are on disk. An append never spans two files."""
        waiting, chunks, start = list[Append](), list[bytes](), self._end.position
        for append in appends:
            needed = append.size_bytes + FRAME_HEADER_BYTES * len(append.frames)
            if self._end.position + needed > self._size:
                self._flush(chunks, start)
                durable += waiting
                self._next_file(needed)
                waiting, chunks, start = [], [], self._end.position
            self._place(append, chunks)
            waiting.append(append)
        self._flush(chunks, start)
        durable += waiting

    def _place(self, append: Append, chunks: list[bytes]) -> None:
        sequence, position, chain = self._end
        for target, payload in append.frames:
            header, chain = pack_frame(sequence, target, self._durable, chain, payload)
            chunks += (header, payload)
            append.sequences.append(sequence)
            append.positions.append(position + FRAME_HEADER_BYTES)
            position += FRAME_HEADER_BYTES + len(payload)
        self._end = Place(sequence, position, chain)

    def _flush(self, chunks: list[bytes], start: int) -> None:
        if chunks:
            self._disk.write(self._fd, b"".join(chunks), start)
            self._disk.sync(self._fd)
            self._durable, self._durable_chain = self._end.position, self._end.chain

    def _mark(self) -> None:
        """Write a frame that proves that the last round was on disk; the frame itself needs no sync."""
        sequence, position, chain = self._end
        header, crc = pack_frame(sequence, MARK, self._durable, chain, b"")
        if self._failed is not None or position + len(header) > self._size:
            return
        try:
            self._disk.write(self._fd, header, position)
        except OSError as error:
            self._fail(error)
        else:
            self._end = Place(sequence, position + len(header), crc)

    def _carry_out(self, order: _Order) -> None:
        if order is _RESUME and self._failed is not None:
            try:
                self._next_file(0)
            except OSError as error:
                self._fail(error)
            else:
                self._failed = None
                log.warning("storage.writable_again", extra={"file": file_name(self._end.sequence)})
                self._loop.call_soon_threadsafe(self._listener.writable_again)
        elif order is _ROLL and self._failed is None and self._durable > FILE_HEADER_BYTES:
            try:
                self._next_file(0)
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        if self._failed is None:
            log.error("storage.failed", extra={"errno": error.errno, "error": str(error)})
        self._failed = StorageFailed(str(error))

    def _next_file(self, frame_bytes: int) -> None:
        """Seal the current file at its last position on disk and continue in a new file."""
        sealed, end, old = self._end.sequence, self._durable, self._fd
        self._create(sealed + 1, end, self._durable_chain, frame_bytes)
        os.close(old)
        self._loop.call_soon_threadsafe(self._listener.file_sealed, sealed, end)

    def _create(self, sequence: int, previous_end: int, chain: int, frame_bytes: int = 0) -> None:
        """Create a file, complete and durable before it gets its name, so that a named file always has a header."""
        path = self._directory / file_name(sequence)
        draft = path.with_name(path.name + ".new")
        size = max(self._file_bytes, FILE_HEADER_BYTES + frame_bytes)
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            self._disk.allocate(fd, size)
            self._disk.write(fd, pack_file_header(FileHeader(sequence, previous_end, chain)), 0)
            self._disk.sync(fd)
            draft.rename(path)
            self._disk.sync_directory(self._directory)
        except OSError:
            os.close(fd)
            for leftover in (draft, path):
                leftover.unlink(missing_ok=True)
            raise
        self._fd, self._size = fd, size
        self._end, self._durable, self._durable_chain = (
            Place(sequence, FILE_HEADER_BYTES, chain),
            FILE_HEADER_BYTES,
            chain,
        )
