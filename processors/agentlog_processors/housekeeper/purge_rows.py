"""Rows of threads deleted longer ago than `outputs` is kept are erased, a bounded number at a time.

If we die here: the next look, of any housekeeper, erases what is left; two at once skip each other's rows.
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
"""Most threads that one transaction erases; while that many are found the next one follows at once."""

Purge = Callable[[timedelta, int], Awaitable[int]]
"""Erases rows of at most so many threads deleted longer ago than a length of time; returns how many."""


class PurgeRows:
    """Erases what nobody can follow any more; `retention` is that of `outputs`."""

    name = "purge_rows"

    def __init__(
        self, purge: Purge, retention: timedelta, every: timedelta = timeouts.PURGE_INTERVAL, at_once: int = AT_ONCE
    ) -> None:
        self._purge = purge
        self._retention = retention
        self._every_s = every.total_seconds()
        self._at_once = at_once

    async def run(self, stop: asyncio.Event) -> None:
        """Erase until stopped; rows that cannot be reached are tried again at the next look."""
        while not stop.is_set():
            try:
                await self._all(stop)
            except Unavailable as error:
                log.warning("purge.unavailable", extra={"error": str(error)})
            await pause(stop, self._every_s)

    async def _all(self, stop: asyncio.Event) -> None:
        gone = found = await self._purge(self._retention, self._at_once)
        while found == self._at_once and not stop.is_set():
            found = await self._purge(self._retention, self._at_once)
            gone += found
        if gone:
            log.info("purge.erased", extra={"threads": gone})
