"""Service that renews leases, stops stale claims and passes on cancel requests.

It runs on the service loop, never on a loop of user code. While Redis is away it appends `RunAlive` to the log instead.
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
from agentlog_processors.worker.attempt import Attempt
from agentlog_projections.queries.worker import ClaimStatus

log = logging.getLogger(__name__)

UNANSWERED = 2
"""Most unanswered queries of the rows; a connection that hangs may take minutes to fail."""


class WatchClaims:
    """Renews the leases of the attempts in `active`, and requests stops that rows and hints demand."""

    name = "watch_claims"

    def __init__(self, dependencies: WorkerDependencies, active: Mapping[RunId, Attempt]) -> None:
        self._dependencies = dependencies
        self._active = active
        self._hinted_at: dict[RunId, float] = {}
        self._queries: set[asyncio.Task[Mapping[RunId, ClaimStatus]]] = set()
        self._wake = asyncio.Event()
        self._alive_at: dict[RunId, float] = {}

    def on_hint(self, hint: Hint) -> None:
        """Note cancel requests, also of other runs: this worker may claim one in a moment."""
        now = self._dependencies.writer.clock.monotonic()
        self._hinted_at |= {RunId(run_id): now for run_id in hint.cancelled}
        if self._hinted():
            self._wake.set()

    def _hinted(self) -> set[RunId]:
        return self._hinted_at.keys() & self._active.keys()

    async def run(self, stop: asyncio.Event) -> None:
        """Renew every `lease_renew`; check the runs that a hint names at once."""
        self._dependencies.hints.listen(self.on_hint)
        try:
            await self._renew_until(stop)
        finally:
            for query in self._queries:
                query.cancel()

    async def _renew_until(self, stop: asyncio.Event) -> None:
        renew_s = self._dependencies.timeouts.lease_renew.total_seconds()
        due = self._dependencies.writer.clock.monotonic() + renew_s
        while not stop.is_set():
            await self._pause(stop, due)
            hinted = self._hinted()
            if hinted:
                for run_id in hinted:
                    del self._hinted_at[run_id]
                await self._compare([self._active[run_id] for run_id in hinted])
            if self._dependencies.writer.clock.monotonic() >= due:
                due = self._dependencies.writer.clock.monotonic() + renew_s
                await self._renew(list(self._active.values()))

    async def _pause(self, stop: asyncio.Event, due: float) -> None:
        """Wait until `due` or a hint; check the loops of user code meanwhile."""
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
        """Compare the epochs with the rows; if PostgreSQL does not answer in time, the claims stay valid."""
        if not attempts:
            return
        try:
            marks = await self._marks({attempt.work.run_id: attempt.work.thread_id for attempt in attempts})
        except Unavailable as error:
            log.warning("lease.rows_unavailable", extra={"error": str(error)})
            return
        for attempt in attempts:
            if attempt.work.run_id in marks:  # else its rows are being rebuilt: the claim stays valid
                self._judge(attempt, marks[attempt.work.run_id])

    async def _marks(self, runs: Mapping[RunId, ThreadId]) -> Mapping[RunId, ClaimStatus]:
        """Query the rows, and abandon a query without an answer. Raises: Unavailable."""
        if len(self._queries) >= UNANSWERED:
            raise Unavailable(f"marks: {UNANSWERED} earlier queries are not answered yet")
        query = asyncio.ensure_future(self._dependencies.queries.marks(runs))
        self._queries.add(query)
        query.add_done_callback(self._answered)
        patience_s = min(timeouts.CLAIM_STATUS_S, self._dependencies.timeouts.lease_renew.total_seconds())
        await asyncio.wait({query}, timeout=patience_s)
        if query.done():
            return query.result()
        query.cancel()  # not awaited: the cancellation may take as long as the answer
        raise Unavailable(f"marks: PostgreSQL did not answer within {patience_s:g} s")

    def _answered(self, query: "asyncio.Task[Mapping[RunId, ClaimStatus]]") -> None:
        self._queries.discard(query)
        if not query.cancelled():
            query.exception()  # its caller may not wait any more

    def _judge(self, attempt: Attempt, mark: ClaimStatus) -> None:
        if mark.version < attempt.epoch:
            return  # rows from before our claim, in a database restored from an older copy
        if (mark.epoch, mark.worker) != (attempt.epoch, self._dependencies.worker):
            attempt.request_stop("stale")
        elif mark.cancel is not None:
            attempt.request_stop("cancel", mark.cancel)

    async def _renew(self, attempts: list[Attempt]) -> None:
        """Renew leases before the query of the rows, so that a slow answer loses no lease."""
        now = self._dependencies.writer.clock.monotonic()
        self._hinted_at = {
            run_id: at for run_id, at in self._hinted_at.items() if now - at < timeouts.CANCEL_HINT_KEPT_S
        }
        self._alive_at = {run_id: at for run_id, at in self._alive_at.items() if run_id in self._active}
        held = [attempt for attempt in attempts if attempt.stop_reason != "stale"]
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
            if self._active.get(attempt.work.run_id) is attempt:  # a run that has ended meanwhile needs no `RunAlive`
                await self._append_alive(attempt)

    async def _append_alive(self, attempt: Attempt) -> None:
        """Append `RunAlive`, at most once per `alive` and run."""
        dependencies, run_id = self._dependencies, attempt.work.run_id
        now = dependencies.writer.clock.monotonic()
        if now - self._alive_at.get(run_id, float("-inf")) < dependencies.timeouts.alive.total_seconds():
            return
        self._alive_at[run_id] = now
        alive = Accepted(thread_stream(attempt.work.thread_id), (RunAlive(run_id),), epoch=attempt.epoch)
        try:
            await dependencies.writer.append(Key(attempt.work.thread_id), alive, dependencies.writer.cause(run_id))
        except Unavailable as error:
            log.warning("run.alive_not_appended", extra={"run_id": run_id, "error": str(error)})
