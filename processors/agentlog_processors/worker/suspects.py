"""Suspects that wait for a worker: the runs whose worker died, of which any may have caused it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import WorkerDependencies
from agentlog_projections.sql.claimable import suspects_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Overdue:
    """A suspect that was taken from its queue after it had waited for another worker for `waited_s` seconds."""

    run_id: RunId
    queue: str
    waited_s: float


class WaitingSuspects:
    """Queues of the suspects of a worker's graphs."""

    def __init__(self, dependencies: WorkerDependencies) -> None:
        self._dependencies = dependencies
        self._clock: Callable[[], float] = dependencies.writer.clock.monotonic
        self._queues: Sequence[str] = [suspects_of(graph_id) for graph_id in dependencies.graph_ids]
        self._seen_at: dict[RunId, float] = {}
        self._look_at = float("-inf")

    async def pop(self) -> RunId | None:
        """Remove and return the next suspect, waiting for one a while. Raises: Unavailable."""
        return await self._dependencies.queue.pop(self._queues, self._dependencies.timeouts.pop)

    async def overdue(self) -> Overdue | None:
        """Remove and return a suspect if one has waited for another worker for `suspects_after`.

        The queues are read at most once a `pop`. Without Redis there is none.
        """
        now = self._clock()
        if now < self._look_at:
            return None
        self._look_at = now + self._dependencies.timeouts.pop.total_seconds()
        try:
            while (found := await self._pop_overdue(now)) is not None:
                work = await self._dependencies.queries.work(found.run_id)
                if work is not None and work.ready:
                    return found
                log.debug("queue.old_entry", extra={"run_id": found.run_id})  # it is executed or has ended
        except Unavailable as error:
            log.warning("queue.unavailable", extra={"error": str(error)})
        return None

    async def _pop_overdue(self, now: float) -> Overdue | None:
        queues = self._dependencies.queue
        waiting = {run_id: queue for queue in self._queues for run_id in await queues.queued(queue)}
        self._seen_at = {run_id: self._seen_at.get(run_id, now) for run_id in waiting}
        if not waiting:
            return None
        longest = min(waiting, key=self._seen_at.__getitem__)
        waited_s = now - self._seen_at[longest]
        if waited_s < self._dependencies.timeouts.suspects_after.total_seconds():
            return None
        run_id = await queues.pop([waiting[longest]], timeouts.SUSPECT_POP)
        return None if run_id is None else Overdue(run_id, waiting[longest], waited_s)

    async def put_back(self, suspect: Overdue) -> None:
        """Queue a suspect again; this worker looks for overdue ones again once it has waited as long as before.

        If Redis is away, the reconciler queues it.
        """
        self._look_at = self._clock() + suspect.waited_s
        try:
            if suspect.run_id not in await self._dependencies.queue.queued(suspect.queue):
                await self._dependencies.queue.push(suspect.queue, [suspect.run_id])
        except Unavailable as error:
            log.warning("queue.unavailable", extra={"error": str(error)})
