"""Bounded buffer between a live tail and one reader; a reader that falls behind continues from the log."""

import asyncio
from collections.abc import Callable, Sequence

from agentlog_facts.errors import SlowReader
from agentlog_facts.ports import PositionedFrames

MAX_FLUSHES = 512
MAX_BYTES = 4 * 1024 * 1024


class FrameBuffer:
    """Implements `ports.FrameTail`: one task reads, and the tail of the partition puts. `leave` is called once, at the
    close.
    """

    def __init__(self, start: int, leave: Callable[["FrameBuffer"], None]) -> None:
        self._start = start
        self._leave = leave
        self._flushes: list[PositionedFrames] = []
        self._bytes = 0
        self._slow = False
        self._poked = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def start(self) -> int:
        """Return the position from which this buffer gets every flush of the thread."""
        return self._start

    def put(self, flush: PositionedFrames, size_bytes: int) -> None:
        """Add a flush; the first one past the bound makes the reader continue from the log."""
        self._bytes += size_bytes
        if self._flushes and (self._bytes > MAX_BYTES or len(self._flushes) >= MAX_FLUSHES):
            self.overflow()
            return
        self._flushes.append(flush)
        self._wake()

    def overflow(self) -> None:
        """Drop everything: the reader continues from the log."""
        self._slow = True
        self._flushes.clear()
        self.close()
        self._wake()

    def poke(self) -> None:
        """Make `next` return."""
        self._poked = True
        self._wake()

    def close(self) -> None:
        """Stop listening."""
        if not self._closed:
            self._closed = True
            self._leave(self)

    async def next(self) -> Sequence[PositionedFrames]:
        """Return the flushes that have arrived, waiting for the first; none when poked. Raises: SlowReader."""
        if not (self._flushes or self._poked or self._slow):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._poked = False
        if self._slow:
            raise SlowReader(f"reader from {self._start}: over {MAX_FLUSHES} flushes or {MAX_BYTES} bytes behind")
        taken, self._flushes, self._bytes = self._flushes, [], 0
        return taken

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
