"""Execution of one attempt of a run by LangGraph, from the claim to the outcome that the worker records."""

import asyncio
import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.constants import END
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from agentlog_commands.run_request import Durability
from agentlog_facts.checkpoint_ports import CheckpointReads, StoredCheckpoint, StoredWrite, find_latest
from agentlog_facts.errors import AgentlogError
from agentlog_facts.execution_port import AttemptLost, Emit, RunAssignment, RunOutcome
from agentlog_facts.frame import Frame
from agentlog_facts.json_value import JsonObject
from agentlog_facts.ports import Clock, EventLog, Ids
from agentlog_facts.store_ports import StoreAccess
from agentlog_facts.thread import RunStatus
from agentlog_infra.langgraph.breakpoints import is_breakpoint, is_finished
from agentlog_infra.langgraph.checkpoints.journal import RunJournal, WriteClaim
from agentlog_infra.langgraph.checkpoints.overlay import OverlaidReads
from agentlog_infra.langgraph.checkpoints.saver import LogSaver, UpdateSaver, address
from agentlog_infra.langgraph.context_schema import context_keys, schema_context
from agentlog_infra.langgraph.errors import error_json
from agentlog_infra.langgraph.loading.graphs import Access, Graph, Graphs
from agentlog_infra.langgraph.run_config import (
    Stops,
    durability,
    is_only_update,
    run_config,
    run_context,
    run_input,
    stops,
    stream_modes,
    with_context,
)
from agentlog_infra.langgraph.snapshot_json import thread_interrupts, view_json
from agentlog_infra.langgraph.store import LogStore, Writer
from agentlog_infra.langgraph.value_json import is_state_key, to_json

NULL_TASK_ID = "00000000-0000-0000-0000-000000000000"
"""LangGraph files the writes of a command under this task."""
RESUME = "__resume__"


@dataclass(frozen=True, slots=True)
class ExecutorDependencies:
    """Ports and settings of `LangGraphRuns`.

    Log, reads and store must be callable from the loop that runs user code. The metadata of runs shows `api_url`.
    """

    graphs: Graphs
    reads: CheckpointReads
    store: StoreAccess
    log: EventLog
    clock: Clock
    ids: Ids
    serde: SerializerProtocol
    api_url: str | None = None


class LangGraphRuns:
    """Implements `execution_port.RunExecution`."""

    def __init__(self, dependencies: ExecutorDependencies) -> None:
        self._dependencies = dependencies

    async def execute(self, order: RunAssignment, emit: Emit, stop: asyncio.Event) -> RunOutcome:
        """Execute one attempt. Raises: AttemptLost, Unavailable."""
        try:
            return await GraphRun(self._dependencies, order, emit, stop).outcome()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Neither a stop nor a drain caused this: reported as a drain, the run would be repeated for ever.
            raise AttemptLost(f"run {order.run_id}: user code cancelled the run from inside") from error


@dataclass(frozen=True, slots=True)
class _End:
    """The end of user code."""

    status: RunStatus = "success"
    error: JsonObject | None = None


