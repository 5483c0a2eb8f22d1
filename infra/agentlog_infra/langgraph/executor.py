"""Execution of one attempt of a run by LangGraph, from the claim to the outcome that the worker records."""

import asyncio
import copy
import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.constants import END
from langgraph.errors import NodeCancelledError
from langgraph.runtime import RunControl

from agentlog_commands.run_request import Durability
from agentlog_facts.checkpoint_ports import CheckpointReads, RunVersions, find_latest
from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_facts.execution_port import CANCELLED, AttemptLost, Emit, RunAssignment, RunOutcome, ServerTask
from agentlog_facts.frame import Frame
from agentlog_facts.graph_ports import ThreadView
from agentlog_facts.json_value import JsonObject
from agentlog_facts.ports import Clock, EventLog, Ids
from agentlog_facts.secret_values import HiddenValues, Secrets, SecretUnreadable
from agentlog_facts.store_ports import StoreAccess
from agentlog_facts.thread import RunStatus
from agentlog_infra.langgraph.attempts.breakpoints import EndDetector
from agentlog_infra.langgraph.attempts.cancellation import cancel_and_wait, forget_cancellation, is_being_cancelled
from agentlog_infra.langgraph.attempts.earlier_attempts import (
    NULL_TASK_ID,
    EarlierAttempts,
    ended,
    find_earlier,
    is_answer_used,
)
from agentlog_infra.langgraph.attempts.node_tasks import NodeTasks
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec
from agentlog_infra.langgraph.checkpoints.channel_state import ChannelState
from agentlog_infra.langgraph.checkpoints.journal import RunJournal, WriteClaim
from agentlog_infra.langgraph.checkpoints.overlay import OverlaidReads, OverlayRoom
from agentlog_infra.langgraph.checkpoints.saver import LogSaver, UpdateSaver
from agentlog_infra.langgraph.context_schema import context_keys, schema_context
from agentlog_infra.langgraph.errors import error_json
from agentlog_infra.langgraph.loading.graphs import Access, Graph, Graphs
from agentlog_infra.langgraph.run_config import (
    durability,
    is_only_update,
    run_config,
    run_context,
    run_input,
    stops,
    stream_modes,
    streams_events,
    strict_resume,
    with_context,
)
from agentlog_infra.langgraph.snapshot_json import config_at
from agentlog_infra.langgraph.snapshots.graph_plan import GraphPlan
from agentlog_infra.langgraph.snapshots.reader import SnapshotReader, SnapshotSources
from agentlog_infra.langgraph.snapshots.user_code import UserCode
from agentlog_infra.langgraph.store import LogStore, Writer
from agentlog_infra.langgraph.streaming.feedback import feedback_frames
from agentlog_infra.langgraph.streaming.frames import FrameEncoder
from agentlog_infra.langgraph.value_json import clean_text


@dataclass(frozen=True, slots=True)
class ExecutorDependencies:
    """Ports and settings of `LangGraphRuns`.

    Log, reads, versions and store must be callable from the loop that runs user code. The metadata of runs shows
    `api_url`. The checkpoints of one run may take `overlay_bytes` of memory, beside the newest one.
    """

    graphs: Graphs
    reads: CheckpointReads
    store: StoreAccess
    log: EventLog
    clock: Clock
    ids: Ids
    serde: SerializerProtocol
    api_url: str | None = None
    secrets: Secrets = field(kw_only=True)
    versions: RunVersions = field(kw_only=True)
    overlay_bytes: int = field(kw_only=True)


