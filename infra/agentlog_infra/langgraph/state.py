"""Reader of states and histories of threads in the shape of the API, and builder of state updates."""

import logging
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.errors import EmptyInputError, InvalidUpdateError
from langgraph.graph import END, START
from langgraph.types import Command, Send, StateSnapshot, StateUpdate

from agentlog_facts.checkpoint_ports import CheckpointQuery, CheckpointReads
from agentlog_facts.configurable import is_server_key
from agentlog_facts.graph_ports import LATEST, At, BadUpdate, EncodedState, StateChange, StepUpdate, ThreadView
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.ports import Ids
from agentlog_facts.secret_values import MASK as SECRET, HiddenValues, SecretKeys
from agentlog_facts.state_diff import diff_state
from agentlog_facts.store_ports import StoreReads
from agentlog_facts.thread import StateUpdated
from agentlog_infra.langgraph.checkpoints.filters import ExcludePendingWrites, ExcludeRun
from agentlog_infra.langgraph.checkpoints.journal import CollectingJournal, ReadOnly
from agentlog_infra.langgraph.checkpoints.overlay import OverlaidReads
from agentlog_infra.langgraph.checkpoints.saver import LogSaver
from agentlog_infra.langgraph.context_schema import context_keys
from agentlog_infra.langgraph.errors import code_failures
from agentlog_infra.langgraph.loading.graphs import Access, Graph, Graphs
from agentlog_infra.langgraph.run_config import command_of
from agentlog_infra.langgraph.snapshot_json import (
    address_json,
    config_at,
    output_json,
    snapshot_json,
    thread_interrupts,
    view_json,
)
from agentlog_infra.langgraph.snapshots.graph_plan import GraphPlan
from agentlog_infra.langgraph.snapshots.reader import SnapshotReader, SnapshotSources
from agentlog_infra.langgraph.snapshots.user_code import UserCode
from agentlog_infra.langgraph.store import LogStore

log = logging.getLogger(__name__)

REFUSED = (InvalidUpdateError, EmptyInputError, ValueError, TypeError, KeyError)
"""Errors of LangGraph for values, nodes and namespaces that do not fit the graph."""


@dataclass(frozen=True, slots=True)
class StateDependencies:
    """Ports of `LangGraphAccess`."""

    graphs: Graphs
    reads: CheckpointReads
    store: StoreReads
    ids: Ids
    serde: SerializerProtocol
    secrets: SecretKeys = field(default_factory=SecretKeys)
    """Checkpoints of earlier releases may have secrets in their metadata."""
    runs_user_code: bool = True
    """Without it, reads that need code of users raise UserCodeNeeded."""


