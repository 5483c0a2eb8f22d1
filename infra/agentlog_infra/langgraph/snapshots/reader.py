"""Reader of snapshots: checkpoints with their pending writes, as LangGraph shows them, from their encoded values.

LangGraph's own snapshots decode every value of every checkpoint; that was nine tenths of the cost of a history. What a
graph computes stays LangGraph's: rebuilt delta channels, pending writes applied by reducers, input that a schema
checks, and states of remote subgraphs.
"""

# pyright: reportMissingTypeStubs=false, reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (these parts of langgraph are not in our stubs)

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from langgraph._internal._config import recast_checkpoint_ns
from langgraph._internal._constants import INPUT
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.pregel import Pregel
from langgraph.pregel._algo import PregelTaskWrites
from langgraph.pregel._checkpoint import achannels_from_checkpoint
from langgraph.types import Interrupt

from agentlog_facts.checkpoint import channel_versions
from agentlog_facts.checkpoint_ports import (
    CheckpointQuery,
    CheckpointReads,
    StoredCheckpoint,
    find_latest,
    find_one,
    merged,
)
from agentlog_facts.errors import AgentlogError
from agentlog_facts.graph_ports import LATEST, At
from agentlog_facts.ids import ThreadId
from agentlog_facts.json_value import Json, JsonObject, dump
from agentlog_facts.secret_values import SecretKeys
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec
from agentlog_infra.langgraph.checkpoints.filters import without_values
from agentlog_infra.langgraph.checkpoints.saver import LogSaver, address
from agentlog_infra.langgraph.errors import EXITS
from agentlog_infra.langgraph.loading.graphs import Graph
from agentlog_infra.langgraph.snapshot_json import address_json, config_at, error_text, snapshot_json
from agentlog_infra.langgraph.snapshots.channel_json import ChannelJson
from agentlog_infra.langgraph.snapshots.checkpoint_channels import CheckpointChannels
from agentlog_infra.langgraph.snapshots.graph_plan import Channel, GraphPlan, Remote
from agentlog_infra.langgraph.snapshots.snapshot import NULL, Snapshot, TaskView
from agentlog_infra.langgraph.snapshots.tasks import NextTasks, PendingWrites, PlannedTask
from agentlog_infra.langgraph.snapshots.user_code import UserCode
from agentlog_infra.langgraph.value_json import interrupt_json, stored_json

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SnapshotSources:
    """What the readers of a graph and of its subgraphs share."""

    reads: CheckpointReads
    secrets: SecretKeys
    user_code: UserCode


