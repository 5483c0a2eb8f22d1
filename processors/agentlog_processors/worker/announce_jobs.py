"""Service that announces the jobs of a worker, so that `GET /metrics` can count those of all workers."""

import asyncio
import logging
from datetime import timedelta
from typing import Protocol

from agentlog_facts.errors import Unavailable
from agentlog_processors.runs.dependencies import WorkerTimeouts
from agentlog_processors.runtime.service import pause

log = logging.getLogger(__name__)


class JobAnnouncer(Protocol):
    """Tells how many runs a worker may execute at once."""

    async def __call__(self, worker: str, jobs: int, ttl: timedelta) -> None:
        """Tell it for a time. Raises: Unavailable."""
        ...


class AnnounceJobs:
    """Announces the jobs of a worker as often and as long as its leases; if that fails, only a figure is wrong."""

    name = "announce_jobs"

    def __init__(self, announce: JobAnnouncer, worker: str, times: WorkerTimeouts) -> None:
        self._announce = announce
        self._worker = worker
        self._times = times

    async def run(self, stop: asyncio.Event) -> None:
        """Announce them until stopped."""
        while not stop.is_set():
            try:
                await self._announce(self._worker, self._times.jobs, self._times.lease_ttl)
            except Unavailable as error:
                log.warning("jobs.not_announced", extra={"worker": self._worker, "error": str(error)})
            await pause(stop, self._times.lease_renew.total_seconds())
