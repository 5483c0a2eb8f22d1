"""Service that pops ready runs from the queue and executes them in parallel, one per slot; a suspect only alone.

If the process dies here: the reconciler pushes a popped id again, and the reaper releases a claimed run.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import WorkerDependencies
from agentlog_processors.runtime.service import first
from agentlog_processors.worker.attempt import Attempt, Stuck
from agentlog_processors.worker.attempt_lifecycle import carry_out, claim, give_back
from agentlog_processors.worker.suspects import Overdue, WaitingSuspects
from agentlog_projections.sql.claimable import ReadyRun

log = logging.getLogger(__name__)

MOST_ORPHANED = 16
"""A worker is replaced once this many ended runs, without a stop request, still hold threads; a pool has 64."""


class ExecuteRuns:
    """Pops, claims and executes runs; on stop it finishes its runs within the grace period or releases them."""

    name = "execute_runs"

    def __init__(self, dependencies: WorkerDependencies, active: dict[RunId, Attempt]) -> None:
        self._dependencies = dependencies
        self._active = active
        self._slots = asyncio.Semaphore(dependencies.timeouts.jobs)
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread_waits: set[asyncio.Task[None]] = set()
        self._taken: set[RunId] = set()
        self._repeated: set[RunId] = set()
        self._suspects = WaitingSuspects(dependencies)
        self._orphaned: list[Attempt] = []
        self._unresponsive: list[Attempt] = []
        self._draining = self._giving_back = False
        self._stuck: Stuck | None = None
        self._over = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop`, then drain. Raises: Stuck when user code ignored a stop request."""
        spare = self._dependencies.spare
        popping = asyncio.create_task(
            self._pop_runs() if spare is None else self._pop_suspects(spare.leave), name="pop"
        )
        popping.add_done_callback(lambda _: self._over.set())
        try:
            await first(None, stop, self._over)
        finally:
            await _cancel(popping)
            await self._drain()
        if self._stuck is not None:
            raise self._stuck
        if not popping.cancelled():
            popping.result()

    async def _pop_runs(self) -> None:
        dependencies = self._dependencies
        while True:
            overdue = await self._suspects.overdue()
            if overdue is not None:
                await self._execute_overdue(overdue)
            await self._slots.acquire()
            self._slots.release()  # only this task takes slots
            try:
                run_id = await dependencies.queue.pop(dependencies.graph_ids, dependencies.timeouts.pop)
                found = [] if run_id is None else [run_id]
            except Unavailable as error:
                log.warning("queue.unavailable", extra={"error": str(error)})
                found = await self._ready_without_queue()
            await self._start(found)

    async def _pop_suspects(self, leave: Callable[[], None] | None) -> None:
        """Execute suspects one after the other; after `spare_idle` without any, call `leave` if there is one."""
        writer, patience = self._dependencies.writer, self._dependencies.timeouts.spare_idle
        until = writer.deadline(patience)
        while leave is None or writer.clock.monotonic() < until:
            run_id = await self._next_suspect()
            if run_id is not None:
                await self._execute_alone(run_id)
                until = writer.deadline(patience)
        leave()
        await asyncio.Event().wait()  # until the process stops

    async def _next_suspect(self) -> RunId | None:
        try:
            return await self._suspects.pop()
        except Unavailable as error:
            log.warning("queue.unavailable", extra={"error": str(error)})
            return next((run.run_id for run in await self._ready_rows() if run.suspect), None)

    async def _execute_overdue(self, suspect: Overdue) -> None:
        """Execute a suspect alone, unless the runs of this worker end too late for that: then queue it again.

        The worker takes no run meanwhile, so it waits at most as long as the suspect did, and takes runs for as long
        before it waits again. So it keeps at least half of its throughput, and each wait is longer than the last.
        """
        busy = {*self._tasks, *self._thread_waits}
        if busy and (await asyncio.wait(busy, timeout=suspect.waited_s))[1]:
            await self._suspects.put_back(suspect)
        else:
            await self._execute_alone(suspect.run_id)

    async def _execute_alone(self, run_id: RunId) -> None:
        """Wait for the end of all runs and of their threads, and execute a run to its end before any other.

        Threads that an ended run keeps for longer than `stubborn` are not waited for.
        """
        while busy := {*self._tasks, *self._thread_waits}:
            await asyncio.wait(busy)
        await self._start([run_id], alone=True)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _ready_without_queue(self) -> list[RunId]:
        """Return the ready runs without suspects; if there are none and this worker is idle, execute a suspect."""
        ready = await self._ready_rows()
        found = [run.run_id for run in ready if not run.suspect]
        if ready and not found and not self._tasks:
            await self._execute_alone(ready[0].run_id)
        return found

    async def _ready_rows(self) -> list[ReadyRun]:
        """Read the ready runs from PostgreSQL while Redis is away, once per `pop`."""
        pause_s = self._dependencies.timeouts.pop.total_seconds()
        await asyncio.sleep(pause_s)  # the interval of queries, in place of a blocking pop
        try:
            ready = await self._dependencies.queries.ready(self._dependencies.timeouts.jobs)
        except Unavailable as error:
            log.warning("rows.unavailable", extra={"error": str(error)})
            return []
        return [run for run in ready if run.graph_id in self._dependencies.graph_ids]

    async def _start(self, run_ids: Iterable[RunId], *, alone: bool = False) -> None:
        for run_id in run_ids:
            if run_id in self._taken:
                self._repeated.add(run_id)  # this worker released it, and it was queued again before its task ended
            else:
                await self._slots.acquire()
                self._taken.add(run_id)
                task = asyncio.create_task(self._process(run_id, alone=alone), name=f"run-{run_id}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _process(self, run_id: RunId, *, alone: bool) -> None:
        """Process a run, and once more each time that it was queued again meanwhile."""
        try:
            await self._process_once(run_id, alone=alone)
            while run_id in self._repeated and not self._draining:
                self._repeated.discard(run_id)
                await self._process_once(run_id, alone=alone)
        finally:
            self._repeated.discard(run_id)
            self._taken.discard(run_id)
            self._slots.release()

    async def _process_once(self, run_id: RunId, *, alone: bool) -> None:
        """Claim and execute a run; log any failure, after which reaper and reconciler take over."""
        attempt: Attempt | None = None
        try:
            attempt = await claim(self._dependencies, run_id, alone=alone)
            if attempt is not None and self._giving_back:
                await give_back(self._dependencies, attempt)
            elif attempt is not None:
                self._active[run_id] = attempt
                await carry_out(self._dependencies, attempt)
                if attempt.has_live_threads:
                    self._await_threads(attempt)
        except Stuck as stuck:
            if attempt is not None and attempt.stop_reason == "drain":
                self._unresponsive.append(attempt)
            self._end_stuck(run_id, stuck)
        except Unavailable as error:
            log.warning("run.unfinished", extra={"run_id": run_id, "error": str(error)})
        except Exception:
            log.exception("run.failed", extra={"run_id": run_id})
        finally:
            self._active.pop(run_id, None)

    def _await_threads(self, attempt: Attempt) -> None:
        """Start a task that waits for the threads of an ended run."""
        waiting = asyncio.create_task(self._wait_for_threads(attempt), name=f"threads-{attempt.work.run_id}")
        self._thread_waits.add(waiting)
        waiting.add_done_callback(self._thread_waits.discard)

    async def _wait_for_threads(self, attempt: Attempt) -> None:
        try:
            await attempt.wait_for_threads(self._dependencies)
        except Stuck as stuck:
            if attempt.stop_reason is None and not self._too_many_orphaned(attempt):
                log.warning("run.left_threads", extra={"run_id": attempt.work.run_id, "error": str(stuck)})
            else:
                self._end_stuck(attempt.work.run_id, stuck)

    def _too_many_orphaned(self, attempt: Attempt) -> bool:
        """Count a run that ended by itself and still has threads: this may be intended, but threads are few."""
        self._orphaned = [one for one in (*self._orphaned, attempt) if one.has_live_threads]
        return len(self._orphaned) >= MOST_ORPHANED

    def _end_stuck(self, run_id: RunId, stuck: Stuck) -> None:
        """Make the worker end, because only the end of its process frees the resources of stuck user code."""
        log.error("worker.stuck", extra={"run_id": run_id, "error": str(stuck)})
        self._stuck = stuck
        self._over.set()

    async def _drain(self) -> None:
        """Finish the active runs, or release them. Raises: Unavailable when the log does not accept a release."""
        self._draining = True
        log.info("worker.draining", extra={"runs": len(self._tasks)})
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._dependencies.timeouts.grace.total_seconds())
        self._giving_back = True
        for attempt in list(self._active.values()):
            attempt.request_stop("drain")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._dependencies.timeouts.give_back_s)
        for waiting in self._thread_waits:
            waiting.cancel()
        await self._give_back((*self._unresponsive, *self._active.values()))

    async def _give_back(self, unresponsive: Sequence[Attempt]) -> None:
        """Release the attempts that do not stop, such as code that blocks its loop; their later writes are void."""
        for task in self._tasks:
            task.cancel()
        for attempt in unresponsive:
            log.warning("run.does_not_stop", extra={"run_id": attempt.work.run_id, "epoch": attempt.epoch})
        try:
            async with asyncio.timeout(timeouts.RELEASE_S):
                await asyncio.gather(*(give_back(self._dependencies, attempt) for attempt in unresponsive))
        except TimeoutError as error:
            raise Unavailable(f"runs were not given back within {timeouts.RELEASE_S:g} s") from error


async def _cancel(popping: "asyncio.Task[None]") -> None:
    """Cancel until the task ends: `asyncio.wait_for`, in which clients send, may lose a cancellation (Python 3.11)."""
    while not popping.done():
        popping.cancel()
        await asyncio.wait({popping}, timeout=timeouts.POP_CANCEL_S)
