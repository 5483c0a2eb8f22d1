"""Reaper: releases or ends claimed runs whose worker is lost, too slow to stop or over time.

If the process dies here: the only state is the counts of earlier checks, so another reaper starts counting again. It
finds a run that was released but not ended as an unfinished run.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

from agentlog_commands.claims import (
    Claim,
    ClaimAction,
    ClaimPolicy,
    End,
    Keep,
    Release,
    cancelled,
    given_up,
    is_named,
    never_taken,
    worker_died,
)
from agentlog_facts.errors import AgentlogError, DependencyRefused, Unavailable
from agentlog_facts.ids import RunId
from agentlog_facts.ports import RunQueue
from agentlog_facts.thread import LOST
from agentlog_processors import timeouts
from agentlog_processors.housekeeper.finish_runs import RunFinisher
from agentlog_processors.housekeeper.unserved_graphs import ServedGraphs, UnservedGraphs
from agentlog_processors.runs.dependencies import WorkerTimeouts
from agentlog_processors.runtime.service import pause
from agentlog_projections.queries.worker import UnfinishedRun

log = logging.getLogger(__name__)

CLAIMS = 10_000
"""Most claims that one check reads; the oldest come first."""
AT_ONCE = 16
"""Most runs that are released or ended at the same time. A run whose graph hangs delays only itself."""


class DeadWorkers(Protocol):
    """The announcements of supervisors that a worker has died."""

    def dead_workers(self) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Yield worker ids without end, earlier announcements first."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """History of a claim: the number of checks in a row without a lease, and whether it ever had one."""

    unleased: int = 0
    leased_once: bool = False


class ReapRuns:
    """Checks every claim each `look`, at each claim's deadline, and at once when a supervisor announces a dead worker.

    So it sees a stop request in time if the grace time is longer than `look`, and the run ends when that time is over.
    """

    name = "reap_runs"

    def __init__(
        self,
        finisher: RunFinisher,
        queue: RunQueue,
        dead: DeadWorkers,
        timeouts: WorkerTimeouts,
        served: ServedGraphs = lambda: None,
    ) -> None:
        self._finisher = finisher
        self._unserved = UnservedGraphs(served)
        self._queue = queue
        self._feed = dead
        self._timeouts = timeouts
        self._instance = ""
        self._refused_since: float | None = None
        self._seen: dict[tuple[RunId, int], _Seen] = {}
        self._dead: dict[str, float] = {}
        self._due: datetime | None = None
        self._wake = asyncio.Event()
        self._free = asyncio.Semaphore(AT_ONCE)
        self._actions: dict[RunId, asyncio.Task[None]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Check until stopped; unfinished actions are left to the next check of any housekeeper."""
        listening = asyncio.create_task(self._listen(), name="dead_workers")
        listening.add_done_callback(lambda _: stop.set())
        try:
            while not stop.is_set():
                await self._look_once()
                await pause(stop, self._pause_s(), self._wake)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await self.leave()
        if not listening.cancelled():
            listening.result()

    def _pause_s(self) -> float:
        """Return the seconds until the next check."""
        look_s = self._timeouts.look.total_seconds()
        if self._due is None:
            return look_s
        due_s = (self._due - self._finisher.writer.clock.now()).total_seconds()
        return min(look_s, max(due_s, timeouts.REAPER_LEAST_PAUSE_S))

    async def _listen(self) -> None:
        async with self._feed.dead_workers() as workers:
            async for worker in workers:
                log.info("worker.died", extra={"worker": worker})
                self._dead[worker] = self._finisher.writer.clock.monotonic()
                self._wake.set()

    async def _look_once(self) -> None:
        try:
            await self.look()
        except Unavailable as error:
            log.warning("reaper.rows_unavailable", extra={"error": str(error)})
            self._seen.clear()
            self._due = None

    async def look(self) -> None:
        """Check every claim once and start actions. Raises: Unavailable when rows cannot be read.

        Actions run in parallel: a graph that hangs must not keep the reaper from other runs.
        """
        self._unserved.look(self._finisher.writer.clock.monotonic())  # also while the rows are away
        claims = await self._finisher.queries.claims(CLAIMS)
        self._forget()
        leased = await self._leases(claims)
        self._seen = {
            (claim.run_id, claim.epoch): self._after(claim, has_lease)
            for claim, has_lease in zip(claims, leased, strict=True)
        }
        kept: list[datetime] = []
        for claim in claims:
            if claim.run_id in self._actions:
                continue
            judged = await self._judge(claim, claim.worker in self._dead)
            if isinstance(judged, Keep):
                kept.append(claim.deadline(self._timeouts.limits))
            else:
                self._begin(claim.run_id, partial(self._act, claim, judged))
        self._due = min(kept, default=None)
        for unfinished in await self._finisher.queries.leftovers(self._timeouts.limits.retries):
            if unfinished.run_id not in self._actions:
                finish = partial(self._finisher.finish, unfinished.thread_id, unfinished.run_id, _end_of(unfinished))
                self._begin(unfinished.run_id, finish)

        await self._end_unserved()

    async def _end_unserved(self) -> None:
        """End runs that have waited for their time limit, if no worker served their graph all this time.

        Raises: Unavailable.
        """
        self._unserved.add(await self._finisher.queries.waiting_graphs())
        run_time = self._timeouts.limits.run_time
        graph_ids = self._unserved.for_at_least(run_time)
        if not graph_ids:
            return
        for run in await self._finisher.queries.waiting_long(graph_ids, run_time):
            if run.run_id not in self._actions:
                self._begin(run.run_id, partial(self._end_never_taken, run))

    async def _end_never_taken(self, run: UnfinishedRun) -> None:
        work = await self._finisher.queries.work(run.run_id)
        if work is not None and work.ready:
            await self._finisher.finish(run.thread_id, run.run_id, never_taken(work.graph_id))

    async def idle(self) -> None:
        """Wait until all actions have ended."""
        while self._actions:
            await asyncio.wait(self._actions.values())

    async def leave(self) -> None:
        """Cancel all actions and wait for their end."""
        for action in self._actions.values():
            action.cancel()
        await self.idle()

    def _forget(self) -> None:
        """Drop old announcements. A worker's id is never reused, and its last claim is in the rows within seconds."""
        now = self._finisher.writer.clock.monotonic()
        self._dead = {worker: at for worker, at in self._dead.items() if now - at < timeouts.DEAD_WORKER_KEPT_S}

    async def _leases(self, claims: Sequence[Claim]) -> Sequence[bool | None]:
        """Return for each claim whether it has a lease; None if Redis does not answer or was emptied meanwhile.

        If Redis refuses our reads, no outage ends by itself. Workers find their leases refused too and show on the log
        that their runs are alive, so after `lost_after` the log decides alone.
        """
        try:
            instance = await self._queue.instance()
            leased = await self._queue.leased([(claim.run_id, claim.epoch) for claim in claims])
        except DependencyRefused as error:
            log.error("reaper.leases_refused", extra={"error": str(error)})
            self._instance = ""
            now = self._finisher.writer.clock.monotonic()
            self._refused_since = now if self._refused_since is None else self._refused_since
            long = now - self._refused_since >= self._timeouts.limits.lost_after.total_seconds()
            return [False if long else None] * len(claims)
        except Unavailable as error:
            log.warning("reaper.no_leases", extra={"error": str(error)})
            self._instance = ""
            return [None] * len(claims)
        self._refused_since = None
        same, self._instance = instance == self._instance, instance
        return [has_lease or (False if same else None) for has_lease in leased]

    def _after(self, claim: Claim, leased: bool | None) -> _Seen:
        before = self._seen.get((claim.run_id, claim.epoch), _Seen())
        if leased is None:
            return _Seen(0, before.leased_once)
        return _Seen(0 if leased else before.unleased + 1, before.leased_once or leased)

    async def _judge(self, claim: Claim, dead: bool) -> ClaimAction:
        seen = self._seen[claim.run_id, claim.epoch]
        now = self._finisher.writer.clock.now()
        judged = ClaimPolicy(claim, seen.unleased, seen.leased_once, dead, now).decide(self._timeouts.limits)
        if isinstance(judged, Keep):
            return judged
        known = await self._finisher.queries.with_progress(claim)
        return ClaimPolicy(known, seen.unleased, seen.leased_once, dead, now).decide(self._timeouts.limits)

    async def _act(self, claim: Claim, judged: Release | End) -> None:
        match judged:
            case Release():
                await self._finisher.release(claim.thread_id, claim.run_id, claim.epoch, judged)
            case End():
                await self._end(claim, judged)

    async def _end(self, claim: Claim, end: End) -> None:
        counts = end.reason == "retries" or end.deaths > 0
        reason = LOST if end.deaths else end.reason
        await self._finisher.release(claim.thread_id, claim.run_id, claim.epoch, Release(reason, counts), end)
        await self._finisher.finish(claim.thread_id, claim.run_id, end)

    def _begin(self, run_id: RunId, act: Callable[[], Awaitable[object]]) -> None:
        action = self._actions[run_id] = asyncio.create_task(self._act_safely(act), name=f"reap-{run_id}")
        action.add_done_callback(lambda _: self._actions.pop(run_id))

    async def _act_safely(self, act: Callable[[], Awaitable[object]]) -> None:
        """Act, at most AT_ONCE at a time. A failure does not delay other runs; a later check tries again."""
        async with self._free:
            try:
                await act()
            except AgentlogError as error:
                log.error("reaper.failed", extra={"error": str(error)})
            except Exception:
                log.exception("reaper.failed")


def _end_of(run: UnfinishedRun) -> End:
    if run.cancel is not None:
        return cancelled(run.cancel)
    return worker_died(run.deaths - 1) if is_named(run.deaths) else given_up(run.counted)