class SnapshotReader:
    """Reads snapshots of one graph, or of one of its subgraphs. Reads raise UserCodeNeeded without its permission."""

    def __init__(self, graph: Graph, plan: GraphPlan, saver: LogSaver, sources: SnapshotSources) -> None:
        self._graph = graph
        self._plan = plan
        self._sources = sources
        self._reads, self._secrets, self._user_code = sources.reads, sources.secrets, sources.user_code
        own = graph._apply_checkpointer_allowlist(saver)  # types that only this graph's schema allows
        self._saver = own if isinstance(own, LogSaver) else saver
        self._encoder = ChannelJson(ChannelCodec(self._saver.serde), self._user_code)

    def at(self, ns: str) -> "SnapshotReader | Remote":
        """Return the reader of the graph that a namespace names; a remote graph reads itself."""
        named = self._graph.get_subgraphs(namespace=recast_checkpoint_ns(ns), recurse=True) if ns else iter(())
        name, found = next(named, ("", None))
        if found is None:
            return self
        if isinstance(found, Pregel):
            return SnapshotReader(found, self._plan.inner(name, found), self._saver, self._sources)
        self._user_code.run()
        return found

    async def state(self, thread_id: ThreadId, at: At, *, subgraphs: bool) -> Snapshot:
        """Return the state at an address; LangGraph shows the latest one of a graph with its finished tasks."""
        ns = self._own_ns(at.checkpoint_ns)
        if at.checkpoint_id:
            stored = await find_one(self._reads, thread_id, ns, at.checkpoint_id)
        else:
            stored = await find_latest(self._reads, thread_id, ns)
        if stored is None:
            return _nothing(thread_id, replace(at, checkpoint_ns=ns))
        return await self._shown(stored, live=not at.checkpoint_id, recurse=subgraphs)

    async def latest(self, thread_id: ThreadId) -> Snapshot:
        """Return the latest state with all pending writes. Raises: any error of user code, such as a reducer's."""
        stored = await find_latest(self._reads, thread_id, self._own_ns(""))
        if stored is None:
            return _nothing(thread_id, LATEST)
        return await self._snapshot(stored, live=True, recurse=False)

    async def history(self, query: CheckpointQuery) -> list[Snapshot]:
        """Return the states at all checkpoints of a query, newest first."""
        found = await self._reads.find(replace(query, ns=self._own_ns(query.ns or "")))
        oldest_first = [await self._shown(one, live=False, recurse=False) for one in reversed(found)]
        return oldest_first[::-1]

    def _own_ns(self, ns: str) -> str:
        """Return where this graph's checkpoints are: a subgraph with `checkpointer=True` has one history a thread."""
        if self._graph.checkpointer is not True:
            return ns
        return "|".join(part.split(":")[0] for part in ns.split("|"))

    async def _shown(self, stored: StoredCheckpoint, *, live: bool, recurse: bool) -> Snapshot:
        """Return a snapshot; if the pending writes of a failed step cannot be applied, that of before the step."""
        try:
            return await self._snapshot(stored, live=live, recurse=recurse)
        except AgentlogError:
            raise
        except (Exception, *EXITS) as error:  # noqa: BLE001 - reducers are user code, they may raise anything
            log.warning("state.writes_left_out", extra={"error": type(error).__name__})
        return await self._snapshot(without_values(stored), live=live, recurse=recurse)

    async def _snapshot(self, stored: StoredCheckpoint, *, live: bool, recurse: bool) -> Snapshot:
        channels = CheckpointChannels(self._plan, stored.channels, self._encoder, await self._replayed(stored))
        number = stored.metadata.get("step", -1)
        step = (number if isinstance(number, int) else -1) + 1
        tasks = NextTasks(self._plan, stored, channels, step).find()
        pending = PendingWrites(merged(stored.writes), self._encoder)
        inside = [await self._inside(stored, task, recurse=recurse) for task in tasks]
        done = self._apply(channels, tasks, pending, live=live)
        keys = self._plan.keys
        views = [_task_view(task, pending, keys, state, live=live) for task, state in zip(tasks, inside, strict=True)]
        return Snapshot(
            values=(channels.json(keys) or NULL) if isinstance(keys, str) else _values(channels, keys),
            next=tuple(task.name for task in tasks if task.id not in done),
            tasks=views,
            metadata=stored_json(self._secrets.masked_object(stored.metadata) | {"thread_id": stored.thread_id}),
            created_at=stored.checkpoint.get("ts"),
            address=_address(stored, stored.checkpoint_id),
            parent=_address(stored, stored.parent_checkpoint_id) if stored.parent_checkpoint_id else None,
        )

    async def _replayed(self, stored: StoredCheckpoint) -> Mapping[str, Channel]:
        """Return the channels whose value LangGraph rebuilds from the writes on earlier checkpoints."""
        missing = [name for name in self._plan.replayed if name not in stored.channels]
        versions = channel_versions(stored.checkpoint) if missing else {}
        names = [name for name in missing if name in versions]
        if not names:
            return {}
        self._user_code.run()
        specs = {name: self._plan.channels[name] for name in names}
        checkpoint: Checkpoint = {**empty_checkpoint(), "channel_versions": dict(versions)}
        config = address(stored.thread_id, stored.checkpoint_ns, stored.checkpoint_id)
        channels, _ = await achannels_from_checkpoint(specs, checkpoint, saver=self._saver, config=config)
        return channels

    def _apply(
        self, channels: CheckpointChannels, tasks: Sequence[PlannedTask], pending: PendingWrites, *, live: bool
    ) -> set[str]:
        """Apply the writes of a command, and for the latest state those of finished tasks; return the ids of these."""
        if pending.of_command:
            writes = pending.decoded(pending.of_command)
            channels.apply([PregelTaskWrites((), INPUT, writes, [])], whole_step=False)
        done = {task.id: output for task in tasks if live and (output := pending.output(task.id))}
        if done:
            finished = [task for task in tasks if task.id in done]
            channels.apply(
                [PregelTaskWrites(t.path, t.name, pending.decoded(done[t.id]), t.triggers) for t in finished],
                whole_step=True,
            )
        return set(done)

    async def _inside(self, stored: StoredCheckpoint, task: PlannedTask, *, recurse: bool) -> "tuple[bytes, bytes]":
        """Return `checkpoint` and `state` of a task: the address of its subgraph, or with `recurse` its state."""
        graph = self._plan.subgraphs.get(task.name)
        if graph is None:
            return NULL, NULL
        ns = f"{task.name}:{task.id}"
        ns = f"{stored.checkpoint_ns}|{ns}" if stored.checkpoint_ns else ns
        if not recurse:
            return dump({"thread_id": stored.thread_id, "checkpoint_ns": ns}), NULL
        if isinstance(graph, Pregel):
            inner = SnapshotReader(graph, self._plan.inner(task.name, graph), self._saver, self._sources)
            found = await inner.state(stored.thread_id, At(checkpoint_ns=ns), subgraphs=True)
            return NULL, found.encoded().document()
        self._user_code.run()
        remote = await graph.aget_state(config_at(stored.thread_id, At(checkpoint_ns=ns)), subgraphs=True)
        return NULL, dump(snapshot_json(remote))  # only the remote server knows it


def _nothing(thread_id: ThreadId, at: At) -> Snapshot:
    return Snapshot({}, (), (), None, None, address_json(config_at(thread_id, at)), None)


def _address(stored: StoredCheckpoint, checkpoint_id: str) -> JsonObject:
    shown: JsonObject = {
        "checkpoint_id": checkpoint_id,
        "thread_id": stored.thread_id,
        "checkpoint_ns": stored.checkpoint_ns,
    }
    parents = stored.metadata.get("parents")
    if parents and isinstance(parents, dict):
        shown["checkpoint_map"] = {**parents, stored.checkpoint_ns: checkpoint_id}
    return shown


def _values(channels: CheckpointChannels, keys: Sequence[str]) -> dict[str, bytes]:
    shown = {name: channels.json(name) for name in keys}
    return {name: value for name, value in shown.items() if value is not None}


def _task_view(
    task: PlannedTask,
    pending: PendingWrites,
    keys: str | Sequence[str],
    inside: "tuple[bytes, bytes]",
    *,
    live: bool,
) -> TaskView:
    status = pending.status(task.id)
    found: Sequence[Interrupt] = status.pending_interrupts if live else status.interrupts
    interrupts: list[Json] = [interrupt_json(one) for one in found]
    checkpoint, state = inside
    shown = b'{"id":%s,"name":%s,"path":%s,"error":%s,"interrupts":%s,"checkpoint":%s,"state":%s,"result":%s}' % (
        dump(task.id),
        dump(task.name),
        dump([*task.path]),
        NULL if status.error is None else dump(error_text(status.error)),
        dump(interrupts),
        checkpoint,
        state,
        pending.result(task.id, keys),
    )
    return TaskView(task.id, task.name, shown, interrupts)
