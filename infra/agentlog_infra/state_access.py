"""State and history of threads as the API shows them, and what a state update has to commit."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.errors import EmptyInputError, InvalidUpdateError
from langgraph.types import StateSnapshot

from agentlog_facts.checkpoint_reads import CheckpointReads, StoredCheckpoint
from agentlog_facts.graph_access import LATEST, At, BadUpdate, StateChange, ThreadView
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.ports import Ids
from agentlog_facts.thread import StateUpdated
from agentlog_facts.view import difference
from agentlog_infra.graphs import READ, Access, Graph, Graphs
from agentlog_infra.overlaid_reads import OverlaidReads
from agentlog_infra.saver import LogSaver
from agentlog_infra.saver_journal import CollectingJournal, ReadOnly
from agentlog_infra.snapshot_json import address_json, snapshot_json, thread_interrupts, view_json

UPDATE = Access("threads.update")
REFUSED = (InvalidUpdateError, EmptyInputError, ValueError, TypeError, KeyError)
"""What LangGraph raises for values, nodes and namespaces that do not fit."""


@dataclass(frozen=True, slots=True)
class StateTools:
    """What reading and updating states needs of the world."""

    graphs: Graphs
    reads: CheckpointReads
    ids: Ids
    serde: SerializerProtocol


class LangGraphAccess:
    """Keeps `GraphAccess`."""

    def __init__(self, tools: StateTools) -> None:
        self._tools = tools

    def graph_ids(self) -> Sequence[str]:
        """Return the ids of the loaded graphs, in the order of the configuration."""
        return self._tools.graphs.ids()

    def description(self, graph_id: str) -> str | None:
        """Return a graph's description. Raises GraphNotFound."""
        return self._tools.graphs.description(graph_id)

    async def get_state(
        self, graph_id: str, thread_id: ThreadId, at: At = LATEST, *, subgraphs: bool = False
    ) -> JsonObject:
        """Return a snapshot. Raises: GraphNotFound, Unavailable."""
        async with self._reading(graph_id) as graph:
            return snapshot_json(await graph.aget_state(_config(thread_id, at), subgraphs=subgraphs))

    async def get_history(
        self,
        graph_id: str,
        thread_id: ThreadId,
        at: At = LATEST,
        *,
        before: str | None = None,
        limit: int = 1,
        metadata: JsonObject | None = None,
    ) -> list[JsonObject]:
        """Return snapshots, newest first in log order. Raises: GraphNotFound, Unavailable."""
        cursor = None if before is None else _config(thread_id, At(before))
        async with self._reading(graph_id) as graph:
            history = graph.aget_state_history(_config(thread_id, at), filter=metadata, before=cursor, limit=limit)
            return [snapshot_json(snapshot) async for snapshot in history]

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
    ) -> StateChange:
        """Apply values and return what has to be committed. Raises: BadUpdate, GraphNotFound, Unavailable."""
        journal = CollectingJournal(thread_id)
        reads = OverlaidReads(self._tools.reads)
        saver = LogSaver(reads, journal, self._tools.serde, self._tools.ids.uuid7())
        config = _config(thread_id, at)
        config["metadata"] = {"graph_id": graph_id, "created_by": "system", **(metadata or {})}
        async with self._tools.graphs.open(graph_id, saver, UPDATE) as graph:
            written = await _updated(graph, config, values, as_node)
            snapshot = await graph.aget_state(_config(thread_id, LATEST))
        return _change(thread_id, journal, address_json(written), snapshot, view)

    async def view_without_run(self, graph_id: str, thread_id: ThreadId, run_id: RunId) -> ThreadView:
        """Return the state that remains without what a run accepted. Raises: GraphNotFound, Unavailable."""
        return await self._view(graph_id, thread_id, _Without(self._tools.reads, run_id))

    async def view(self, graph_id: str, thread_id: ThreadId) -> ThreadView:
        """Return the state of the last accepted checkpoint. Raises: GraphNotFound, Unavailable."""
        return await self._view(graph_id, thread_id, self._tools.reads)

    async def _view(self, graph_id: str, thread_id: ThreadId, reads: CheckpointReads) -> ThreadView:
        async with self._reading(graph_id, reads) as graph:
            return thread_view(await graph.aget_state(_config(thread_id, LATEST)))

    @asynccontextmanager
    async def _reading(self, graph_id: str, reads: CheckpointReads | None = None) -> AsyncGenerator[Graph]:
        saver = LogSaver(reads or self._tools.reads, ReadOnly(), self._tools.serde, "read")
        async with self._tools.graphs.open(graph_id, saver, READ) as graph:
            yield graph


class _Without:
    """Projected checkpoints as if one run had never been."""

    def __init__(self, reads: CheckpointReads, run_id: RunId) -> None:
        self._reads = reads
        self._run_id = run_id

    async def latest(self, thread_id: ThreadId, ns: str, exclude_run: RunId | None = None) -> StoredCheckpoint | None:
        return await self._reads.latest(thread_id, ns, exclude_run or self._run_id)

    async def get(
        self, thread_id: ThreadId, ns: str, checkpoint_id: str, exclude_run: RunId | None = None
    ) -> StoredCheckpoint | None:
        return await self._reads.get(thread_id, ns, checkpoint_id, exclude_run or self._run_id)

    async def history(
        self,
        thread_id: ThreadId | None,
        ns: str | None,
        before_checkpoint_id: str | None = None,
        limit: int | None = None,
        metadata: JsonObject | None = None,
    ) -> Sequence[StoredCheckpoint]:
        found = await self._reads.history(thread_id, ns, before_checkpoint_id, None, metadata)
        return [one for one in found if one.run_id != self._run_id][:limit]


def thread_view(snapshot: StateSnapshot) -> ThreadView:
    """Return what a thread's row shows of a snapshot."""
    if snapshot.metadata is None:
        return ThreadView()
    checkpoint_id = address_json(snapshot.config).get("checkpoint_id")
    return ThreadView(
        values=view_json(snapshot.values),
        next=snapshot.next,
        interrupts=thread_interrupts(snapshot),
        checkpoint_id=checkpoint_id if isinstance(checkpoint_id, str) else None,
    )


async def _updated(graph: Graph, config: RunnableConfig, values: Json, as_node: str | None) -> RunnableConfig:
    try:
        return await graph.aupdate_state(config, values, as_node=as_node)
    except REFUSED as error:
        raise BadUpdate(str(error)) from error


def _change(
    thread_id: ThreadId,
    journal: CollectingJournal,
    checkpoint: JsonObject,
    snapshot: StateSnapshot,
    view: JsonObject | None,
) -> StateChange:
    shown = thread_view(snapshot)
    updated = StateUpdated(
        thread_id=thread_id,
        checkpoint_ns=str(checkpoint.get("checkpoint_ns", "")),
        checkpoint_id=str(checkpoint["checkpoint_id"]),
        view=difference(view or {}, shown.values or {}),
        next=shown.next,
        interrupts=shown.interrupts,
    )
    return StateChange(tuple(journal.facts), updated, checkpoint)


def _config(thread_id: ThreadId, at: At) -> RunnableConfig:
    named: Mapping[str, object] = {
        "checkpoint_ns": at.checkpoint_ns,
        "checkpoint_id": at.checkpoint_id,
        "checkpoint_map": at.checkpoint_map,
    }
    given = {name: value for name, value in named.items() if value}
    return {"configurable": {"thread_id": thread_id, **given}}
