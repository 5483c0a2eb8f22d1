"""How the state of threads is read through the code of their graphs, away from the service loop and within a time."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta

from agentlog_facts.errors import Unavailable
from agentlog_facts.graph_access import ThreadView
from agentlog_facts.ids import RunId, ThreadId
from agentlog_processors.job_loops import JobLoops
from agentlog_processors.tools import PlainViews, ThreadViews

log = logging.getLogger(__name__)

PATIENCE = timedelta(seconds=15)
"""How long the code of a graph may take to show a state; its run is ended without it afterwards."""
PLAIN = ""
"""Stands for a graph's id where no code of a graph is asked."""

Reading = Callable[[], Coroutine[object, object, ThreadView]]


class LoopedViews:
    """Asks graphs for the state of threads on a loop for user code, since their own code may run for it.

    A graph that is gone, raises or hangs cannot keep a run from its end: the state is then what the channels say.
    """

    def __init__(self, loops: JobLoops, graphs: ThreadViews, plain: PlainViews, patience: timedelta = PATIENCE) -> None:
        self._loops = loops
        self._graphs = graphs
        self._plain = plain
        self._patience = patience

    async def view(self, graph_id: str, thread_id: ThreadId) -> ThreadView:
        """Return the state of the last accepted checkpoint. Raises: Unavailable."""
        return await self._read(graph_id, thread_id, None, lambda: self._graphs.view(graph_id, thread_id))

    async def view_without_run(self, graph_id: str, thread_id: ThreadId, run_id: RunId) -> ThreadView:
        """Return the state that remains without what one run accepted. Raises: Unavailable."""
        return await self._read(
            graph_id, thread_id, run_id, lambda: self._graphs.view_without_run(graph_id, thread_id, run_id)
        )

    async def _read(self, graph_id: str, thread_id: ThreadId, without: RunId | None, reading: Reading) -> ThreadView:
        try:
            return await self._within(graph_id, reading)
        except Unavailable:
            raise
        except Exception:
            log.exception("view.without_graph", extra={"graph_id": graph_id, "stream": f"thread-{thread_id}"})
        return await self._within(PLAIN, lambda: self._plain.channels(thread_id, without))

    async def _within(self, graph_id: str, reading: Reading) -> ThreadView:
        job = self._loops.start(graph_id, reading)
        try:
            await asyncio.wait({job.done}, timeout=self._patience.total_seconds())
        finally:
            if not job.done.done():
                job.cancel()
        if not job.done.done():
            raise TimeoutError(f"graph {graph_id}: no state after {self._patience}")
        if job.done.cancelled():
            raise RuntimeError(f"graph {graph_id}: its code cancelled itself")
        return job.done.result()
