"""Reader of the state that runs leave, through the code of their graphs, on a loop for user code and within a time."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import TypeVar

from agentlog_facts.checkpoint_ports import CheckpointReads
from agentlog_facts.errors import Unavailable
from agentlog_facts.graph_ports import ThreadView
from agentlog_facts.ids import RunId
from agentlog_facts.ports import Clock
from agentlog_facts.secret_values import SecretKeys, opening_of
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import StoredStateReader, ThreadStateReader
from agentlog_processors.runs.timed_reads import TimedReads
from agentlog_processors.runtime.user_loops import Job, JobLoops
from agentlog_projections.queries.worker import ExecutableRun

log = logging.getLogger(__name__)

PLAIN = ""
"""In place of a graph's id where no code of a graph runs."""

Found = TypeVar("Found")


class FinalStateReader:
    """Implements `dependencies.FinalState`; reads on a loop for user code, because the graph's own code may run.

    A graph that is missing, raises or hangs cannot prevent the end of a run. The code of a run whose worker died is not
    called, because it may end this process too. Without the code of the graph, the thread keeps its earlier state if
    the run left no checkpoint; otherwise it gets the stored values, with the nodes that have an interrupt or were
    triggered as its next nodes, and keeps the values that are not stored. Rows may stay away for as long as `reads`
    retry; then the call raises. `graphs` and `plain` make readers over checkpoint reads, which are called on the
    service loop.
    """

    def __init__(
        self,
        loops: JobLoops,
        reads: CheckpointReads,
        clock: Clock,
        graphs: Callable[[CheckpointReads], ThreadStateReader],
        plain: Callable[[CheckpointReads], StoredStateReader],
        patience: timedelta = timeouts.FINAL_STATE_WAIT,
    ) -> None:
        self._loops = loops
        self._reads = reads
        self._clock = clock
        self._graphs = graphs
        self._plain = plain
        self._keys = SecretKeys()
        self._patience_s = patience.total_seconds()

    async def view(self, work: ExecutableRun) -> ThreadView:
        """Return the state of the last accepted checkpoint. Raises: Unavailable."""
        if work.deaths:
            return await self._stored(work, None)
        found = await self._of_graph(
            work,
            lambda states: states.view(work.graph_id, work.thread_id, opened_with=opening_of(work.kwargs, self._keys)),
        )
        return found or await self._stored(work, None)

    async def view_without_run(self, work: ExecutableRun) -> ThreadView:
        """Return the state without the accepted writes of the run. Raises: Unavailable."""
        if work.deaths:
            return await self._stored(work, work.run_id)
        opened_with = opening_of(work.kwargs, self._keys)
        found = await self._of_graph(
            work,
            lambda states: states.view_without_run(work.graph_id, work.thread_id, work.run_id, opened_with=opened_with),
        )
        return found or await self._stored(work, work.run_id)

    async def _of_graph(
        self, work: ExecutableRun, read: Callable[[ThreadStateReader], Coroutine[object, object, ThreadView]]
    ) -> ThreadView | None:
        reads = TimedReads(self._reads, self._clock)
        try:
            return await self._within(work.graph_id, reads, lambda: read(self._graphs(reads)))
        except Unavailable:
            raise
        except Exception:
            fields = {"graph_id": work.graph_id, "stream": f"thread-{work.thread_id}"}
            log.exception("view.without_graph", extra=fields)
            return None

    async def _stored(self, work: ExecutableRun, without: RunId | None) -> ThreadView:
        reads = TimedReads(self._reads, self._clock)
        found = await self._within(PLAIN, reads, lambda: self._plain(reads).channels(work.thread_id, without))
        return found.view_after(work.run_id, work.values, work.next)

    async def _within(
        self, graph_id: str, reads: TimedReads, reading: Callable[[], Coroutine[object, object, Found]]
    ) -> Found:
        job = self._loops.start(graph_id, reading)
        try:
            await self._wait(job, reads)
        finally:
            if not job.done.done():
                job.cancel()
        if not job.done.done():
            raise TimeoutError(f"graph {graph_id}: no state after {self._patience_s:g} s")
        if job.done.cancelled():
            raise RuntimeError(f"graph {graph_id}: its code cancelled itself")
        return job.done.result()

    async def _wait(self, job: Job[Found], reads: TimedReads) -> None:
        """Wait for a job until the time limit; time in which rows did not answer does not count."""
        began = self._clock.monotonic()
        while not job.done.done():
            left_s = self._patience_s - (self._clock.monotonic() - began - reads.waited_s)
            if left_s <= 0:
                return
            await asyncio.wait({job.done}, timeout=max(left_s, timeouts.FINAL_STATE_LEAST_WAIT_S))
