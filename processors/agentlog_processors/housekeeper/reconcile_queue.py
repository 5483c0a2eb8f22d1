"""Reconciler of the run queue with the rows: pushes missing ready runs again, and delayed runs when they are due.

The queue is a cache of the rows. If the process dies here: the next pass of any housekeeper does the same; a run whose
id is in a list twice is claimed once.
"""

import asyncio
import logging
from collections import defaultdict

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId
from agentlog_facts.ports import RunQueue
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import WorkerTimeouts
from agentlog_processors.runtime.service import pause
from agentlog_projections.queries.worker import WorkerQueries

log = logging.getLogger(__name__)

READY = 10_000
"""Most ready runs that one pass pushes; the oldest come first, the next pass takes the rest."""


class ReconcileQueue:
    """Compares rows and lists every `reconcile`, when a delayed run is due, and when Redis was emptied."""

    name = "reconcile_queue"

    def __init__(self, queries: WorkerQueries, queue: RunQueue, timeouts: WorkerTimeouts) -> None:
        self._queries = queries
        self._queue = queue
        self._timeouts = timeouts
        self._instance = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Reconcile until stopped."""
        clock = asyncio.get_running_loop().time
        due = clock()
        while not stop.is_set():
            try:
                if clock() >= due or await self._emptied():
                    await self.reconcile()
                    due = clock() + await self._next_s()
            except Unavailable as error:
                log.warning("reconciler.unavailable", extra={"error": str(error)})
                due = clock() + timeouts.REDIS_CHECK_S
            await pause(stop, min(timeouts.REDIS_CHECK_S, max(due - clock(), timeouts.RECONCILER_LEAST_PAUSE_S)))

    async def reconcile(self) -> int:
        """Push the ready runs that the queue lacks; return their number. Raises: Unavailable."""
        ready: defaultdict[str, list[RunId]] = defaultdict(list)
        for run in await self._queries.ready(READY):
            ready[run.queue].append(run.run_id)
        pushed = 0
        for queue, run_ids in ready.items():
            queued = await self._queue.queued(queue)
            missing = [run_id for run_id in run_ids if run_id not in queued]
            if missing:
                await self._queue.push(queue, missing)
                pushed += len(missing)
        if pushed:
            log.info("queue.reconciled", extra={"pushed": pushed})
        return pushed

    async def _emptied(self) -> bool:
        """Return whether Redis was emptied or replaced since the last pass."""
        instance = await self._queue.instance()
        emptied = instance != self._instance
        self._instance = instance
        return emptied

    async def _next_s(self) -> float:
        """Return the seconds until the next pass: `reconcile`, or less if a delayed run is due earlier."""
        next_due = await self._queries.next_due()
        interval = self._timeouts.reconcile
        return (interval if next_due is None else min(interval, next_due)).total_seconds()