class LangGraphAccess:
    """Implements `graph_ports.GraphAccess`."""

    def __init__(self, dependencies: StateDependencies) -> None:
        self._dependencies = dependencies
        self._hidden = HiddenValues(dependencies.secrets)
        self._user_code = UserCode(allowed=dependencies.runs_user_code)
        self._plans: dict[str, GraphPlan] = {}
        """The plans of graphs that no factory makes."""

    def graph_ids(self) -> Sequence[str]:
        """Return the ids of the loaded graphs, in the order of the configuration."""
        return self._dependencies.graphs.ids()

    def description(self, graph_id: str) -> str | None:
        """Return a graph's description. Raises GraphNotFound."""
        return self._dependencies.graphs.description(graph_id)

    def context_keys(self, graph_id: str) -> Collection[str] | None:
        """Return the keys of a context that `configurable` mirrors, None for all. Raises GraphNotFound.

        For a factory it returns none: only its worker knows the graph, and adds them.
        """
        graph = self._dependencies.graphs.compiled(graph_id)
        return () if graph is None else context_keys(graph.context_schema)

    def is_made_by_factory(self, graph_id: str) -> bool:
        """Return whether a factory makes the graph. Raises GraphNotFound."""
        return self._dependencies.graphs.compiled(graph_id) is None

    async def output_values(
        self, graph_id: str, thread_id: ThreadId, values: Json, *, opened_with: JsonObject | None = None
    ) -> Json:
        """Return the part of a state's values that the output schema names. Raises: GraphFailed, GraphNotFound."""
        graph = self._dependencies.graphs.compiled(graph_id)
        if graph is not None:
            return output_json(graph, values)
        opening = _opening(config_at(thread_id), opened_with)
        async with self._reading(graph_id, opening, self._dependencies.reads) as made:
            return output_json(made, values)

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
        config = config_at(thread_id, at)
        async with self._reader(graph_id, _opening(config, opened_with), self._dependencies.reads) as reader:
            of = reader.at(at.checkpoint_ns)
            if isinstance(of, SnapshotReader):
                return (await of.state(thread_id, at, subgraphs=subgraphs)).encoded(
                    lasting=self._user_code.is_forbidden
                )
            return EncodedState.of(snapshot_json(await of.aget_state(config, subgraphs=subgraphs)))

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
        config = config_at(thread_id, at)
        ns, checkpoint_id = at.checkpoint_ns, at.checkpoint_id
        query = CheckpointQuery(thread_id, ns, checkpoint_id or None, before, metadata or None, limit=limit)
        async with self._reader(graph_id, _opening(config, opened_with), self._dependencies.reads) as reader:
            of = reader.at(ns)
            if isinstance(of, SnapshotReader):
                found = await of.history(query)
                return [one.encoded(lasting=self._user_code.is_forbidden) for one in found]
            cursor = None if before is None else config_at(thread_id, At(before))
            remote = of.aget_state_history(config, filter=metadata, before=cursor, limit=limit)
            return [EncodedState.of(snapshot_json(one)) async for one in remote]

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
        """Apply values and return the facts that the caller has to commit.

        Raises: BadUpdate, GraphFailed, GraphNotFound, Unavailable.
        """
        of_thread = _with_configurable(config_at(thread_id, at), config or {})
        of_thread["metadata"] = {"graph_id": graph_id, **(metadata or {})}
        steps = ((StateUpdate(_typed(values), as_node),),)
        update = _Update(graph_id, thread_id, of_thread, steps, _opening(of_thread, opened_with))
        try:
            return await self._update(update, self._dependencies.reads, view)
        except BadUpdate:
            if not await self._is_stuck(update):
                raise
            return await self._update(update, ExcludePendingWrites(self._dependencies.reads), view)

    async def replay(
        self, graph_id: str, thread_id: ThreadId, supersteps: Sequence[Sequence[StepUpdate]]
    ) -> StateChange:
        """Apply the updates of supersteps to an empty thread; return the facts that the caller has to commit.

        Raises: BadUpdate, GraphFailed, GraphNotFound, Unavailable.
        """
        config = config_at(thread_id, LATEST)
        config["metadata"] = {"graph_id": graph_id}
        steps = [[_step_update(one) for one in updates] for updates in supersteps]
        return await self._update(_Update(graph_id, thread_id, config, steps, config), self._dependencies.reads, None)

    async def _update(self, update: "_Update", reads: CheckpointReads, view: JsonObject | None) -> StateChange:
        journal = CollectingJournal(update.thread_id)
        token = self._dependencies.ids.uuid7()
        saver = LogSaver(OverlaidReads(reads), journal, self._dependencies.serde, token, self._hidden)
        async with self._opened(
            update.graph_id, saver, Access("threads.update", self._store(), update.opening)
        ) as graph:
            written = await _updated(graph, update)
            snapshot = await graph.aget_state(config_at(update.thread_id))
        return _change(update.thread_id, journal, address_json(written), snapshot, view)

    def _store(self) -> LogStore:
        """Return the store, for reading only."""
        return LogStore(self._dependencies.store)

    async def _is_stuck(self, update: "_Update") -> bool:
        """Return whether the graph cannot apply the pending writes, whatever the update is."""
        async with self._reading(update.graph_id, update.opening, self._dependencies.reads) as graph:
            try:
                await graph.aget_state(update.config)
            except REFUSED:
                return True
        return False

    async def view_without_run(
        self, graph_id: str, thread_id: ThreadId, run_id: RunId, *, opened_with: JsonObject | None = None
    ) -> ThreadView:
        """Return the state without the checkpoints and writes of a run. Raises: as `view`."""
        return await self._view(graph_id, thread_id, ExcludeRun(self._dependencies.reads, run_id), opened_with)

    async def view(self, graph_id: str, thread_id: ThreadId, *, opened_with: JsonObject | None = None) -> ThreadView:
        """Return the state of the last accepted checkpoint. Raises: GraphFailed, GraphNotFound, Unavailable."""
        return await self._view(graph_id, thread_id, self._dependencies.reads, opened_with)

    async def _view(
        self, graph_id: str, thread_id: ThreadId, reads: CheckpointReads, opened_with: JsonObject | None
    ) -> ThreadView:
        async with self._reader(graph_id, _opening(config_at(thread_id), opened_with), reads) as reader:
            return (await reader.state(thread_id, LATEST, subgraphs=False)).view()

    @asynccontextmanager
    async def _reader(
        self, graph_id: str, config: RunnableConfig, reads: CheckpointReads
    ) -> AsyncGenerator[SnapshotReader]:
        """Open a graph for its snapshots. Raises: GraphFailed for any error of its code."""
        saver = LogSaver(reads, ReadOnly(), self._dependencies.serde, "read", self._hidden)
        async with self._opened(graph_id, saver, Access("threads.read", self._store(), config)) as graph:
            plan = self._plans.get(graph_id) or GraphPlan(graph)
            if self._dependencies.graphs.compiled(graph_id) is not None:
                self._plans[graph_id] = plan
            yield SnapshotReader(
                graph, plan, saver, SnapshotSources(reads, self._dependencies.secrets, self._user_code)
            )

    @asynccontextmanager
    async def _reading(self, graph_id: str, config: RunnableConfig, reads: CheckpointReads) -> AsyncGenerator[Graph]:
        saver = LogSaver(reads, ReadOnly(), self._dependencies.serde, "read", self._hidden)
        async with self._opened(graph_id, saver, Access("threads.read", self._store(), config)) as graph:
            yield graph

    @asynccontextmanager
    async def _opened(self, graph_id: str, saver: LogSaver, access: Access) -> AsyncGenerator[Graph]:
        """Open a graph. Raises: GraphFailed for any error of its code, also a cancellation that nobody asked for."""
        with code_failures(graph_id, "its state was read or updated"):
            async with self._dependencies.graphs.open(graph_id, saver, access) as graph:
                yield graph


