"""The worker's duty: take ready runs from the queue, as many at once as there are slots, and carry each to its end.

If we die here: an id that was popped is pushed again by the reconciler, a claimed run is released by the reaper.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import WorkerDependencies
from agentlog_processors.runtime.service import first
from agentlog_processors.worker.attempt import carry_out, claim, give_back
from agentlog_processors.worker.attempt_control import Attempt, Stuck

log = logging.getLogger(__name__)

FORSAKEN = 16
"""A worker is replaced once code of so many runs that ended by themselves still holds threads: a pool has 64."""


class ExecuteRuns:
    """Pops, claims and executes; on stop it finishes what it has within the grace period, else gives it back."""

    name = "execute_runs"

    def __init__(self, dependencies: WorkerDependencies, active: dict[RunId, Attempt]) -> None:
        self._dependencies = dependencies
        self._active = active
        self._slots = asyncio.Semaphore(dependencies.timeouts.jobs)
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._taken: set[RunId] = set()
        self._again: set[RunId] = set()
        self._orphaned: list[Attempt] = []
        self._unresponsive: list[Attempt] = []
        self._draining = self._giving_back = False
        self._stuck: Stuck | None = None
        self._over = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then drain. Raises: Stuck when user code ignored a request to stop."""
        popping = asyncio.create_task(self._pop_for_ever(), name="pop")
        popping.add_done_callback(lambda _: self._over.set())
        try:
            await first(None, stop, self._over)
        finally:
            await _ended(popping)
            await self._drain()
        if self._stuck is not None:
            raise self._stuck
        if not popping.cancelled():
            popping.result()

    async def _pop_for_ever(self) -> None:
        dependencies = self._dependencies
        while True:
            await self._slots.acquire()
            try:
                run_id = await dependencies.queue.pop(dependencies.graph_ids, dependencies.timeouts.pop)
                found = [] if run_id is None else [run_id]
            except Unavailable as error:
                log.warning("queue.unavailable", extra={"error": str(error)})
                found = await self._ready_rows()
            except BaseException:
                self._slots.release()
                raise
            self._slots.release()
            await self._start(found)

    async def _ready_rows(self) -> list[RunId]:
        """Redis is away: look into PostgreSQL for what is ready, every `pop`."""
        await asyncio.sleep(
            self._dependencies.timeouts.pop.total_seconds()
        )  # the pace of looking, in place of a blocking pop
        try:
            ready = await self._dependencies.queries.ready(self._dependencies.timeouts.jobs)
        except Unavailable as error:
            log.warning("rows.unavailable", extra={"error": str(error)})
            return []
        return [run.run_id for run in ready if run.graph_id in self._dependencies.graph_ids]

    async def _start(self, run_ids: Iterable[RunId]) -> None:
        for run_id in run_ids:
            if run_id in self._taken:
                self._again.add(run_id)  # given back by us and queued anew before we were done with it
            else:
                await self._slots.acquire()
                self._taken.add(run_id)
                task = asyncio.create_task(self._carry(run_id), name=f"run-{run_id}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _carry(self, run_id: RunId) -> None:
        """Carry a run, and once more for each time that it came again meanwhile."""
        try:
            await self._carry_once(run_id)
            while run_id in self._again and not self._draining:
                self._again.discard(run_id)
                await self._carry_once(run_id)
        finally:
            self._again.discard(run_id)
            self._taken.discard(run_id)
            self._slots.release()

    async def _carry_once(self, run_id: RunId) -> None:
        """The outermost place of one run: what goes wrong is logged, the reaper and the reconciler mend it."""
        attempt: Attempt | None = None
        try:
            attempt = await claim(self._dependencies, run_id)
            if attempt is not None and self._giving_back:
                await give_back(self._dependencies, attempt)
            elif attempt is not None:
                self._active[run_id] = attempt
                await carry_out(self._dependencies, attempt)
                if attempt.has_live_threads:
                    self._await_threads(attempt)
        except Stuck as stuck:
            if attempt is not None and attempt.asked == "drain":
                self._unresponsive.append(attempt)
            self._give_up(run_id, stuck)
        except Unavailable as error:
            log.warning("run.unfinished", extra={"run_id": run_id, "error": str(error)})
        except Exception:
            log.exception("run.failed", extra={"run_id": run_id})
        finally:
            self._active.pop(run_id, None)

    def _await_threads(self, attempt: Attempt) -> None:
        """Look after the threads that a run has left behind."""
        leaving = asyncio.create_task(self._watch(attempt), name=f"leaving-{attempt.work.run_id}")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _watch(self, attempt: Attempt) -> None:
        try:
            await attempt.wait_for_threads(self._dependencies)
        except Stuck as stuck:
            if attempt.asked is None and not self._too_many_forsaken(attempt):
                log.warning("run.left_threads", extra={"run_id": attempt.work.run_id, "error": str(stuck)})
            else:
                self._give_up(attempt.work.run_id, stuck)

    def _too_many_forsaken(self, attempt: Attempt) -> bool:
        """Count a run that ended by itself and left code behind: some of it may be meant, but threads are few."""
        self._orphaned = [one for one in (*self._orphaned, attempt) if one.has_live_threads]
        return len(self._orphaned) >= FORSAKEN

    def _give_up(self, run_id: RunId, stuck: Stuck) -> None:
        """Let the worker end: what user code holds on to is freed with its process only."""
        log.error("worker.stuck", extra={"run_id": run_id, "error": str(stuck)})
        self._stuck = stuck
        self._over.set()

    async def _drain(self) -> None:
        """Finish what runs, or give it back. Raises: Unavailable when the log does not take a release."""
        self._draining = True
        log.info("worker.draining", extra={"runs": len(self._tasks)})
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._dependencies.timeouts.grace.total_seconds())
        self._giving_back = True
        for attempt in list(self._active.values()):
            attempt.ask("drain")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeouts.GIVE_BACK_S)
        for leaving in self._leaving:
            leaving.cancel()
        await self._give_back((*self._unresponsive, *self._active.values()))

    async def _give_back(self, deaf: Sequence[Attempt]) -> None:
        """Release what does not stop, as code that blocks its loop: what it still writes is void from there on."""
        for task in self._tasks:
            task.cancel()
        for attempt in deaf:
            log.warning("run.does_not_stop", extra={"run_id": attempt.work.run_id, "epoch": attempt.epoch})
        try:
            async with asyncio.timeout(timeouts.RELEASE_S):
                await asyncio.gather(*(give_back(self._dependencies, attempt) for attempt in deaf))
        except TimeoutError as error:
            raise Unavailable(f"runs were not given back within {timeouts.RELEASE_S:g} s") from error


async def _ended(popping: "asyncio.Task[None]") -> None:
    """Cancel until it is heard: `asyncio.wait_for`, in which clients send, may lose a cancel (Python 3.11)."""
    while not popping.done():
        popping.cancel()
        await asyncio.wait({popping}, timeout=timeouts.POP_CANCEL_S)
