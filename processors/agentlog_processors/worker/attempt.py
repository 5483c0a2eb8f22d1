"""Control of one claimed attempt: stop requests, its lease, and the time after which it counts as stuck."""

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

StopReason: TypeAlias = Literal["cancel", "timeout", "stale", "drain"]
"""The reason for a stop request: `cancel` and `timeout` end the run, `stale` and `drain` leave it to other workers."""


class Stuck(AgentlogError):
    """User code ignored a stop request for `stubborn` (a minute); its process must exit."""

    code = "user_code_stuck"


class Attempt:
    """A running attempt; used on the service loop only."""

    def __init__(self, work: ExecutableRun, epoch: int, event_id: str) -> None:
        self.work = work
        self.epoch = epoch
        self.event_id = event_id
        self.stop_reason: StopReason | None = None
        self.cancel: CancelRequest | None = None
        self._wake = asyncio.Event()
        self._job: Job[RunOutcome] | None = None

    @property
    def number(self) -> int:
        """Return the number of this attempt, from 1."""
        return self.work.attempt + 1

    def request_stop(self, reason: StopReason, cancel: CancelRequest | None = None) -> None:
        """Request a stop. The first reason stays, but `stale` and `drain` always replace it.

        A `cancel` is kept also after another request: a rollback holds for any reason to stop.
        """
        self.cancel = self.cancel or cancel
        if self.stop_reason is None or reason in ("stale", "drain"):
            self.stop_reason = reason
            self._wake.set()

    async def execute(
        self, dependencies: WorkerDependencies, order: RunAssignment, frames: FrameWriter
    ) -> RunOutcome | None:
        """Execute until the end or a stop request; return None if the outcome does not matter (stale, drain).

        Raises: as `RunExecution.execute`; Stuck.
        """
        stop = asyncio.Event()
        job = self._job = dependencies.loops.start(
            order.graph_id, lambda: dependencies.execution.execute(order, frames.emit, stop)
        )
        job.done.add_done_callback(lambda _: self._wake.set())
        limit_s = dependencies.timeouts.limits.run_time.total_seconds()
        limit = asyncio.get_running_loop().call_later(limit_s, self.request_stop, "timeout")
        try:
            if not await self._woken(timeouts.LEASELESS_S):
                leasing = asyncio.create_task(self._hold_lease(dependencies), name="hold_lease")
                try:
                    await self._wake.wait()  # not after the lease: a Redis that hangs must not delay the end
                finally:
                    leasing.cancel()
            if not job.done.done():
                job.call(stop.set)
                await self._wait_for_stop(dependencies, job)
        finally:
            limit.cancel()
        return None if job.done.cancelled() or self._is_left else job.done.result()

    @property
    def was_disturbed(self) -> bool:
        """Return whether the code of another run on the loop has cancelled tasks of this one."""
        return self._job is not None and self._job.was_disturbed

    @property
    def has_live_threads(self) -> bool:
        """Return whether a thread still runs code of the attempt."""
        return self._job is not None and any(not call.done() for call in list(self._job.threads))

    async def wait_for_threads(self, dependencies: WorkerDependencies) -> None:
        """Wait until all threads of the attempt have ended. Raises: Stuck."""
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
    def _is_left(self) -> bool:
        return self.stop_reason in ("stale", "drain")

    async def _hold_lease(self, dependencies: WorkerDependencies) -> None:
        try:
            await dependencies.queue.renew_lease(
                self.work.run_id, self.epoch, dependencies.worker, dependencies.timeouts.lease_ttl
            )
        except AgentlogError as error:
            log.warning("lease.not_set", extra={"run_id": self.work.run_id, "error": str(error)})

    async def _wait_for_stop(self, dependencies: WorkerDependencies, job: "Job[RunOutcome]") -> None:
        """Wait until user code has stopped; cancel its coroutine for `stale` and `drain`. Raises: Stuck."""
        until = dependencies.writer.deadline(dependencies.timeouts.stubborn)
        while not job.done.done():
            if self._is_left:
                job.cancel()
            left_s = until - dependencies.writer.clock.monotonic()
            if left_s <= 0:
                raise Stuck(
                    f"run {self.work.run_id}: expected to stop, still executes after {dependencies.timeouts.stubborn}"
                )
            self._wake.clear()
            if not await self._woken(left_s):
                log.warning("run.does_not_stop", extra={"run_id": self.work.run_id, "epoch": self.epoch})

    async def _woken(self, patience_s: float) -> bool:
        """Wait for the job's end or a stop request; return whether either came in time."""
        try:
            async with asyncio.timeout(patience_s):
                return await self._wake.wait()
        except TimeoutError:
            return False
