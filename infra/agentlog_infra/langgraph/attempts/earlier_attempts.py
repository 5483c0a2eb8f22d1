"""Facts that earlier attempts of a run have left on the log, and the part of the run's input that is still missing.

An attempt that follows a crash or a drain must leave the state that the run would have left without it. So it keeps the
checkpoints and the outputs of finished tasks, and gives every task that has not finished what the first attempt gave.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from langgraph.types import Command, Interrupt, StateSnapshot

from agentlog_facts.checkpoint import WritesSaved
from agentlog_facts.checkpoint_ports import (
    CheckpointReads,
    StoredCheckpoint,
    StoredWrite,
    find_latest,
    find_one,
    merged,
)
from agentlog_facts.execution_port import RunAssignment
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec
from agentlog_infra.langgraph.checkpoints.channel_state import STATUS_CHANNELS
from agentlog_infra.langgraph.checkpoints.saver import address
from agentlog_infra.langgraph.loading.graphs import Graph
from agentlog_infra.langgraph.run_config import run_input

NULL_TASK_ID = "00000000-0000-0000-0000-000000000000"
"""LangGraph files the writes of a command under this task."""
HANDLED = "__error_source_node__"
"""Channel of a write that sends the error of a task to the error handler of its node."""
NO_WRITES = "__no_writes__"
"""Channel of a write without a value. Source: langgraph._internal._constants."""
STUB_STEP = -2
"""Step of the empty checkpoint that LangGraph saves below the first one with `DeltaChannel` writes."""
_INTERRUPT_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class EarlierAttempts:
    """What the log has of a run before this attempt.

    `last` is the last root checkpoint of the run. `start` is the checkpoint on which the run began, if it has written
    anything but no root checkpoint yet. Both are None if it has written nothing.
    """

    run_id: RunId
    last: StoredCheckpoint | None = None
    start: StoredCheckpoint | None = None
    wrote: bool = False

    @property
    def has_ended(self) -> bool:
        """Return whether the log says that the graph has ended; only the commit of durability `exit` says it."""
        here = self.last or self.start
        return here is not None and any(
            write.channel == NO_WRITES and write.task_id == self.run_id for write in self._own(here)
        )

    def asks_again(self, snapshot: StateSnapshot) -> bool:
        """Return whether all tasks that have not finished wait for a new answer, without a new root checkpoint."""
        if self.start is None:
            return False
        asked = {write.task_id for write in self._own(self.start) if write.channel == INTERRUPT}
        waiting = {task.id for task in snapshot.tasks if task.name in snapshot.next and task.result is None}
        return bool(waiting) and waiting <= asked

    def counted(self, writes: Sequence[StoredWrite]) -> list[StoredWrite]:
        """Return the writes on a checkpoint that count for this attempt.

        Tasks that asked or failed in an earlier attempt run again, with the answers of this one. A command of the run
        replaces an answer that an earlier run left under the null task.
        """
        failed = {write.task_id for write in writes if write.channel == ERROR and write.run_id == self.run_id}
        failed -= {write.task_id for write in writes if write.channel == HANDLED}
        replaced = any(write.task_id == NULL_TASK_ID and write.run_id == self.run_id for write in writes)
        return [
            write
            for write in writes
            if not (replaced and write.task_id == NULL_TASK_ID and write.channel == RESUME)
            and (write.run_id != self.run_id or not (write.task_id in failed or write.channel in (INTERRUPT, RESUME)))
        ]

    def missing_input(self, kwargs: JsonObject, codec: ChannelCodec, *, used_up: bool) -> object:
        """Return the input or command for this attempt, without what the log has accepted of it.

        `used_up` tells that a finished task has taken an answer without an interrupt's id.
        """
        if self.last is not None:
            return None
        if self.start is None or not any(write.task_id == NULL_TASK_ID for write in self._own(self.start)):
            return run_input(kwargs)
        answer = _answer(kwargs)
        return None if answer is None else Command(resume=self._named(answer, codec, used_up=used_up))

    def _named(self, answer: Json, codec: ChannelCodec, *, used_up: bool) -> Json:
        """Return a given answer by the id of the interrupt that was open before the run, so that it counts once."""
        if _names_interrupts(answer) or self.start is None:
            return answer
        before = merged([write for write in self.start.writes if write.run_id != self.run_id])
        finished = {write.task_id for write in before if write.channel not in STATUS_CHANNELS}
        asked = [write for write in before if write.channel == INTERRUPT and write.task_id not in finished]
        found = {one.id for write in asked for one in _interrupts(codec.decode(write.value))}
        if len(found) == 1:
            return {found.pop(): answer}
        return {} if used_up else answer

    def uses_answer(self, stored: StoredCheckpoint) -> bool:
        """Return whether a task of the run finished on a checkpoint with an answer."""
        own = self._own(stored)
        finished = {write.task_id for write in own if write.channel not in STATUS_CHANNELS}
        return any(write.channel == RESUME and write.task_id in finished for write in own)

    def _own(self, stored: StoredCheckpoint) -> list[StoredWrite]:
        return [write for write in stored.writes if write.run_id == self.run_id]


async def find_earlier(reads: CheckpointReads, order: RunAssignment) -> EarlierAttempts:
    """Return what earlier attempts of a run have left. Raises: Unavailable."""
    if order.attempt == 1 or order.run_version is None:
        return EarlierAttempts(order.run_id)
    latest = await find_latest(reads, order.thread_id, "")
    if latest is not None and latest.run_id == order.run_id and latest.metadata.get("step") != STUB_STEP:
        return EarlierAttempts(order.run_id, last=latest, wrote=True)
    named = _checkpoint_id(order.kwargs)
    start = latest if named is None else await find_one(reads, order.thread_id, "", named)
    return EarlierAttempts(order.run_id, start=start, wrote=True)


async def is_answer_used(reads: CheckpointReads, graph: Graph, earlier: EarlierAttempts) -> bool:
    """Return whether a task of the run, also of a subgraph, has finished with an answer. Raises: Unavailable."""
    start = earlier.start
    if start is None or earlier.uses_answer(start):
        return start is not None
    here = await graph.aget_state(address(start.thread_id, "", start.checkpoint_id), subgraphs=True)
    return any([await _is_used_inside(reads, earlier, start.thread_id, state) for state in _states(here)])


async def _is_used_inside(
    reads: CheckpointReads, earlier: EarlierAttempts, thread_id: ThreadId, state: StateSnapshot
) -> bool:
    """Look at the latest checkpoint of a subgraph, at those of this run below it, and at the one below these."""
    named = state.config.get("configurable", {})
    ns, checkpoint_id = str(named.get("checkpoint_ns", "")), named.get("checkpoint_id")
    while checkpoint_id:
        found = await find_one(reads, thread_id, ns, str(checkpoint_id))
        if found is not None and earlier.uses_answer(found):
            return True
        checkpoint_id = found.parent_checkpoint_id if found is not None and found.run_id == earlier.run_id else None
    return any([await _is_used_inside(reads, earlier, thread_id, inner) for inner in _states(state)])


def _states(snapshot: StateSnapshot) -> list[StateSnapshot]:
    """Return the states of the subgraphs that run as tasks."""
    return [task.state for task in snapshot.tasks if isinstance(task.state, StateSnapshot)]


def ended(thread_id: ThreadId, run_id: RunId, checkpoint_id: str) -> WritesSaved:
    """Return the fact that the graph of a run has ended at a root checkpoint; LangGraph ignores it."""
    write: JsonObject = {"index": 0, "channel": NO_WRITES, "value": None}
    return WritesSaved(thread_id, run_id, "", checkpoint_id, run_id, "", (write,))


def _checkpoint_id(kwargs: JsonObject) -> str | None:
    config = kwargs.get("config")
    configurable = config.get("configurable") if isinstance(config, dict) else None
    named = configurable.get("checkpoint_id") if isinstance(configurable, dict) else None
    return str(named) if named else None


def _answer(kwargs: JsonObject) -> Json:
    command = kwargs.get("command")
    return command.get("resume") if isinstance(command, dict) else None


def _names_interrupts(answer: Json) -> bool:
    """Return whether an answer maps ids of interrupts to answers. Source: langgraph.pregel._utils."""
    return isinstance(answer, dict) and all(_INTERRUPT_ID.fullmatch(key) for key in answer)


def _interrupts(value: object) -> Sequence[Interrupt[object]]:
    return [one for one in value if _is_interrupt(one)] if _is_sequence(value) else ()


def _is_interrupt(value: object) -> TypeGuard[Interrupt[object]]:
    return isinstance(value, Interrupt)


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list | tuple)
