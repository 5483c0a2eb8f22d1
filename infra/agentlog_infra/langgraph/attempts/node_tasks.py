"""Tasks of the running nodes of a graph, so that a stop can reach them before it reaches LangGraph's loop.

With durability `exit`, LangGraph saves the state before it cancels nodes, and so loses what a node returns when it
catches its cancel. Here nodes are cancelled first. If all of them return, LangGraph saves their step, and its loop ends
because a drain was requested; otherwise its loop is cancelled too.
"""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler


class NodeTasks(AsyncCallbackHandler):
    """Callback handler that collects the tasks of the root graph's nodes; `run_id` is that of the root graph."""

    run_inline = True
    """LangChain calls the handler in the task of the node."""

    def __init__(self, run_id: UUID) -> None:
        self._run_id = run_id
        self._tasks: set[asyncio.Task[Any]] = set()
        self._inline: set[UUID] = set()
        """Nodes that run in the task of the graph, as a node without parallel ones may."""
        self._seen_any = False
        self._cut = False
        self._graph: asyncio.Task[None] | None = None
        self._stopping = False

    def watch(self, graph: "asyncio.Task[None]") -> None:
        """Name the task that runs the graph, before it begins."""
        self._graph = graph

    async def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Collect the current task if it runs a node; cancel it if the run is being stopped."""
        task = asyncio.current_task()
        if parent_run_id != self._run_id or task is None:
            return
        self._seen_any = True
        if task is self._graph:
            self._inline.add(run_id)
        elif task not in self._tasks:
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        if self._stopping:
            task.cancel()

    async def on_chain_end(self, outputs: dict[str, Any], *, run_id: UUID, **kwargs: Any) -> None:
        """Note that a node returned."""
        self._inline.discard(run_id)

    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Note that a node failed or was cancelled."""
        self._inline.discard(run_id)

    def stop(self) -> None:
        """Cancel all nodes, and then the task that runs the graph unless all nodes return."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        if self._graph is not None and (self._inline or not self._seen_any):
            self._graph.cancel()

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        """Note the end of a node. LangGraph's loop learns of it in the next turn of the event loop."""
        self._tasks.discard(task)
        if self._stopping and self._graph is not None:
            self._cut = self._cut or task.cancelled()
            if self._cut and not self._tasks:
                self._graph.cancel()
