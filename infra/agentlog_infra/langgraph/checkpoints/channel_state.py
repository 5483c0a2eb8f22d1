"""Reader of a thread's state without the code of its graph, from the channels and writes of its last checkpoint."""

import logging
from collections.abc import Sequence
from typing import TypeGuard

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, _DeltaSnapshot  # pyright: ignore[reportPrivateUsage]  # langgraph's channels read it too
from langgraph.types import Interrupt

from agentlog_facts.checkpoint import EncodedChannel, channel_versions
from agentlog_facts.checkpoint_ports import CheckpointReads, StoredCheckpoint, StoredWrite, find_latest, merged
from agentlog_facts.graph_ports import StoredState
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec
from agentlog_infra.langgraph.value_json import interrupt_json, is_state_key, to_json

log = logging.getLogger(__name__)

STATUS_CHANNELS = frozenset({ERROR, INTERRUPT, RESUME, "__error_source_node__"})
"""Channels for writes about a task. A write to any other channel is output of the task, so the task has finished.

Source: langgraph.pregel._task_status.
"""
BRANCH = "branch:to:"
"""Prefix of the channel by which an edge triggers a node, before the node's name. Source: langgraph.graph.state."""
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
            name: self._shown(channel) for name, channel in found.channels.items() if is_state_key(name)
        }
        writes = merged(found.writes)
        waiting = _open_questions(writes)
        asking = [one.task_path.removeprefix(PULLED) for one in waiting if one.task_path.startswith(PULLED)]
        return StoredState(
            values=shown,
            next=tuple(dict.fromkeys([*asking, *_triggered(found, writes)])),
            interrupts={one.task_id: self._questions(one) for one in waiting},
            checkpoint_id=found.checkpoint_id,
            run_id=found.run_id,
            missing=frozenset(filter(is_state_key, channel_versions(found.checkpoint).keys() - found.channels.keys())),
        )

    def _shown(self, channel: EncodedChannel) -> Json:
        """Return the value as JSON; a text about it if the code of its class is gone or raises."""
        try:
            return to_json(self._value(channel))
        except Exception as error:  # noqa: BLE001 - the value's own code runs here; it must not keep a run from ending
            log.warning("state.value_unreadable", extra={"error": type(error).__name__})
            return f"<unreadable: {type(error).__name__}>"

    def _value(self, channel: EncodedChannel) -> object:
        if channel.kind == "list":
            return self._codec.decode_items(channel.items)
        value = self._codec.decode(channel.value)
        return value.value if isinstance(value, _DeltaSnapshot) else value  # the copy of a `DeltaChannel`

    def _questions(self, write: StoredWrite) -> list[Json]:
        try:
            value = self._codec.decode(write.value)
            return [interrupt_json(one) for one in (value if _are_interrupts(value) else ())]
        except Exception as error:  # noqa: BLE001 - as in `_shown`
            log.warning("state.value_unreadable", extra={"error": type(error).__name__})
            return []


def _open_questions(writes: Sequence[StoredWrite]) -> list[StoredWrite]:
    """Return the interrupts of tasks that have not finished."""
    finished = {write.task_id for write in writes if write.channel not in STATUS_CHANNELS}
    return [write for write in writes if write.channel == INTERRUPT and write.task_id not in finished]


def _triggered(found: StoredCheckpoint, writes: Sequence[StoredWrite]) -> list[str]:
    """Return the nodes that an edge has triggered and that have not finished.

    Source: langgraph.pregel._algo: a node runs if a channel that triggers it is newer than the node has seen.
    """
    seen = as_object(found.checkpoint.get("versions_seen", {}), "versions_seen")
    versions = as_object(found.checkpoint.get("channel_versions", {}), "channel_versions")
    finished = {write.task_path for write in writes if write.channel not in STATUS_CHANNELS}
    nodes = {channel.removeprefix(BRANCH): channel for channel in found.channels if channel.startswith(BRANCH)}
    return [
        node
        for node, channel in nodes.items()
        if as_object(seen.get(node, {}), "versions_seen").get(channel) != versions.get(channel)
        and f"{PULLED}{node}" not in finished
    ]


def _are_interrupts(value: object) -> TypeGuard[Sequence[Interrupt[object]]]:
    return isinstance(value, list | tuple) and all(isinstance(one, Interrupt) for one in value)  # pyright: ignore[reportUnknownVariableType]  # the type of the items is under test here
