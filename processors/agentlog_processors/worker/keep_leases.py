"""How a worker keeps what it has claimed: leases renewed, stale claims dropped, cancel requests noticed.

Runs on the service loop, never on one that executes user code. While Redis is away the log is told instead.
"""

import asyncio
import logging
from collections.abc import Mapping

from agentlog_commands.command import Accepted
from agentlog_commands.threads import thread_stream
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import Key, RunId, ThreadId
from agentlog_facts.notification import Hint
from agentlog_facts.thread import RunAlive
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import WorkerDependencies
from agentlog_processors.runtime.service import pause
from agentlog_processors.worker.attempt_control import Attempt
from agentlog_projections.queries.worker import ClaimStatus

log = logging.getLogger(__name__)

UNANSWERED = 2
"""Most questions to the rows that are left behind; a connection that hangs may take minutes to say so."""


class KeepLeases:
    """Renews the leases of the attempts in `active`, and passes on what the rows and hints say about them."""

    name = "keep_leases"

    def __init__(self, dependencies: WorkerDependencies, active: Mapping[RunId, Attempt]) -> None:
        self._dependencies = dependencies
        self._active = active
        self._heard: dict[RunId, float] = {}
        self._questions: set[asyncio.Task[Mapping[RunId, ClaimStatus]]] = set()
        self._wake = asyncio.Event()
        self._told_at: dict[RunId, float] = {}

    def hear(self, hint: Hint) -> None:
        """Note cancel requests; a run may become ours in a moment."""
        now = self._dependencies.writer.clock.monotonic()
        self._heard |= {RunId(run_id): now for run_id in hint.cancelled}
        if self._hinted():
            self._wake.set()

    def _hinted(self) -> set[RunId]:
        return self._heard.keys() & self._active.keys()

    async def run(self, stop: asyncio.Event) -> None:
        """Renew every `lease_renew`; look at once at what a hint names."""
        self._dependencies.hints.listen(self.hear)
        try:
            await self._keep(stop)
        finally:
            for question in self._questions:
                question.cancel()

    async def _keep(self, stop: asyncio.Event) -> None:
        renew_s = self._dependencies.timeouts.lease_renew.total_seconds()
        due = self._dependencies.writer.clock.monotonic() + renew_s
        while not stop.is_set():
            await self._pause(stop, due)
            hinted = self._hinted()
            if hinted:
                for run_id in hinted:
                    del self._heard[run_id]
                await self._compare([self._active[run_id] for run_id in hinted])
            if self._dependencies.writer.clock.monotonic() >= due:
                due = self._dependencies.writer.clock.monotonic() + renew_s
                await self._renew(list(self._active.values()))

    async def _pause(self, stop: asyncio.Event, due: float) -> None:
        """Wait until `due` or a hint; ask the loops for signs of life meanwhile."""
        while not (stop.is_set() or self._wake.is_set()):
            left_s = due - self._dependencies.writer.clock.monotonic()
            if left_s <= 0:
                break
            if self._active:
                self._dependencies.loops.look()
            await pause(stop, min(left_s, timeouts.LOOP_CHECK_S), self._wake)
            if self._hinted():
                break
        self._wake.clear()

    async def _compare(self, attempts: list[Attempt]) -> None:
        """Compare our epochs with the rows; where PostgreSQL does not answer in time the claims stand."""
        if not attempts:
            return
        try:
            marks = await self._marks({attempt.work.run_id: attempt.work.thread_id for attempt in attempts})
        except Unavailable as error:
            log.warning("lease.rows_unread", extra={"error": str(error)})
            return
        for attempt in attempts:
            if attempt.work.run_id in marks:  # else its rows are being built: the claim stands
                self._judge(attempt, marks[attempt.work.run_id])

    async def _marks(self, runs: Mapping[RunId, ThreadId]) -> Mapping[RunId, ClaimStatus]:
        """Ask the rows, and leave a question behind that they do not answer. Raises: Unavailable."""
        if len(self._questions) >= UNANSWERED:
            raise Unavailable(f"marks: {UNANSWERED} questions before this one were not answered yet")
        question = asyncio.ensure_future(self._dependencies.queries.marks(runs))
        self._questions.add(question)
        question.add_done_callback(self._answered)
        patience_s = min(timeouts.CLAIM_STATUS_S, self._dependencies.timeouts.lease_renew.total_seconds())
        await asyncio.wait({question}, timeout=patience_s)
        if question.done():
            return question.result()
        question.cancel()  # not awaited: to take a question back may take as long as the answer
        raise Unavailable(f"marks: PostgreSQL did not answer within {patience_s:g} s")

    def _answered(self, question: "asyncio.Task[Mapping[RunId, ClaimStatus]]") -> None:
        self._questions.discard(question)
        if not question.cancelled():
            question.exception()  # nobody may be waiting for it any more

    def _judge(self, attempt: Attempt, mark: ClaimStatus) -> None:
        if mark.version < attempt.epoch:
            return  # rows of before our claim: those of a database restored from an older copy
        if (mark.epoch, mark.worker) != (attempt.epoch, self._dependencies.worker):
            attempt.ask("stale")
        elif mark.cancel is not None:
            attempt.ask("cancel", mark.cancel)

    async def _renew(self, attempts: list[Attempt]) -> None:
        """Renew before the rows are asked: whoever waits for them must not lose what it has."""
        now = self._dependencies.writer.clock.monotonic()
        self._heard = {run_id: at for run_id, at in self._heard.items() if now - at < timeouts.CANCEL_HINT_KEPT_S}
        self._told_at = {run_id: at for run_id, at in self._told_at.items() if run_id in self._active}
        held = [attempt for attempt in attempts if attempt.asked != "stale"]
        await asyncio.gather(*(self._hold(attempt) for attempt in held))
        await self._compare(attempts)

    async def _hold(self, attempt: Attempt) -> None:
        dependencies = self._dependencies
        try:
            await dependencies.queue.renew_lease(
                attempt.work.run_id, attempt.epoch, dependencies.worker, dependencies.timeouts.lease_ttl
            )
        except Unavailable as error:
            log.warning("lease.not_renewed", extra={"run_id": attempt.work.run_id, "error": str(error)})
            if self._active.get(attempt.work.run_id) is attempt:  # a run that has ended meanwhile needs no sign of life
                await self._tell_the_log(attempt)

    async def _tell_the_log(self, attempt: Attempt) -> None:
        """Say `RunAlive`, at most once per `alive` and run."""
        dependencies, run_id = self._dependencies, attempt.work.run_id
        now = dependencies.writer.clock.monotonic()
        if now - self._told_at.get(run_id, float("-inf")) < dependencies.timeouts.alive.total_seconds():
            return
        self._told_at[run_id] = now
        alive = Accepted(thread_stream(attempt.work.thread_id), (RunAlive(run_id),), epoch=attempt.epoch)
        try:
            await dependencies.writer.append(Key(attempt.work.thread_id), alive, dependencies.writer.cause(run_id))
        except Unavailable as error:
            log.warning("run.alive_not_said", extra={"run_id": run_id, "error": str(error)})
