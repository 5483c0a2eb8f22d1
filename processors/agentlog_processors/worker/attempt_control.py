"""One claimed attempt of a run: what it is asked to do from outside, and how long it listens before it is stuck."""

import asyncio
import logging
from typing import Literal, TypeAlias

from agentlog_commands.claims import CancelRequest
from agentlog_facts.errors import AgentlogError
from agentlog_facts.execution_port import RunAssignment, RunOutcome
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import WorkerDependencies
from agentlog_processors.runtime.service import first
from agentlog_processors.runtime.user_loops import Job
from agentlog_processors.worker.write_outputs import FrameWriter
from agentlog_projections.queries.worker import ExecutableRun

log = logging.getLogger(__name__)

Ask: TypeAlias = Literal["cancel", "timeout", "stale", "drain"]
"""Why an attempt shall stop: the first two end the run, `stale` and `drain` leave it to others."""


class Stuck(AgentlogError):
    """User code ignored for a minute that it shall stop; its process has to be replaced."""

    code = "user_code_stuck"


class Attempt:
    """An attempt that runs now; used on the service loop."""

    def __init__(self, work: ExecutableRun, epoch: int, event_id: str) -> None:
        self.work = work
        self.epoch = epoch
        self.event_id = event_id
        self.asked: Ask | None = None
        self.cancel: CancelRequest | None = None
        self._poke = asyncio.Event()
        self._job: Job[RunOutcome] | None = None

    @property
    def number(self) -> int:
        """Return which attempt this is, from 1."""
        return self.work.attempt + 1

    def ask(self, what: Ask, cancel: CancelRequest | None = None) -> None:
        """Ask it to stop. The first request counts, except that one which leaves the run to others always does.

        A `cancel` is kept also behind another request: a rollback is one whatever the run stops for.
        """
        self.cancel = self.cancel or cancel
        if self.asked is None or what in ("stale", "drain"):
            self.asked = what
            self._poke.set()

    async def execute(
        self, dependencies: WorkerDependencies, order: RunAssignment, frames: FrameWriter
    ) -> RunOutcome | None:
        """Execute until the end or a request to stop; None when the outcome does not matter (stale, drain).

        Raises: what `RunExecution.execute` raises; Stuck.
        """
        stop = asyncio.Event()
        job = self._job = dependencies.loops.start(
            order.graph_id, lambda: dependencies.execution.execute(order, frames.emit, stop)
        )
        job.done.add_done_callback(lambda _: self._poke.set())
        limit_s = dependencies.timeouts.limits.run_time.total_seconds()
        limit = asyncio.get_running_loop().call_later(limit_s, self.ask, "timeout")
        try:
            if not await self._poked(timeouts.LEASELESS_S):
                leasing = asyncio.create_task(self._hold_lease(dependencies), name="hold_lease")
                try:
                    await self._poke.wait()  # not behind the lease: a Redis that hangs must not hold up the end
                finally:
                    leasing.cancel()
            if not job.done.done():
                job.call(stop.set)
                await self._obeyed(dependencies, job)
        finally:
            limit.cancel()
        return None if job.done.cancelled() or self._leaves else job.done.result()

    @property
    def has_live_threads(self) -> bool:
        """Tell whether a thread still runs its code."""
        return self._job is not None and any(not call.done() for call in list(self._job.threads))

    async def wait_for_threads(self, dependencies: WorkerDependencies) -> None:
        """Wait until the threads of its code have ended too. Raises: Stuck."""
        running = [] if self._job is None else list(self._job.threads)
        ended = asyncio.Event()
        home = asyncio.get_running_loop()
        for call in running:
            call.add_done_callback(lambda _: home.call_soon_threadsafe(ended.set))
        until = dependencies.writer.deadline(dependencies.timeouts.stubborn)
        while not all(call.done() for call in running):
            left_s = until - dependencies.writer.clock.monotonic()
            if left_s <= 0:
                raise Stuck(
                    f"run {self.work.run_id}: its thread still runs {dependencies.timeouts.stubborn} after its end"
                )
            ended.clear()
            await first(left_s, ended)

    @property
    def _leaves(self) -> bool:
        return self.asked in ("stale", "drain")

    async def _hold_lease(self, dependencies: WorkerDependencies) -> None:
        try:
            await dependencies.queue.renew_lease(
                self.work.run_id, self.epoch, dependencies.worker, dependencies.timeouts.lease_ttl
            )
        except AgentlogError as error:
            log.warning("lease.not_set", extra={"run_id": self.work.run_id, "error": str(error)})

    async def _obeyed(self, dependencies: WorkerDependencies, job: "Job[RunOutcome]") -> None:
        """Wait until user code has stopped; what shall be left to others is cancelled hard."""
        until = dependencies.writer.deadline(dependencies.timeouts.stubborn)
        while not job.done.done():
            if self._leaves:
                job.cancel()
            left_s = until - dependencies.writer.clock.monotonic()
            if left_s <= 0:
                raise Stuck(
                    f"run {self.work.run_id}: expected to stop, still executes after {dependencies.timeouts.stubborn}"
                )
            self._poke.clear()
            if not await self._poked(left_s):
                log.warning("run.does_not_stop", extra={"run_id": self.work.run_id, "epoch": self.epoch})

    async def _poked(self, patience_s: float) -> bool:
        """Wait for the job's end or a request; tell whether either came in time."""
        try:
            async with asyncio.timeout(patience_s):
                return await self._poke.wait()
        except TimeoutError:
            return False
