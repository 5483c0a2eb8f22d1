"""The state of a thread without the code of its graph: what the channels and writes of its last checkpoint say."""

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

TELLING = frozenset({ERROR, INTERRUPT, RESUME, "__error_source_node__"})
"""What is written about a task; anything else is its output: it has finished. Source: langgraph.pregel._task_status."""
PULLED = "~__pregel_pull, "
"""How the path of a task begins that a node runs in by itself; the name of the node follows. Others name none."""


class ChannelState:
    """Reads states of threads whose graph is gone, raises, or hangs."""

    def __init__(self, reads: CheckpointReads, serde: SerializerProtocol) -> None:
        self._reads = reads
        self._codec = ChannelCodec(serde)

    async def channels(self, thread_id: ThreadId, without: RunId | None = None) -> StoredState:
        """Return what remains when all that the run `without` wrote is hidden. Raises: Unavailable."""
        found = await find_latest(self._reads, thread_id, "", without)
        if found is None:
            return StoredState()
        shown: JsonObject = {
            name: to_json(self._value(channel)) for name, channel in found.channels.items() if is_state_key(name)
        }
        asked = _open(merged(found.writes))
        return StoredState(
            values=shown,
            asking=tuple(one.task_path.removeprefix(PULLED) for one in asked if one.task_path.startswith(PULLED)),
            interrupts={one.task_id: self._questions(one) for one in asked},
            checkpoint_id=found.checkpoint_id,
            run_id=found.run_id,
        )

    def _value(self, channel: EncodedChannel) -> object:
        return self._codec.decode_items(channel.items) if channel.kind == "list" else self._codec.decode(channel.value)

    def _questions(self, write: StoredWrite) -> list[Json]:
        value = self._codec.decode(write.value)
        return [interrupt_json(one) for one in (value if _are_interrupts(value) else ())]


def _open(writes: Sequence[StoredWrite]) -> list[StoredWrite]:
    """Return the questions of tasks that have not finished."""
    finished = {write.task_id for write in writes if write.channel not in TELLING}
    return [write for write in writes if write.channel == INTERRUPT and write.task_id not in finished]


def _are_interrupts(value: object) -> TypeGuard[Sequence[Interrupt[object]]]:
    return isinstance(value, list | tuple) and all(isinstance(one, Interrupt) for one in value)  # pyright: ignore[reportUnknownVariableType]  # that is what is asked
