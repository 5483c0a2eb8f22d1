"""How the state of threads is read through the code of their graphs, away from the service loop."""

from agentlog_facts.graph_access import ThreadView
from agentlog_facts.ids import RunId, ThreadId
from agentlog_processors.job_loops import JobLoops
from agentlog_processors.tools import ThreadViews


class LoopedViews:
    """Asks graphs for the state of threads on a loop for user code, since their own code may run for it."""

    def __init__(self, loops: JobLoops, graphs: ThreadViews) -> None:
        self._loops = loops
        self._graphs = graphs

    async def view(self, graph_id: str, thread_id: ThreadId) -> ThreadView:
        """Return the state of the last accepted checkpoint. Raises: Unavailable."""
        return await self._loops.start(graph_id, lambda: self._graphs.view(graph_id, thread_id)).done

    async def view_without_run(self, graph_id: str, thread_id: ThreadId, run_id: RunId) -> ThreadView:
        """Return the state that remains without what one run accepted. Raises: Unavailable."""
        return await self._loops.start(
            graph_id, lambda: self._graphs.view_without_run(graph_id, thread_id, run_id)
        ).done
