"""Decides that one process reads each hint once, however many of its parts listen."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from agentlog_facts.notification import Hint
from agentlog_facts.ports import HintFeed

BUFFERED = 4096
"""Hints that a slow listener may be behind; then the oldest are lost to it, as hints may be."""


class Listening(Protocol):
    """Whoever reads the feed already."""

    def listen(self, listener: Callable[[Hint], None]) -> None:
        """Call `listener` with every hint from now on."""
        ...


class SharedHints:
    """Keeps `ports.HintFeed` over a subscription that is there already."""

    def __init__(self, feed: HintFeed, source: Listening) -> None:
        self._feed = feed
        self._queues: set[asyncio.Queue[Hint]] = set()
        source.listen(self._hear)

    async def publish(self, hints: Sequence[Hint]) -> None:
        """Announce to every process."""
        await self._feed.publish(hints)

    @asynccontextmanager
    async def subscribe(self) -> AsyncGenerator[AsyncIterator[Hint]]:
        """Yield hints from now on."""
        queue: asyncio.Queue[Hint] = asyncio.Queue(BUFFERED)
        self._queues.add(queue)
        try:
            yield _each(queue)
        finally:
            self._queues.discard(queue)

    def _hear(self, hint: Hint) -> None:
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(hint)


async def _each(queue: "asyncio.Queue[Hint]") -> AsyncGenerator[Hint]:
    while True:
        yield await queue.get()
