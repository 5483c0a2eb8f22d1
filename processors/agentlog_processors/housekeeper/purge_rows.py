"""Purge of the rows of threads that were deleted longer ago than the retention of `outputs`, in bounded batches.

If the process dies here: the next pass of any housekeeper erases the rest; two at the same time skip each other's rows.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from agentlog_facts.errors import Unavailable
from agentlog_processors import timeouts
from agentlog_processors.runtime.service import pause

log = logging.getLogger(__name__)

AT_ONCE = 1_000
"""Most threads that one transaction erases. If it finds this many, the next one follows at once."""

Purge = Callable[[timedelta, int], Awaitable[int]]
"""Erases the rows of threads that were deleted before (now - age): at most `limit` threads; returns their number."""


class PurgeRows:
    """Erases deleted threads without readable output; `retention` is that of `outputs`."""

    name = "purge_rows"

    def __init__(
        self, purge: Purge, retention: timedelta, every: timedelta = timeouts.PURGE_INTERVAL, at_once: int = AT_ONCE
    ) -> None:
        self._purge = purge
        self._retention = retention
        self._every_s = every.total_seconds()
        self._at_once = at_once

    async def run(self, stop: asyncio.Event) -> None:
        """Erase until stopped; after an outage of the rows, try again in the next pass."""
        while not stop.is_set():
            try:
                await self._erase_all(stop)
            except Unavailable as error:
                log.warning("purge.unavailable", extra={"error": str(error)})
            await pause(stop, self._every_s)

    async def _erase_all(self, stop: asyncio.Event) -> None:
        erased = found = await self._purge(self._retention, self._at_once)
        while found == self._at_once and not stop.is_set():
            found = await self._purge(self._retention, self._at_once)
            erased += found
        if erased:
            log.info("purge.erased", extra={"threads": erased})
