"""The reaper: finds claimed runs whose worker is gone, too slow to stop or over time, and frees or ends them.

If we die here: nothing is remembered but looks, so another reaper starts counting again; a run that was released but
not ended is found as a leftover.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

from agentlog_commands.claims import Claim, ClaimAction, ClaimPolicy, End, Keep, Release, cancelled, given_up
from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_facts.ids import RunId
from agentlog_facts.ports import RunQueue
from agentlog_processors import timeouts
from agentlog_processors.housekeeper.finish_runs import RunFinisher
from agentlog_processors.runs.dependencies import WorkerTimeouts
from agentlog_processors.runtime.service import pause
from agentlog_projections.queries.worker import UnfinishedRun

log = logging.getLogger(__name__)

CLAIMS = 10_000
"""Most claims that one look takes in; the oldest come first."""
AT_ONCE = 16
"""How many runs are freed or ended at the same time: one whose graph hangs holds up itself alone."""


class DeadWorkers(Protocol):
    """What supervisors say about workers that they saw die."""

    def dead_workers(self) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """Yield worker ids, those first that were announced before; ends never."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """What earlier looks know of a claim: looks in a row without a lease, and whether one was ever there."""

    unleased: int = 0
    leased_once: bool = False


class ReapRuns:
    """Looks at every claim each `look` and at each claim's deadline; at once when a supervisor says a worker is dead.

    A request to stop whose grace time is longer than `look` is so seen in time, and its run ends with that time.
    """

    name = "reap_runs"

    def __init__(self, ender: RunFinisher, queue: RunQueue, dead: DeadWorkers, timeouts: WorkerTimeouts) -> None:
        self._ender = ender
        self._queue = queue
        self._feed = dead
        self._timeouts = timeouts
        self._instance = ""
        self._seen: dict[tuple[RunId, int], _Seen] = {}
        self._dead: dict[str, float] = {}
        self._due: datetime | None = None
        self._wake = asyncio.Event()
        self._free = asyncio.Semaphore(AT_ONCE)
        self._doing: dict[RunId, asyncio.Task[None]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Look until stopped; what is under way then is left to the next look, of whomever."""
        listening = asyncio.create_task(self._listen(), name="dead_workers")
        listening.add_done_callback(lambda _: stop.set())
        try:
            while not stop.is_set():
                await self._look_once()
                await pause(stop, self._rest_s(), self._wake)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await self.leave()
        if not listening.cancelled():
            listening.result()

    def _rest_s(self) -> float:
        """Return the seconds until the next look."""
        look_s = self._timeouts.look.total_seconds()
        if self._due is None:
            return look_s
        due_s = (self._due - self._ender.writer.clock.now()).total_seconds()
        return min(look_s, max(due_s, timeouts.REAPER_LEAST_PAUSE_S))

    async def _listen(self) -> None:
        async with self._feed.dead_workers() as workers:
            async for worker in workers:
                log.info("worker.died", extra={"worker": worker})
                self._dead[worker] = self._ender.writer.clock.monotonic()
                self._wake.set()

    async def _look_once(self) -> None:
        try:
            await self.look()
        except Unavailable as error:
            log.warning("reaper.blind", extra={"error": str(error)})
            self._seen.clear()
            self._due = None

    async def look(self) -> None:
        """Look at every claim once and begin to act. Raises: Unavailable when rows cannot be read.

        What takes its time is not waited for: a graph that hangs must not keep the reaper from other runs.
        """
        claims = await self._ender.queries.claims(CLAIMS)
        self._forget()
        leased = await self._leases(claims)
        self._seen = {
            (claim.run_id, claim.epoch): self._after(claim, has_lease)
            for claim, has_lease in zip(claims, leased, strict=True)
        }
        kept: list[datetime] = []
        for claim in claims:
            if claim.run_id in self._doing:
                continue
            judged = await self._judge(claim, claim.worker in self._dead)
            if isinstance(judged, Keep):
                kept.append(claim.deadline(self._timeouts.limits))
            else:
                self._begin(claim.run_id, partial(self._act, claim, judged))
        self._due = min(kept, default=None)
        for left in await self._ender.queries.leftovers(self._timeouts.limits.retries):
            if left.run_id not in self._doing:
                self._begin(left.run_id, partial(self._ender.finish, left.thread_id, left.run_id, _end_of(left)))

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._doing:
            await asyncio.wait(self._doing.values())

    async def leave(self) -> None:
        """Leave what is under way as it is."""
        for doing in self._doing.values():
            doing.cancel()
        await self.idle()

    def _forget(self) -> None:
        """Drop old announcements; a worker's id is never used again, and its last claim shows within seconds."""
        now = self._ender.writer.clock.monotonic()
        self._dead = {worker: at for worker, at in self._dead.items() if now - at < timeouts.DEAD_WORKER_KEPT_S}

    async def _leases(self, claims: Sequence[Claim]) -> Sequence[bool | None]:
        """Return for each claim whether its lease is there; None when Redis cannot tell or was emptied since."""
        try:
            instance = await self._queue.instance()
            leased = await self._queue.leased([(claim.run_id, claim.epoch) for claim in claims])
        except Unavailable as error:
            log.warning("reaper.no_leases", extra={"error": str(error)})
            self._instance = ""
            return [None] * len(claims)
        same, self._instance = instance == self._instance, instance
        return [has_lease or (False if same else None) for has_lease in leased]

    def _after(self, claim: Claim, leased: bool | None) -> _Seen:
        before = self._seen.get((claim.run_id, claim.epoch), _Seen())
        if leased is None:
            return _Seen(0, before.leased_once)
        return _Seen(0 if leased else before.unleased + 1, before.leased_once or leased)

    async def _judge(self, claim: Claim, dead: bool) -> ClaimAction:
        seen = self._seen[claim.run_id, claim.epoch]
        now = self._ender.writer.clock.now()
        judged = ClaimPolicy(claim, seen.unleased, seen.leased_once, dead, now).decide(self._timeouts.limits)
        if isinstance(judged, Keep):
            return judged
        known = await self._ender.queries.with_progress(claim)
        return ClaimPolicy(known, seen.unleased, seen.leased_once, dead, now).decide(self._timeouts.limits)

    async def _act(self, claim: Claim, judged: Release | End) -> None:
        match judged:
            case Release():
                await self._ender.release(claim.thread_id, claim.run_id, claim.epoch, judged)
            case End():
                await self._end(claim, judged)

    async def _end(self, claim: Claim, end: End) -> None:
        counts = end.reason == "retries"
        await self._ender.release(claim.thread_id, claim.run_id, claim.epoch, Release(end.reason, counts), end)
        await self._ender.finish(claim.thread_id, claim.run_id, end)

    def _begin(self, run_id: RunId, act: Callable[[], Awaitable[object]]) -> None:
        doing = self._doing[run_id] = asyncio.create_task(self._apart(act), name=f"reap-{run_id}")
        doing.add_done_callback(lambda _: self._doing.pop(run_id))

    async def _apart(self, act: Callable[[], Awaitable[object]]) -> None:
        """Act AT_ONCE; one run that cannot be freed now does not hold up the others, a later look tries again."""
        async with self._free:
            try:
                await act()
            except AgentlogError as error:
                log.error("reaper.failed", extra={"error": str(error)})
            except Exception:
                log.exception("reaper.failed")


def _end_of(left: UnfinishedRun) -> End:
    return cancelled(left.cancel) if left.cancel is not None else given_up(left.counted)