def _with_configurable(address: RunnableConfig, of_thread: JsonObject) -> RunnableConfig:
    """Return the address of a checkpoint beside the `configurable` that its thread shows, without masked secrets."""
    stated = of_thread.get("configurable")
    shown = {name: value for name, value in stated.items() if value != SECRET} if isinstance(stated, dict) else {}
    return {**address, "configurable": {**shown, **address.get("configurable", {})}}


def _opening(address: RunnableConfig, opened_with: JsonObject | None) -> RunnableConfig:
    """Return the address with the config of a run, for a factory; keys of its context are in `configurable` too."""
    stated = opened_with or {}
    context, given = stated.get("context"), stated.get("configurable")
    keys = (context if isinstance(context, dict) else {}) | (given if isinstance(given, dict) else {})
    own: JsonObject = {name: value for name, value in keys.items() if not is_server_key(name)}
    opening = _with_configurable(address, {"configurable": own})
    tags = stated.get("tags")
    if tags and isinstance(tags, list):
        opening["tags"] = [str(tag) for tag in tags]
    return opening


@dataclass(frozen=True, slots=True)
class _Update:
    """The arguments of a state update; its graph is opened with `opening`, which no checkpoint shows."""

    graph_id: str
    thread_id: ThreadId
    config: RunnableConfig
    supersteps: Sequence[Sequence[StateUpdate]]
    opening: RunnableConfig


def _step_update(stated: StepUpdate) -> StateUpdate:
    """Return an update of a superstep as LangGraph takes it."""
    given = _typed(stated.values) if stated.command is None else _typed(command_of(stated.command))
    return StateUpdate(given, stated.as_node)


def _typed(values: object) -> Any:  # Any: LangGraph says dict, and takes lists, commands and other values too
    return values


def thread_view(snapshot: StateSnapshot) -> ThreadView:
    """Return the part of a snapshot that a thread's row shows."""
    if snapshot.metadata is None:
        return ThreadView()
    checkpoint_id = address_json(snapshot.config).get("checkpoint_id")
    return ThreadView(
        values=view_json(snapshot.values),
        next=snapshot.next,
        interrupts=thread_interrupts(snapshot),
        checkpoint_id=checkpoint_id if isinstance(checkpoint_id, str) else None,
    )


async def _updated(graph: Graph, update: _Update) -> RunnableConfig:
    _demand_known_nodes(graph, update)
    try:
        return await graph.abulk_update_state(update.config, update.supersteps)
    except REFUSED as error:
        raise BadUpdate(str(error)) from error


def _demand_known_nodes(graph: Graph, update: _Update) -> None:
    """Check where commands go: LangGraph leaves out a node that it does not know. Raises: BadUpdate."""
    known = {*graph.nodes, END} - {START}
    for one in (one for step in update.supersteps for one in step):
        for name in _destinations(one.values):
            if name not in known:
                raise BadUpdate(f"goto names a node that the graph does not have: {name}")


def _destinations(values: object) -> list[str]:
    """Return the nodes that a command goes to; none if the values are no command."""
    command: Any = values  # Any: goto is a node's name, a Send, or several of them
    if not isinstance(values, Command):
        return []
    given = command.goto
    places: list[Any] = [*given] if type(given) in (list, tuple) else [given]
    return [place.node if isinstance(place, Send) else str(place) for place in places]


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
        view=diff_state(view or {}, shown.values or {}),
        next=shown.next,
        interrupts=shown.interrupts,
    )
    return StateChange(tuple(journal.facts), updated, checkpoint)
