"""Reader of a thread's state without the code of its graph, from the channels and writes of its last checkpoint."""

from collections.abc import Sequence
from typing import TypeGuard

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from langgraph.types import Interrupt

from agentlog_facts.checkpoint import EncodedChannel
from agentlog_facts.checkpoint_ports import CheckpointReads, StoredWrite, find_latest, merged
from agentlog_facts.graph_ports import StoredState
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec
from agentlog_infra.langgraph.value_json import interrupt_json, is_state_key, to_json

STATUS_CHANNELS = frozenset({ERROR, INTERRUPT, RESUME, "__error_source_node__"})
"""Channels for writes about a task. A write to any other channel is output of the task, so the task has finished.

Source: langgraph.pregel._task_status.
"""
PULLED = "~__pregel_pull, "
"""Prefix of the path of a task that runs one node, before the node's name. Other paths name no node."""


class ChannelState:
    """Reads states of threads whose graph is gone, raises, or hangs."""

    def __init__(self, reads: CheckpointReads, serde: SerializerProtocol) -> None:
        self._reads = reads
        self._codec = ChannelCodec(serde)

    async def channels(self, thread_id: ThreadId, without: RunId | None = None) -> StoredState:
        """Return the latest state, as if the run `without` had written nothing. Raises: Unavailable."""
        found = await find_latest(self._reads, thread_id, "", without)
        if found is None:
            return StoredState()
        shown: JsonObject = {
            name: to_json(self._value(channel)) for name, channel in found.channels.items() if is_state_key(name)
        }
        waiting = _open_questions(merged(found.writes))
        return StoredState(
            values=shown,
            asking=tuple(one.task_path.removeprefix(PULLED) for one in waiting if one.task_path.startswith(PULLED)),
            interrupts={one.task_id: self._questions(one) for one in waiting},
            checkpoint_id=found.checkpoint_id,
            run_id=found.run_id,
        )

    def _value(self, channel: EncodedChannel) -> object:
        return self._codec.decode_items(channel.items) if channel.kind == "list" else self._codec.decode(channel.value)

    def _questions(self, write: StoredWrite) -> list[Json]:
        value = self._codec.decode(write.value)
        return [interrupt_json(one) for one in (value if _are_interrupts(value) else ())]


def _open_questions(writes: Sequence[StoredWrite]) -> list[StoredWrite]:
    """Return the interrupts of tasks that have not finished."""
    finished = {write.task_id for write in writes if write.channel not in STATUS_CHANNELS}
    return [write for write in writes if write.channel == INTERRUPT and write.task_id not in finished]


def _are_interrupts(value: object) -> TypeGuard[Sequence[Interrupt[object]]]:
    return isinstance(value, list | tuple) and all(isinstance(one, Interrupt) for one in value)  # pyright: ignore[reportUnknownVariableType]  # the type of the items is under test here