class GraphRun:
    """One attempt of a run, from the opening of its graph to the outcome."""

    def __init__(
        self, dependencies: ExecutorDependencies, order: RunAssignment, emit: Emit, stop: asyncio.Event
    ) -> None:
        self._dependencies = dependencies
        self._order = order
        self._emit = emit
        self._stop = stop
        self._token = f"{order.run_id}:{order.epoch}"
        self._reads = OverlaidReads(dependencies.reads)
        claim = WriteClaim(order.thread_id, order.run_id, order.epoch, order.cause, order.run_version)
        self._durability: Durability = durability(order.kwargs)
        self._journal = RunJournal(
            dependencies.log, claim, dependencies.clock, dependencies.ids, acknowledged=self._durability == "sync"
        )

    async def outcome(self) -> RunOutcome:
        """Execute the attempt and return its outcome. Raises: AttemptLost, CancelledError when drained, Unavailable."""
        own, inside = await self._earlier()
        self._reads = OverlaidReads(self._dependencies.reads, self._ignored(own, inside))
        saver = LogSaver(self._reads, self._journal, self._dependencies.serde, self._token)
        config = run_config(self._order, from_checkpoint=own is None, api_url=self._dependencies.api_url)
        store = self._store()
        context = run_context(self._order)
        access = Access("threads.create_run", store, with_context(config, context, None), context or None)
        try:
            async with self._dependencies.graphs.open(self._order.graph_id, saver, access) as graph:
                config = with_context(config, context, context_keys(graph.context_schema))
                over = inside and await self._is_over(graph, own)
                return await self._in_graph(graph, config, own, over, None if inside else run_input(self._order.kwargs))
        except (AgentlogError, asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a user's factory may raise anything, also SystemExit
            return await self._unopened(saver, error)
        finally:
            store.close()

    def _store(self) -> LogStore:
        order, store = self._order, self._dependencies.store
        return LogStore(store, Writer(store, order.thread_id, order.run_id, order.epoch, order.cause))

    async def _unopened(self, saver: LogSaver, error: BaseException) -> RunOutcome:
        """Return the outcome when the graph cannot be opened, with the state from its channels. Raises: AttemptLost."""
        await self._journal.close()
        found = await saver.aget_tuple({"configurable": {"thread_id": self._order.thread_id}})
        values = None if found is None else found.checkpoint["channel_values"]
        shown = None if values is None else {name: to_json(values[name]) for name in values if is_state_key(name)}
        return RunOutcome("error", error_json(error), shown, (), {}, None, self._journal.last_version)

    async def _earlier(self) -> tuple[StoredCheckpoint | None, bool]:
        """Return the last root checkpoint of earlier attempts, and whether they wrote any, subgraphs included."""
        if self._order.attempt == 1:
            return None, False
        thread_id, run_id = self._order.thread_id, self._order.run_id
        latest = await find_latest(self._dependencies.reads, thread_id, "")
        if latest is not None and latest.run_id == run_id:
            return latest, True
        newest = await find_latest(self._dependencies.reads, thread_id, None)
        return None, newest is not None and newest.run_id == run_id

    def _ignored(self, own: StoredCheckpoint | None, inside: bool) -> Callable[[StoredWrite], bool] | None:
        """Return a filter for the writes of earlier attempts that must not count, None if all of them count.

        After a root checkpoint of this run, all of them count. The answers of a resume would count twice: this attempt
        passes them again, or a subgraph that already wrote has used them up. Other writes of a command are ignored
        only if this attempt passes the command again.
        """
        run_id = self._order.run_id
        if own is not None or self._order.attempt == 1:
            return None
        if inside:
            return lambda write: write.run_id == run_id and write.channel == RESUME
        return lambda write: write.run_id == run_id and (write.channel == RESUME or write.task_id == NULL_TASK_ID)

    async def _in_graph(
        self, graph: Graph, config: RunnableConfig, own: StoredCheckpoint | None, over: bool, given: object
    ) -> RunOutcome:
        writes_only = is_only_update(self._order.kwargs) and not (await graph.aget_state(config)).next
        if writes_only:
            self._durability = "exit"  # values that the graph cannot take must leave no trace
        end = _End() if over else await self._executed(graph, config, given)
        if writes_only and end.status == "success":
            await self._settle(graph)
        await self._journal.close()
        snapshot = await graph.aget_state({"configurable": {"thread_id": self._order.thread_id}})
        return RunOutcome(
            status=end.status,
            error=end.error,
            values=None if snapshot.metadata is None else view_json(snapshot.values),
            next=snapshot.next,
            interrupts=thread_interrupts(snapshot),
            checkpoint_id=self._journal.last_checkpoint_id or (own.checkpoint_id if own else None),
            run_version=self._journal.last_version,
        )

    async def _settle(self, graph: Graph) -> None:
        """Save values that a command wrote to an idle thread as a checkpoint.

        LangGraph leaves them as pending writes, which would conflict with the next update of the same key.
        """
        saver = UpdateSaver(self._reads, self._journal, self._dependencies.serde, f"{self._token}:update")
        found = await saver.aget_tuple({"configurable": {"thread_id": self._order.thread_id}})
        if found is not None and any(task_id == NULL_TASK_ID for task_id, _, _ in found.pending_writes or ()):
            settling = copy.copy(graph)
            settling.checkpointer = saver
            config = run_config(self._order, from_checkpoint=False, api_url=self._dependencies.api_url)
            await settling.aupdate_state(config, None, as_node=END)

    async def _is_over(self, graph: Graph, own: StoredCheckpoint | None) -> bool:
        """Return whether an earlier attempt has reached the end of the run or a breakpoint, also of a subgraph."""
        here = await graph.aget_state({"configurable": {"thread_id": self._order.thread_id}}, subgraphs=True)
        if own is not None and (is_finished(here) or await self._stops(graph, graph, own, here)):
            return True
        return await self._stops_inside(graph, graph, here)

    async def _stops(self, root: Graph, graph: Graph, own: StoredCheckpoint, here: StateSnapshot) -> bool:
        """Return whether a breakpoint of the graph lies at this checkpoint; the run's own apply to the root only."""
        kwargs = self._order.kwargs if graph is root else {}
        before = stops(kwargs, "interrupt_before") or _nodes(graph.interrupt_before_nodes)
        after = stops(kwargs, "interrupt_after") or _nodes(graph.interrupt_after_nodes)
        if not before and not after:
            return False
        return is_breakpoint(own, before, after, here.next, await self._finished(root, own))

    async def _stops_inside(self, root: Graph, graph: Graph, here: StateSnapshot) -> bool:
        """Return whether any subgraph had to stop. Its parallel tasks wait too: after a restart it would not stop."""
        for task in here.tasks:
            state = task.state
            if task.name not in here.next or not isinstance(state, StateSnapshot):
                continue
            ns = str(state.config.get("configurable", {}).get("checkpoint_ns", ""))
            own = await find_latest(self._dependencies.reads, self._order.thread_id, ns)
            mine = own if own is not None and own.run_id == self._order.run_id else None
            async for _, inner in graph.aget_subgraphs(namespace=task.name):
                # a remote graph handles its breakpoints itself
                if not isinstance(inner, Pregel):  # pyright: ignore[reportUnnecessaryIsInstance]  # stubs know of none
                    continue
                if mine is not None and await self._stops(root, inner, mine, state):
                    return True
                if await self._stops_inside(root, inner, state):
                    return True
        return False

    async def _finished(self, graph: Graph, own: StoredCheckpoint) -> Sequence[str]:
        """Return the nodes of the step that made this checkpoint."""
        if not own.parent_checkpoint_id:
            return ()
        parent = address(own.thread_id, own.checkpoint_ns, own.parent_checkpoint_id)
        snapshot: StateSnapshot = await graph.aget_state(parent)
        return [task.name for task in snapshot.tasks]

    async def _executed(self, graph: Graph, config: RunnableConfig, given: object) -> _End:
        """Run the graph until it ends or a stop is requested. Raises: AttemptLost, CancelledError when drained."""
        work = asyncio.create_task(self._streamed(graph, config, given), name="run_graph")
        stopping = asyncio.create_task(self._stop.wait(), name="run_stop")
        self._journal.on_failure(lambda: _cancel(work))
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            try:
                await _cancel_and_wait(work)
            finally:
                await self._journal.settled()  # also when drained, so that finished steps are not repeated
        if self._journal.failed:
            await self._journal.flush()
        return self._end_of(work)

    def _end_of(self, work: "asyncio.Task[None]") -> _End:
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        if isinstance(error, AgentlogError):
            raise error
        if self._stop.is_set() and isinstance(error, asyncio.CancelledError):
            return _End("interrupted")
        return _End() if error is None else _End("error", error_json(error))

    async def _streamed(self, graph: Graph, config: RunnableConfig, given: object) -> None:
        kwargs = self._order.kwargs
        nested = bool(kwargs.get("subgraphs"))
        stream = graph.astream(
            given,
            config,
            context=schema_context(graph.context_schema, run_context(self._order)),
            stream_mode=stream_modes(kwargs),
            interrupt_before=stops(kwargs, "interrupt_before"),
            interrupt_after=stops(kwargs, "interrupt_after"),
            durability="exit" if self._durability == "exit" else "sync",  # the journal implements `async`
            output_keys=graph.output_channels,
            subgraphs=nested,
        )
        async for item in stream:
            ns, mode, data = _part(item)
            sent = self._emit(Frame(mode, to_json(data), "|".join(ns)))
            if inspect.isawaitable(sent):
                await sent


def _part(item: object) -> tuple[tuple[str, ...], str, object]:
    """Return (namespace, mode, data) of an item of a stream; LangGraph leaves out the namespace without subgraphs."""
    if _is_nested_part(item):
        return item
    if _is_root_part(item):
        return (), *item
    raise TypeError(f"langgraph streams {type(item).__name__}, expected (namespace, mode, data) or (mode, data)")


def _is_nested_part(item: object) -> TypeGuard[tuple[tuple[str, ...], str, object]]:
    return isinstance(item, tuple) and len(item) == 3  # pyright: ignore[reportUnknownArgumentType]  # any tuple


def _is_root_part(item: object) -> TypeGuard[tuple[str, object]]:
    return isinstance(item, tuple) and len(item) == 2  # pyright: ignore[reportUnknownArgumentType]  # any tuple


def _cancel(work: "asyncio.Task[None]") -> None:
    work.cancel()


async def _cancel_and_wait(work: "asyncio.Task[None]") -> None:
    """Cancel user code and wait until it has ended, also while this task itself is being cancelled.

    It cancels once only: after a second cancel LangGraph returns while nodes still run.
    """
    cancelled: asyncio.CancelledError | None = None
    if not work.done():
        work.cancel()
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _nodes(named: Sequence[str]) -> Stops:
    """Return the breakpoints with which the graph was compiled."""
    return "*" if named == "*" else list(named) or None
