"""Service that announces the jobs of a worker, so that `GET /metrics` can count those of all workers."""

import asyncio
import logging
from datetime import timedelta
from typing import Protocol

from agentlog_facts.errors import Unavailable
from agentlog_processors.runtime.service import pause

log = logging.getLogger(__name__)


class Announce(Protocol):
    """Tells how many runs a worker may execute at once."""

    async def __call__(self, worker: str, jobs: int, ttl: timedelta) -> None:
        """Tell it for a time. Raises: Unavailable."""
        ...


class AnnounceJobs:
    """Announces the jobs of a worker every `renew` for the time `ttl`; if that fails, only a figure is wrong."""

    name = "announce_jobs"

    def __init__(self, announce: Announce, worker: str, jobs: int, renew: timedelta, ttl: timedelta) -> None:
        self._announce = announce
        self._worker = worker
        self._jobs = jobs
        self._renew = renew
        self._ttl = ttl

    async def run(self, stop: asyncio.Event) -> None:
        """Announce them until stopped."""
        while not stop.is_set():
            try:
                await self._announce(self._worker, self._jobs, self._ttl)
            except Unavailable as error:
                log.warning("jobs.not_announced", extra={"worker": self._worker, "error": str(error)})
            await pause(stop, self._renew.total_seconds())
