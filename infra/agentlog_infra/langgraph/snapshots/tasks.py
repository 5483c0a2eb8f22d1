"""Tasks of the step that follows a checkpoint, by LangGraph's rule over channel versions, and what became of them.

Source: langgraph.pregel._algo, `prepare_next_tasks`, and langgraph.pregel.debug, `tasks_w_writes`.
"""

# pyright: reportMissingTypeStubs=false, reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (these parts of langgraph are not in our stubs)

import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from langgraph._internal._constants import ERROR, INTERRUPT, NULL_TASK_ID, PULL, PUSH, RETURN, TASKS
from langgraph._internal._scratchpad import PregelScratchpad
from langgraph.pregel._algo import _uuid5_str, _xxhash_str
from langgraph.pregel._task_status import TaskStatus, read_task_statuses
from langgraph.types import Send

from agentlog_facts.checkpoint_ports import StoredCheckpoint, StoredWrite
from agentlog_facts.json_value import Json, dump, dump_object, load
from agentlog_infra.langgraph.snapshots.channel_json import ChannelJson
from agentlog_infra.langgraph.snapshots.checkpoint_channels import CheckpointChannels
from agentlog_infra.langgraph.snapshots.graph_plan import GraphPlan, NodePlan

NOT_STARTED = TaskStatus()


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task of the next step."""

    id: str
    name: str
    path: tuple[str | int | bool, ...]
    triggers: tuple[str, ...]


class NextTasks:
    """Finder of the tasks of the step after one checkpoint."""

    def __init__(self, plan: GraphPlan, stored: StoredCheckpoint, channels: CheckpointChannels, step: int) -> None:
        self._plan = plan
        self._channels = channels
        self._ns = stored.checkpoint_ns
        self._step = step
        self._versions = _mapping(stored.checkpoint.get("channel_versions"))
        self._seen = _mapping(stored.checkpoint.get("versions_seen"))
        self._namespace = binascii.unhexlify(stored.checkpoint_id.replace("-", ""))
        version = stored.checkpoint.get("v")
        self._hash = _xxhash_str if isinstance(version, int) and version > 1 else _uuid5_str
        self._inputs: set[object] = set()

    def find(self) -> list[PlannedTask]:
        """Return the tasks, those of sends first. Raises: UserCodeNeeded, errors of a schema that refuses an input."""
        return [*self._pushed(), *self._pulled()]

    def _pushed(self) -> Iterator[PlannedTask]:
        if TASKS not in self._plan.channels or not self._channels.is_available(TASKS):
            return
        for place, send in enumerate(_items(self._channels.value(TASKS))):
            if isinstance(send, Send) and send.node in self._plan.runnable:
                task_id = self._id(send.node, PUSH, str(place))
                yield PlannedTask(task_id, send.node, (PUSH, place, False), (PUSH,))

    def _pulled(self) -> Iterator[PlannedTask]:
        if not self._versions:
            return
        null: Json = "" if isinstance(next(iter(self._versions.values())), str) else 0
        for one in self._plan.nodes:
            if self._is_triggered(one, null) and self._has_input(one):
                task_id = self._id(one.name, PULL, *one.sorted_triggers)
                yield PlannedTask(task_id, one.name, (PULL, one.name), one.sorted_triggers)

    def _is_triggered(self, one: NodePlan, null: Json) -> bool:
        seen = self._seen.get(one.name)
        for channel in one.triggers:
            if isinstance(seen, dict) and not _above(self._versions.get(channel, null), seen.get(channel, null)):
                continue
            if self._channels.is_available(channel):
                return True
        return False

    def _has_input(self, one: NodePlan) -> bool:
        """Return whether a node has an input; let its schema, if it has one, check the input as LangGraph does."""
        node = one.node
        if isinstance(node.channels, str):
            if node.channels not in self._plan.channels or not self._channels.is_available(node.channels):
                return False
        if node.mapper is not None and node.input_cache_key not in self._inputs:
            self._channels.user_code.run()
            node.mapper(self._input(node.channels))
            self._inputs.add(node.input_cache_key)
        return True

    def _input(self, channels: str | Sequence[str]) -> object:
        if isinstance(channels, str):
            return self._channels.value(channels)
        scratchpad = _scratchpad(self._step)
        given: dict[str, object] = {}
        for name in channels:
            if name in self._plan.managed:
                given[name] = self._plan.managed[name].get(scratchpad)
            elif self._channels.is_available(name):
                given[name] = self._channels.value(name)
        return given

    def _id(self, node: str, *parts: str) -> str:
        ns = f"{self._ns}|{node}" if self._ns else node
        return self._hash(self._namespace, ns, str(self._step), node, *parts)


class PendingWrites:
    """The writes on one checkpoint: of a command, and of each task; values of outputs stay encoded."""

    def __init__(self, writes: Sequence[StoredWrite], encoder: ChannelJson) -> None:
        self._encoder = encoder
        self.of_command = [write for write in writes if write.task_id == NULL_TASK_ID]
        self._statuses = read_task_statuses(
            (
                write.task_id,
                write.channel,
                encoder.decode(write.value) if write.channel in (ERROR, INTERRUPT) else write,
            )
            for write in writes
        )

    def status(self, task_id: str) -> TaskStatus:
        """Return what became of a task."""
        return self._statuses.get(task_id, NOT_STARTED)

    def decoded(self, writes: Sequence[StoredWrite]) -> list[tuple[str, object]]:
        """Return writes as (channel, value)."""
        return [(write.channel, self._encoder.decode(write.value)) for write in writes]

    def output(self, task_id: str) -> list[StoredWrite]:
        """Return the output of a task; empty if it has not finished."""
        return [write for _, write in self.status(task_id).output if isinstance(write, StoredWrite)]

    def result(self, task_id: str, keys: str | Sequence[str]) -> bytes:
        """Return the result of a task in JSON: its return value, or what it wrote to the keys of the state."""
        output = self.output(task_id)
        if not output:
            return b"null"
        for write in output:
            if write.channel == RETURN:
                return self._encoder.value(write.value)
        by_channel = self._by_channel(
            [w for w in output if (w.channel == keys if isinstance(keys, str) else w.channel in keys)]
        )
        if isinstance(keys, str):
            return by_channel.get(keys, b"null")
        return dump_object(by_channel)

    def _by_channel(self, output: Sequence[StoredWrite]) -> dict[str, bytes]:
        grouped: dict[str, list[StoredWrite]] = {}
        for write in output:
            earlier = grouped.get(write.channel)
            if earlier is None or (len(earlier) == 1 and earlier[0].value is None):
                grouped[write.channel] = [write]  # LangGraph does not count an earlier None
            else:
                earlier.append(write)
        return {name: self._several([self._encoder.value(w.value) for w in found]) for name, found in grouped.items()}

    def _several(self, shown: list[bytes]) -> bytes:
        if len(shown) == 1:
            return shown[0]
        first = load(shown[0])
        if isinstance(first, dict) and isinstance(inner := first.get("$writes"), list):
            shown = [*(dump(one) for one in inner), *shown[1:]]
        return b'{"$writes":[%s]}' % b",".join(shown)


def _scratchpad(step: int) -> PregelScratchpad:
    """Return what managed values get: the number of the step, with room for one more, as in LangGraph's snapshots."""
    return PregelScratchpad(
        step=step,
        stop=step + 2,
        call_counter=lambda: 0,
        interrupt_counter=lambda: 0,
        get_null_resume=lambda consume: None,
        resume=[],
        subgraph_counter=lambda: 0,
    )


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, Sequence) else ()


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _above(version: object, seen: object) -> bool:
    """Compare two versions of one channel; LangGraph's are texts or numbers."""
    return bool(version > seen)  # type: ignore[operator]  # both are of one type, which the saver chose
