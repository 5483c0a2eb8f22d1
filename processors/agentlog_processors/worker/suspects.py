"""Suspects that wait for a worker: the runs whose worker died, of which any may have caused it."""

import logging
from collections.abc import Callable, Sequence

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import WorkerDependencies
from agentlog_projections.sql.claimable import suspects_of

log = logging.getLogger(__name__)


class WaitingSuspects:
    """Queues of the suspects of a worker's graphs."""

    def __init__(self, dependencies: WorkerDependencies) -> None:
        self._dependencies = dependencies
        self._clock: Callable[[], float] = dependencies.writer.clock.monotonic
        self._queues: Sequence[str] = [suspects_of(graph_id) for graph_id in dependencies.graph_ids]
        self._seen_at: dict[RunId, float] = {}
        self._looked_at = float("-inf")

    async def pop(self) -> RunId | None:
        """Remove and return the next suspect, waiting for one a while. Raises: Unavailable."""
        return await self._dependencies.queue.pop(self._queues, self._dependencies.timeouts.pop)

    async def overdue(self) -> RunId | None:
        """Remove and return a suspect if one has waited for another worker for `suspects_after`.

        The queues are read at most once a `pop`. Without Redis there is none.
        """
        now = self._clock()
        if now - self._looked_at < self._dependencies.timeouts.pop.total_seconds():
            return None
        self._looked_at = now
        try:
            waiting = [run_id for queue in self._queues for run_id in await self._dependencies.queue.queued(queue)]
            self._seen_at = {run_id: self._seen_at.get(run_id, now) for run_id in waiting}
            longest_s = now - min(self._seen_at.values(), default=now)
            if not waiting or longest_s < self._dependencies.timeouts.suspects_after.total_seconds():
                return None
            return await self._dependencies.queue.pop(self._queues, timeouts.SUSPECT_POP)
        except Unavailable as error:
            log.warning("queue.unavailable", extra={"error": str(error)})
            return None
