"""Graph access of a process that serves requests: the code of graphs runs apart from the loop that serves them.

A read of a compiled graph stays on the serving loop as long as it needs no code of users.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import replace
from typing import TypeVar

from langgraph.channels.delta import DeltaChannel

from agentlog_facts.checkpoint_ports import CheckpointQuery, CheckpointReads, StoredCheckpoint
from agentlog_facts.graph_ports import LATEST, At, EncodedState, StateChange, StepUpdate, ThreadView
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.store_ports import Condition, Namespace, StoredItem, StoreReads
from agentlog_infra.langgraph.code_loops import CodeLoops
from agentlog_infra.langgraph.loop_bridge import here
from agentlog_infra.langgraph.snapshots.user_code import UserCodeNeeded
from agentlog_infra.langgraph.state import LangGraphAccess, StateDependencies
from agentlog_infra.langgraph.store import LogStore
from agentlog_infra.langgraph.structure.structures import LoadedStructures

T = TypeVar("T")


class RequestGraphs:
    """Implements `graph_ports.GraphAccess`. The constructor must be called on the loop that serves requests."""

    def __init__(self, dependencies: StateDependencies) -> None:
        home = asyncio.get_running_loop()
        reads = _HomeReads(home, dependencies.reads)
        apart = replace(dependencies, reads=reads, store=_HomeStoreReads(home, dependencies.store))
        self._graphs = dependencies.graphs
        self._loops = CodeLoops()
        self._apart = LangGraphAccess(apart)
        self._here = LangGraphAccess(replace(apart, runs_user_code=False))
        self.structures = LoadedStructures(self._graphs, LogStore(apart.store), self._loops)

    def close(self) -> None:
        """Stop the loops for the code of graphs."""
        self._loops.close()

    def graph_ids(self) -> Sequence[str]:
        """Return the ids of the loaded graphs, in the order of the configuration."""
        return self._apart.graph_ids()

    def description(self, graph_id: str) -> str | None:
        """Return a graph's description. Raises GraphNotFound."""
        return self._apart.description(graph_id)

    def context_keys(self, graph_id: str) -> Collection[str] | None:
        """Return the keys of a context that `configurable` mirrors, None for all. Raises GraphNotFound."""
        return self._apart.context_keys(graph_id)

    def is_made_by_factory(self, graph_id: str) -> bool:
        """Return whether a factory makes the graph. Raises GraphNotFound."""
        return self._apart.is_made_by_factory(graph_id)

    async def output_values(
        self, graph_id: str, thread_id: ThreadId, values: Json, *, opened_with: JsonObject | None = None
    ) -> Json:
        """Return the part of a state's values that the output schema names. Raises: GraphFailed, GraphNotFound."""
        return await self._read(
            graph_id, lambda access: access.output_values(graph_id, thread_id, values, opened_with=opened_with)
        )

    async def get_state(
        self,
        graph_id: str,
        thread_id: ThreadId,
        at: At = LATEST,
        *,
        subgraphs: bool = False,
        opened_with: JsonObject | None = None,
    ) -> EncodedState:
        """Return a snapshot. Raises: GraphFailed, GraphNotFound, Unavailable."""
        return await self._read(
            graph_id,
            lambda access: access.get_state(graph_id, thread_id, at, subgraphs=subgraphs, opened_with=opened_with),
        )

    async def get_history(
        self,
        graph_id: str,
        thread_id: ThreadId,
        at: At = LATEST,
        *,
        before: str | None = None,
        limit: int = 1,
        metadata: JsonObject | None = None,
        opened_with: JsonObject | None = None,
    ) -> list[EncodedState]:
        """Return snapshots in log order, newest first. Raises: GraphFailed, GraphNotFound, Unavailable."""

        def read(access: LangGraphAccess) -> Coroutine[object, object, list[EncodedState]]:
            return access.get_history(
                graph_id, thread_id, at, before=before, limit=limit, metadata=metadata, opened_with=opened_with
            )

        return await self._read(graph_id, read)

    async def update_state(
        self,
        graph_id: str,
        thread_id: ThreadId,
        values: Json,
        *,
        as_node: str | None = None,
        at: At = LATEST,
        view: JsonObject | None = None,
        metadata: JsonObject | None = None,
        config: JsonObject | None = None,
        opened_with: JsonObject | None = None,
    ) -> StateChange:
        """Apply values and return the facts to commit. Raises: BadUpdate, GraphFailed, GraphNotFound, Unavailable."""
        access = self._apart
        return await self._loops.run(
            lambda: access.update_state(
                graph_id,
                thread_id,
                values,
                as_node=as_node,
                at=at,
                view=view,
                metadata=metadata,
                config=config,
                opened_with=opened_with,
            )
        )

    async def replay(
        self, graph_id: str, thread_id: ThreadId, supersteps: Sequence[Sequence[StepUpdate]]
    ) -> StateChange:
        """Apply supersteps to an empty thread; return the facts to commit. Raises: as `update_state`."""
        return await self._loops.run(lambda: self._apart.replay(graph_id, thread_id, supersteps))

    async def view_without_run(
        self, graph_id: str, thread_id: ThreadId, run_id: RunId, *, opened_with: JsonObject | None = None
    ) -> ThreadView:
        """Return the state without the checkpoints and writes of a run. Raises: as `view`."""
        return await self._loops.run(
            lambda: self._apart.view_without_run(graph_id, thread_id, run_id, opened_with=opened_with)
        )

    async def view(self, graph_id: str, thread_id: ThreadId, *, opened_with: JsonObject | None = None) -> ThreadView:
        """Return the state of the last accepted checkpoint. Raises: GraphFailed, GraphNotFound, Unavailable."""
        return await self._read(graph_id, lambda access: access.view(graph_id, thread_id, opened_with=opened_with))

    async def _read(self, graph_id: str, read: Callable[[LangGraphAccess], Coroutine[object, object, T]]) -> T:
        graph = self._graphs.compiled(graph_id)
        if graph is not None and not any(isinstance(one, DeltaChannel) for one in graph.channels.values()):
            try:
                return await read(self._here)
            except UserCodeNeeded:
                pass
        return await self._loops.run(lambda: read(self._apart))


class _HomeReads:
    """Checkpoint reads on the serving loop, from any loop. Implements `checkpoint_ports.CheckpointReads`."""

    def __init__(self, home: asyncio.AbstractEventLoop, reads: CheckpointReads) -> None:
        self._home = home
        self._reads = reads

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        """Find checkpoints. Raises: Unavailable."""
        return await here(self._home, self._reads.find(query))


class _HomeStoreReads:
    """Reads of the store on the serving loop, from any loop. Implements `store_ports.StoreReads`."""

    def __init__(self, home: asyncio.AbstractEventLoop, reads: StoreReads) -> None:
        self._home = home
        self._reads = reads

    async def item(self, namespace: Namespace, key: str) -> StoredItem | None:
        """Return an item. Raises: Unavailable."""
        return await here(self._home, self._reads.item(namespace, key))

    async def search(
        self, prefix: Namespace, where: Sequence[Condition], limit: int, offset: int
    ) -> Sequence[StoredItem]:
        """Return items under a prefix. Raises: Unavailable."""
        return await here(self._home, self._reads.search(prefix, where, limit, offset))

    async def namespaces(
        self,
        prefixes: Sequence[Namespace],
        suffixes: Sequence[Namespace],
        max_depth: int | None,
        limit: int,
        offset: int,
    ) -> Sequence[Namespace]:
        """Return namespaces. Raises: Unavailable."""
        return await here(self._home, self._reads.namespaces(prefixes, suffixes, max_depth, limit, offset))
