"""How a worker keeps what it has claimed: leases renewed, stale claims dropped, cancel requests noticed.

Runs on the service loop, never on one that executes user code. While Redis is away the log is told instead.
"""

import asyncio
import logging
from collections.abc import Mapping

from agentlog_commands.command import Accepted
from agentlog_commands.threads import thread_stream
from agentlog_facts.errors import Unavailable
from agentlog_facts.hint import Hint
from agentlog_facts.ids import Key, RunId
from agentlog_facts.thread import RunAlive
from agentlog_processors.attempt import Attempt
from agentlog_processors.service import pause
from agentlog_processors.tools import WorkerTools
from agentlog_projections.duties import Mark

log = logging.getLogger(__name__)

LOOPS_LOOK_S = 0.25
"""How often the loops that run user code are asked whether they still answer."""


class KeepLeases:
    """Renews the leases of the attempts in `active`, and passes on what the rows and hints say about them."""

    name = "keep_leases"

    def __init__(self, tools: WorkerTools, active: Mapping[RunId, Attempt]) -> None:
        self._tools = tools
        self._active = active
        self._hinted: set[RunId] = set()
        self._wake = asyncio.Event()
        self._told_at: dict[RunId, float] = {}

    def hear(self, hint: Hint) -> None:
        """Note cancel requests for runs of ours."""
        mine = {RunId(run_id) for run_id in hint.cancelled} & self._active.keys()
        if mine:
            self._hinted |= mine
            self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Renew every `lease_renew`; look at once at what a hint names."""
        self._tools.hints.listen(self.hear)
        renew_s = self._tools.timing.lease_renew.total_seconds()
        due = self._tools.writing.clock.monotonic() + renew_s
        while not stop.is_set():
            await self._pause(stop, due)
            if self._hinted:
                hinted, self._hinted = self._hinted, set[RunId]()
                await self._compare([self._active[run_id] for run_id in hinted if run_id in self._active])
            if self._tools.writing.clock.monotonic() >= due:
                due = self._tools.writing.clock.monotonic() + renew_s
                await self._renew(list(self._active.values()))

    async def _pause(self, stop: asyncio.Event, due: float) -> None:
        """Wait until `due` or a hint; ask the loops for signs of life meanwhile."""
        while not (stop.is_set() or self._wake.is_set()):
            left_s = due - self._tools.writing.clock.monotonic()
            if left_s <= 0:
                break
            if self._active:
                self._tools.loops.look()
            await pause(stop, min(left_s, LOOPS_LOOK_S), self._wake)
            if self._hinted:
                break
        self._wake.clear()

    async def _compare(self, attempts: list[Attempt]) -> None:
        """Compare our epochs with the rows; where PostgreSQL does not answer the claims stand."""
        if not attempts:
            return
        try:
            marks = await self._tools.duties.marks([attempt.work.run_id for attempt in attempts])
        except Unavailable as error:
            log.warning("lease.rows_unread", extra={"error": str(error)})
            return
        for attempt in attempts:
            if attempt.work.run_id in marks:  # else its rows are being built: the claim stands
                self._judge(attempt, marks[attempt.work.run_id])

    def _judge(self, attempt: Attempt, mark: Mark) -> None:
        if mark.epoch != attempt.epoch:
            attempt.ask("stale")
        elif mark.cancel is not None:
            attempt.ask("cancel", mark.cancel)

    async def _renew(self, attempts: list[Attempt]) -> None:
        await self._compare(attempts)
        held = [attempt for attempt in attempts if attempt.asked != "stale"]
        self._told_at = {run_id: at for run_id, at in self._told_at.items() if run_id in self._active}
        await asyncio.gather(*(self._hold(attempt) for attempt in held))

    async def _hold(self, attempt: Attempt) -> None:
        tools = self._tools
        try:
            await tools.queue.renew_lease(attempt.work.run_id, attempt.epoch, tools.worker, tools.timing.lease_ttl)
        except Unavailable as error:
            log.warning("lease.not_renewed", extra={"run_id": attempt.work.run_id, "error": str(error)})
            if self._active.get(attempt.work.run_id) is attempt:  # a run that has ended meanwhile needs no sign of life
                await self._tell_the_log(attempt)

    async def _tell_the_log(self, attempt: Attempt) -> None:
        """Say `RunAlive`, at most once per `alive` and run."""
        tools, run_id = self._tools, attempt.work.run_id
        now = tools.writing.clock.monotonic()
        if now - self._told_at.get(run_id, float("-inf")) < tools.timing.alive.total_seconds():
            return
        self._told_at[run_id] = now
        alive = Accepted(thread_stream(attempt.work.thread_id), (RunAlive(run_id),), epoch=attempt.epoch)
        try:
            await tools.writing.append(Key(attempt.work.thread_id), alive, tools.writing.cause(run_id))
        except Unavailable as error:
            log.warning("run.alive_not_said", extra={"run_id": run_id, "error": str(error)})
