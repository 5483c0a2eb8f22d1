"""How much one reader of a live tail may fall behind: a bounded buffer, and what happens past its bound."""

import asyncio
from collections.abc import Callable, Sequence

from agentlog_facts.errors import SlowReader
from agentlog_facts.ports import PositionedFrames

MAX_FLUSHES = 512
MAX_BYTES = 4 * 1024 * 1024


class FrameBuffer:
    """Keeps `ports.FrameTail`: a single task reads, whoever reads the log puts. `leave` is called once, at its end."""

    def __init__(self, start: int, leave: Callable[["FrameBuffer"], None]) -> None:
        self._start = start
        self._leave = leave
        self._flushes: list[PositionedFrames] = []
        self._bytes = 0
        self._slow = False
        self._poked = False
        self._gone = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def start(self) -> int:
        """Return the position from which on every flush of the thread is seen here."""
        return self._start

    def put(self, flush: PositionedFrames, size_bytes: int) -> None:
        """Hand over a flush; the first that passes the bound makes the reader read on from the log."""
        self._bytes += size_bytes
        if self._flushes and (self._bytes > MAX_BYTES or len(self._flushes) >= MAX_FLUSHES):
            self.overflow()
            return
        self._flushes.append(flush)
        self._wake()

    def overflow(self) -> None:
        """Drop everything: from here on the reader is served by the log."""
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
        if not self._gone:
            self._gone = True
            self._leave(self)

    async def next(self) -> Sequence[PositionedFrames]:
        """Return what has arrived, waiting for the first; nothing when poked. Raises: SlowReader."""
        if not (self._flushes or self._poked or self._slow):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._poked = False
        if self._slow:
            raise SlowReader(f"a reader from {self._start} on fell more than {MAX_FLUSHES} flushes or bytes behind")
        taken, self._flushes, self._bytes = self._flushes, [], 0
        return taken

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
