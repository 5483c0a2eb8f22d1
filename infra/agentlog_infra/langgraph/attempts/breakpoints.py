"""Detection of checkpoints at which a run has already finished or had to stop.

A later attempt must not execute such a run. LangGraph takes a restart without input for a human's consent: it would run
past the breakpoint.
"""

from collections.abc import Collection, Sequence

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.constants import TAG_HIDDEN
from langgraph.pregel import Pregel
from langgraph.types import Send, StateSnapshot

from agentlog_facts.checkpoint_ports import CheckpointReads, StoredCheckpoint, find_latest, find_one
from agentlog_facts.execution_port import RunAssignment
from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_infra.langgraph.attempts.earlier_attempts import NULL_TASK_ID, EarlierAttempts
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec
from agentlog_infra.langgraph.checkpoints.saver import address
from agentlog_infra.langgraph.loading.graphs import Graph
from agentlog_infra.langgraph.run_config import Stops, stops
from agentlog_infra.langgraph.snapshot_json import config_at

CONSENT = "__interrupt__"
"""Key of `versions_seen` with the channel versions of the last resume. Source: langgraph.pregel._algo."""


class EndDetector:
    """Tells whether earlier attempts of a run have reached its end; `reads` are the projected checkpoints."""

    def __init__(self, reads: CheckpointReads, serde: SerializerProtocol, order: RunAssignment) -> None:
        self._reads = reads
        self._serde = serde
        self._order = order

    async def is_over(self, graph: Graph, earlier: EarlierAttempts, *, whole: bool) -> bool:
        """Return whether an earlier attempt has reached the end of the run or a breakpoint, also of a subgraph.

        `whole` tells that the log has the whole end of the run or nothing of it (durability `exit`).
        """
        if earlier.has_ended:
            return True
        if not earlier.wrote or (whole and earlier.last is None):
            return False
        here = await graph.aget_state(config_at(self._order.thread_id), subgraphs=True)
        if earlier.asks_again(here):
            return True
        last = earlier.last
        if last is not None and _is_finished(here):
            return True
        if whole:  # a run that stops at a breakpoint has ended
            return False
        if last is not None and await self._stops(graph, graph, last, here):
            return True
        return await self._stops_inside(graph, graph, here)

    async def _stops(self, root: Graph, graph: Graph, own: StoredCheckpoint, here: StateSnapshot) -> bool:
        """Return whether a breakpoint of the graph lies at this checkpoint; the run's own apply to the root only."""
        kwargs = self._order.kwargs if graph is root else {}
        before = stops(kwargs, "interrupt_before") or _nodes(graph.interrupt_before_nodes)
        after = stops(kwargs, "interrupt_after") or _nodes(graph.interrupt_after_nodes)
        if before and _stops_at(before, graph, own, here.next):
            return True
        return bool(after) and _stops_at(after, graph, own, await self._finished(root, graph, own))

    async def _stops_inside(self, root: Graph, graph: Graph, here: StateSnapshot) -> bool:
        """Return whether any subgraph had to stop. Its parallel tasks wait too: after a restart it would not stop."""
        for task in here.tasks:
            state = task.state
            if task.name not in here.next or not isinstance(state, StateSnapshot):
                continue
            ns = str(state.config.get("configurable", {}).get("checkpoint_ns", ""))
            own = await find_latest(self._reads, self._order.thread_id, ns)
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

    async def _finished(self, root: Graph, graph: Graph, own: StoredCheckpoint) -> Sequence[str]:
        """Return the nodes whose step made this checkpoint."""
        if own.metadata.get("source") != "loop" or not own.parent_checkpoint_id:
            return ()
        parent = await find_one(self._reads, own.thread_id, own.checkpoint_ns, own.parent_checkpoint_id)
        if parent is None:
            return ()
        codec = ChannelCodec(self._serde)
        sent = [codec.decode(write.value) for write in parent.writes if write.task_id == NULL_TASK_ID]
        snapshot: StateSnapshot = await root.aget_state(address(own.thread_id, own.checkpoint_ns, parent.checkpoint_id))
        names = [*_seen_between(parent, own, graph), *(task.name for task in snapshot.tasks)]
        return [*names, *(one.node for one in sent if isinstance(one, Send))]


def _is_finished(snapshot: StateSnapshot) -> bool:
    """Return whether no task is left to run, or all tasks that are left wait for an answer.

    LangGraph leaves tasks whose writes are stored out of `next`. When all writes are stored, `next` is empty, although
    the step that applies them and the steps after it still have to run.
    """
    waiting = [task for task in snapshot.tasks if task.name in snapshot.next and task.result is None]
    return not snapshot.tasks or (bool(waiting) and all(task.interrupts for task in waiting))


def _stops_at(nodes: Stops, graph: Graph, stored: StoredCheckpoint, names: Collection[str]) -> bool:
    """Return whether a run had to stop at this checkpoint, for breakpoints before or after one of the named nodes."""
    return _changed(stored.checkpoint) and _meets(nodes, graph, names)


def _seen_between(parent: StoredCheckpoint, stored: StoredCheckpoint, graph: Graph) -> Sequence[str]:
    """Return the nodes that read channels between two checkpoints; a node that got a `Send` leaves no trace there."""
    before, after = _versions_seen(parent), _versions_seen(stored)
    return [node for node, seen in after.items() if seen != before.get(node) and node in graph.nodes]


def _meets(nodes: Stops, graph: Graph, names: Collection[str]) -> bool:
    """Return whether the breakpoints name one of the nodes. `*` names all but hidden ones, such as START."""
    if nodes != "*":
        return any(name in (nodes or ()) for name in names)
    hidden = {name for name, node in graph.nodes.items() if TAG_HIDDEN in (getattr(node, "tags", None) or ())}
    return any(name not in hidden for name in names)


def _changed(checkpoint: JsonObject) -> bool:
    """Return whether a channel has changed since the last resume."""
    seen = as_object(as_object(checkpoint["versions_seen"], "versions_seen").get(CONSENT, {}), CONSENT)
    versions = as_object(checkpoint["channel_versions"], "channel_versions")
    return any(str(version) > str(seen.get(channel, "")) for channel, version in versions.items())


def _versions_seen(stored: StoredCheckpoint) -> dict[str, Json]:
    return as_object(stored.checkpoint["versions_seen"], "versions_seen")


def _nodes(named: Sequence[str]) -> Stops:
    """Return the breakpoints with which the graph was compiled."""
    return "*" if named == "*" else list(named) or None
