"""The worker's duty: take ready runs from the queue, as many at once as there are slots, and carry each to its end.

If we die here: an id that was popped is pushed again by the reconciler, a claimed run is released by the reaper.
"""

import asyncio
import logging
from collections.abc import Iterable

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId
from agentlog_processors.attempt import Attempt, Stuck
from agentlog_processors.run_attempt import carry_out, claim
from agentlog_processors.service import first
from agentlog_processors.tools import WorkerTools

log = logging.getLogger(__name__)

HEARD_S = 1.0
"""How long a cancel may take to be heard before it is said again."""
GIVE_BACK_S = 10.0
"""How long a draining worker gives its attempts to stop and release their runs."""


class ExecuteRuns:
    """Pops, claims and executes; on stop it finishes what it has within the grace period, else gives it back."""

    name = "execute_runs"

    def __init__(self, tools: WorkerTools, active: dict[RunId, Attempt]) -> None:
        self._tools = tools
        self._active = active
        self._slots = asyncio.Semaphore(tools.timing.jobs)
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._taken: set[RunId] = set()
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
        tools = self._tools
        while True:
            await self._slots.acquire()
            try:
                run_id = await tools.queue.pop(tools.graph_ids, tools.timing.pop)
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
        await asyncio.sleep(self._tools.timing.pop.total_seconds())  # the pace of looking, in place of a blocking pop
        try:
            ready = await self._tools.duties.ready(self._tools.timing.jobs)
        except Unavailable as error:
            log.warning("rows.unavailable", extra={"error": str(error)})
            return []
        return [run.run_id for run in ready if run.graph_id in self._tools.graph_ids]

    async def _start(self, run_ids: Iterable[RunId]) -> None:
        for run_id in run_ids:
            if run_id not in self._taken:
                await self._slots.acquire()
                self._taken.add(run_id)
                task = asyncio.create_task(self._carry(run_id), name=f"run-{run_id}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _carry(self, run_id: RunId) -> None:
        """The outermost place of one run: what goes wrong is logged, the reaper and the reconciler mend it."""
        try:
            attempt = await claim(self._tools, run_id)
            if attempt is not None:
                self._active[run_id] = attempt
                await carry_out(self._tools, attempt)
                if attempt.asked is not None:
                    self._see_off(attempt)
        except Stuck as stuck:
            self._give_up(run_id, stuck)
        except Unavailable as error:
            log.warning("run.unfinished", extra={"run_id": run_id, "error": str(error)})
        except Exception:
            log.exception("run.failed", extra={"run_id": run_id})
        finally:
            self._active.pop(run_id, None)
            self._taken.discard(run_id)
            self._slots.release()

    def _see_off(self, attempt: Attempt) -> None:
        """Look after what a run that was told to stop has left behind."""
        leaving = asyncio.create_task(self._watch(attempt), name=f"leaving-{attempt.work.run_id}")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _watch(self, attempt: Attempt) -> None:
        try:
            await attempt.left(self._tools)
        except Stuck as stuck:
            self._give_up(attempt.work.run_id, stuck)

    def _give_up(self, run_id: RunId, stuck: Stuck) -> None:
        """Let the worker end: what user code holds on to is freed with its process only."""
        log.error("worker.stuck", extra={"run_id": run_id, "error": str(stuck)})
        self._stuck = stuck
        self._over.set()

    async def _drain(self) -> None:
        log.info("worker.draining", extra={"runs": len(self._tasks)})
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._tools.timing.grace.total_seconds())
        for attempt in list(self._active.values()):
            attempt.ask("drain")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GIVE_BACK_S)
        for leaving in self._leaving:
            leaving.cancel()
        for task in self._tasks:
            log.error("run.not_given_back", extra={"task": task.get_name()})
            task.cancel()


async def _ended(popping: "asyncio.Task[None]") -> None:
    """Cancel until it is heard: `asyncio.wait_for`, in which clients send, may lose a cancel (Python 3.11)."""
    while not popping.done():
        popping.cancel()
        await asyncio.wait({popping}, timeout=HEARD_S)