class LangGraphRuns:
    """Implements `execution_port.RunExecution`."""

    def __init__(self, dependencies: ExecutorDependencies) -> None:
        self._dependencies = dependencies

    async def execute(self, order: RunAssignment, emit: Emit, stop: asyncio.Event) -> RunOutcome:
        """Execute one attempt. Raises: AttemptLost, Unavailable."""
        return await GraphRun(self._dependencies, order, emit, stop).outcome()


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
        self._hidden = HiddenValues(dependencies.secrets.keys)
        self._token = f"{order.run_id}:{order.epoch}"
        self._reads = OverlaidReads(dependencies.reads)
        if not order.has_checkpoints:
            self._reads.is_new(order.thread_id)
        claim = WriteClaim(order.thread_id, order.run_id, order.epoch, order.cause, order.run_version)
        self._durability: Durability = durability(order.kwargs)
        self._holds = False
        self._control = RunControl()
        self._journal = RunJournal(
            dependencies.log, claim, dependencies.clock, dependencies.ids, acknowledged=self._durability == "sync"
        )
        self._reads.limit(OverlayRoom(dependencies.overlay_bytes, self._journal, self._projected))

    async def _projected(self) -> int | None:
        """Return the version of the run's stream in the rows. Raises: Unavailable."""
        return await self._dependencies.versions.run_version(self._order.thread_id, self._order.run_id)

    async def outcome(self) -> RunOutcome:
        """Execute the attempt and return its outcome. Raises: AttemptLost, CancelledError when drained, Unavailable."""
        earlier = await find_earlier(self._dependencies.reads, self._order)
        try:
            self._open_secrets()
        except SecretUnreadable as error:
            return await self._without_graph(self._failed(error), earlier)
        saver = self._saver()
        config = run_config(self._order, from_checkpoint=earlier.last is None, api_url=self._dependencies.api_url)
        store = self._store()
        context = run_context(self._order)
        access = Access("threads.create_run", store, with_context(config, context, None), context or None)
        try:
            async with self._dependencies.graphs.open(self._order.graph_id, saver, access) as graph:
                config = with_context(config, context, context_keys(graph.context_schema))
                return await self._in_graph(graph, config, earlier)
        except (AttemptLost, Unavailable, GeneratorExit):
            raise
        except BaseException as error:
            if self._stop.is_set() and is_being_cancelled():  # a drain
                raise asyncio.CancelledError from error
            return await self._without_graph(self._failed(error), earlier)
        finally:
            store.close()

    def _open_secrets(self) -> None:
        """Take the arguments of the run with its secrets, which nothing else may show. Raises: SecretUnreadable."""
        kwargs, self._hidden = self._dependencies.secrets.open_kwargs(self._order.kwargs, self._order.thread_id)
        self._order = replace(self._order, kwargs=kwargs)

    def _saver(self) -> LogSaver:
        return LogSaver(self._reads, self._journal, self._dependencies.serde, self._token, self._hidden)

    def _failed(self, error: BaseException) -> _End:
        if self._stop.is_set():
            return _End("interrupted")
        if isinstance(error, asyncio.CancelledError):
            return self._cancelled_inside(error)
        return _End("error", self._hidden.fields(error_json(error)))

    def _cancelled_inside(self, error: BaseException) -> _End:
        """Return the end of a run that neither a stop nor a drain has cancelled: repeated, it would do it again."""
        forget_cancellation()
        cause = f": {clean_text(str(error))}" if str(error) else ""
        message = f"graph {self._order.graph_id}: its own code cancelled the run{cause}"
        return _End("error", self._hidden.fields({"error": CANCELLED, "message": message}))

    def _store(self) -> LogStore:
        order, store = self._order, self._dependencies.store
        return LogStore(store, Writer(store, order.thread_id, order.run_id, order.epoch, order.cause))

    async def _without_graph(self, end: _End, earlier: EarlierAttempts) -> RunOutcome:
        """Return the outcome when the graph cannot tell the state, with that of its channels. Raises: AttemptLost."""
        await self._journal.close()
        order = self._order
        stored = await ChannelState(self._reads, self._dependencies.serde).channels(order.thread_id)
        view = stored.view_after(order.run_id, order.values, order.next)
        return self._outcome(end, view, earlier)

    async def _in_graph(self, graph: Graph, config: RunnableConfig, earlier: EarlierAttempts) -> RunOutcome:
        only_update = is_only_update(self._order.kwargs) and not (await graph.aget_state(config)).tasks
        self._holds = only_update or self._durability == "exit"
        if self._holds:
            self._journal.hold()  # with `only_update`: values that the graph cannot take must leave no trace
        try:
            end = await self._ended(graph, config, earlier, only_update=only_update)
        except asyncio.CancelledError:  # a drain, which may come also between the end of the graph and its mark
            self._journal.leave()
            raise
        await self._journal.close()
        try:
            view = await self._view(graph)
        except (AttemptLost, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001 - the schema of a state is user code; the run's own error comes first
            return await self._without_graph(self._failed(error) if end.status == "success" else end, earlier)
        return self._outcome(end, view, earlier)

    async def _ended(
        self, graph: Graph, config: RunnableConfig, earlier: EarlierAttempts, *, only_update: bool
    ) -> _End:
        """Run the graph to its end, unless an earlier attempt has. Raises: AttemptLost, CancelledError when drained."""
        ends = EndDetector(self._dependencies.reads, self._dependencies.serde, self._order)
        if await ends.is_over(graph, earlier, whole=self._holds):
            end = _End()
        else:
            given = await self._given(graph, earlier)
            asked = config if earlier.wrote else strict_resume(config, self._order.kwargs)
            end = await self._executed(graph, asked, given)
        if only_update and end.status == "success":
            await self._settle(graph)
        if end.status == "success":
            await self._mark_end()
            await self._emit_all(await feedback_frames(self._order.run_id, self._order.kwargs))
        return end

    async def _view(self, graph: Graph) -> ThreadView:
        """Return the state that the attempt leaves. Raises: Unavailable, and any error of user code."""
        sources = SnapshotSources(self._reads, self._dependencies.secrets.keys, UserCode(allowed=True))
        reader = SnapshotReader(graph, GraphPlan(graph), self._saver(), sources)
        return (await reader.latest(self._order.thread_id)).view()

    def _outcome(self, end: _End, view: ThreadView, earlier: EarlierAttempts) -> RunOutcome:
        return RunOutcome(
            status=end.status,
            error=end.error,
            values=view.values,
            next=tuple(clean_text(name) for name in view.next),
            interrupts=view.interrupts,
            checkpoint_id=self._last_checkpoint_id(earlier),
            run_version=self._journal.last_version,
        )

    def _last_checkpoint_id(self, earlier: EarlierAttempts) -> str | None:
        """Return the last root checkpoint of the run, of this attempt or an earlier one."""
        return self._journal.last_checkpoint_id or (earlier.last.checkpoint_id if earlier.last else None)

    async def _given(self, graph: Graph, earlier: EarlierAttempts) -> object:
        """Return the input for this attempt, and show the graph only those earlier facts that count for it."""
        kwargs = self._order.kwargs
        if not earlier.wrote:
            return run_input(kwargs)
        if self._holds and earlier.last is None:
            self._reads.exclude(self._order.run_id)  # the whole run again
            return run_input(kwargs)
        used_up = await is_answer_used(self._dependencies.reads, graph, earlier)
        newest = await find_latest(self._dependencies.reads, self._order.thread_id, None)
        self._reads.count_only(earlier.counted, newest.seq if newest is not None else 0)
        return earlier.missing_input(kwargs, ChannelCodec(self._dependencies.serde), used_up=used_up)

    async def _mark_end(self) -> None:
        """Add to the one commit of a run with `exit` that its graph has ended: the next attempt executes nothing."""
        here = self._journal.held_checkpoint_id
        if here is not None:
            fact = ended(self._order.thread_id, self._order.run_id, here)
            await self._journal.write(self._order.thread_id, (fact,))

    async def _settle(self, graph: Graph) -> None:
        """Save values that a command wrote to an idle thread as a checkpoint.

        LangGraph leaves them as pending writes, which would conflict with the next update of the same key.
        """
        token = f"{self._token}:update"
        saver = UpdateSaver(self._reads, self._journal, self._dependencies.serde, token, self._hidden)
        found = await saver.aget_tuple(config_at(self._order.thread_id))
        if found is not None and any(task_id == NULL_TASK_ID for task_id, _, _ in found.pending_writes or ()):
            settling = copy.copy(graph)
            settling.checkpointer = saver
            config = run_config(self._order, from_checkpoint=False, api_url=self._dependencies.api_url)
            await settling.aupdate_state(config, None, as_node=END)

    async def _executed(self, graph: Graph, config: RunnableConfig, given: object) -> _End:
        """Run the graph until it ends or a stop is requested. Raises: AttemptLost, CancelledError when drained."""
        nodes = NodeTasks(UUID(self._order.run_id)) if self._holds else None
        work = asyncio.create_task(self._streamed(graph, config, given, nodes), name="run_graph")
        if nodes is not None:
            nodes.watch(work)
        stopping = ServerTask(self._stop.wait(), loop=asyncio.get_running_loop(), name="run_stop")
        self._journal.on_failure(lambda: _cancel(work))
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopped = self._stop.is_set() and not work.done()
            self._control.request_drain("stopped")  # no other step starts, also in subgraphs
            if nodes is not None and not work.done():
                nodes.stop()
                await asyncio.wait({work})
            await cancel_and_wait(work)
        except asyncio.CancelledError:
            await self._leave(work)
            raise
        finally:
            await stopping.end()
        await self._journal.settled()
        if self._journal.failed:
            await self._journal.flush()
        end = self._end_of(work, stopped)
        return await self._save_step(graph) or end if stopped else end

    async def _leave(self, work: "asyncio.Task[None]") -> None:
        """Stop user code for another worker, and keep finished steps, so that they are not repeated."""
        self._journal.leave()
        self._control.request_drain("left to another worker")
        try:
            await cancel_and_wait(work)
        finally:
            await self._journal.settled()
            if not work.cancelled():
                work.exception()  # marks it as retrieved: nobody asks for it

    def _end_of(self, work: "asyncio.Task[None]", stopped: bool) -> _End:
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        if isinstance(error, AgentlogError):
            raise error
        was_cancelled = isinstance(error, asyncio.CancelledError | NodeCancelledError)
        if stopped or (self._stop.is_set() and was_cancelled):
            return _End("interrupted")
        if error is not None and was_cancelled:
            return self._cancelled_inside(error)
        return _End() if error is None else _End("error", self._hidden.fields(error_json(error)))

    async def _save_step(self, graph: Graph) -> _End | None:
        """Save the step whose nodes have all returned although the run was stopped; return an error of its values.

        LangGraph leaves their output as pending writes, which the next input would drop.
        """
        latest = await find_latest(self._reads, self._order.thread_id, "")
        if latest is None or all(write.run_id != self._order.run_id for write in latest.writes):
            return None
        snapshot = await graph.aget_state(config_at(self._order.thread_id))
        if snapshot.next or not snapshot.tasks:
            return None
        context = run_context(self._order)
        config = run_config(self._order, from_checkpoint=False, api_url=self._dependencies.api_url)
        step = graph.astream(
            None,
            with_context(config, context, context_keys(graph.context_schema)),
            context=schema_context(graph.context_schema, context),
            interrupt_before="*",  # no other node runs
            durability="exit" if self._holds else "sync",
        )
        try:
            async for _ in step:
                pass
        except AgentlogError:
            raise
        except Exception as error:  # noqa: BLE001 - reducers are user code, they may raise anything
            return _End("error", self._hidden.fields(error_json(error)))
        return None

    async def _streamed(self, graph: Graph, config: RunnableConfig, given: object, nodes: NodeTasks | None) -> None:
        kwargs = self._order.kwargs
        frames = FrameEncoder(self._hidden, kwargs, self._order.run_id)
        modes: list[str] = [*stream_modes(kwargs)]
        callbacks: list[Any] = [] if nodes is None else [nodes]
        if "tools" in modes:
            callbacks.append(frames.tool_errors)
        asked: dict[str, Any] = {
            "context": schema_context(graph.context_schema, run_context(self._order)),
            "stream_mode": modes or None,
            "interrupt_before": stops(kwargs, "interrupt_before"),
            "interrupt_after": stops(kwargs, "interrupt_after"),
            "durability": "exit" if self._holds else "sync",  # the journal implements `async`
            "output_keys": graph.output_channels,
            "subgraphs": bool(kwargs.get("subgraphs")),
            "control": self._control,
        }
        if callbacks:
            config = {**config, "callbacks": callbacks}
        if streams_events(kwargs):
            async for event in graph.astream_events(given, config, version="v2", **asked):
                await self._emit_all(frames.event_frames(event))
            return
        async for item in graph.astream(given, config, **asked):
            await self._emit_all(frames.frames(item))

    async def _emit_all(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            sent = self._emit(frame)
            if inspect.isawaitable(sent):
                await sent


def _cancel(work: "asyncio.Task[None]") -> None:
    work.cancel()
