"""Facts of a thread and its runs, and the state they fold into."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, TypeAlias, assert_never

from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject

RunStatus: TypeAlias = Literal["pending", "running", "success", "error", "timeout", "interrupted", "rollback"]
CancelAction: TypeAlias = Literal["interrupt", "rollback"]

LOST = "lost"
"""Reason of the release of a claim whose worker died or fell silent."""

_INTERRUPT_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class ThreadCreated:
    """A thread was created. A `temporary` thread is deleted at the end of its only run.

    `ttl` is as in `ThreadTtlSet`; None: the thread never expires.
    """

    thread_id: ThreadId
    metadata: JsonObject
    temporary: bool = False
    ttl: JsonObject | None = field(default=None, metadata={"added": True})


@dataclass(frozen=True, slots=True)
class ThreadMetadataPatched:
    """Top-level keys were merged over the thread's metadata (a null is stored).

    This fact is on the stream `meta-`; in commits of rules 1, a large first one is on `thread-`.
    """

    thread_id: ThreadId
    metadata: JsonObject


@dataclass(frozen=True, slots=True)
class ThreadTtlSet:
    """The time to live of a thread was set: {strategy, ttl_minutes}, in minutes after its last update.

    After that time the thread is deleted (strategy `delete`), or all checkpoints but the last of each namespace are
    hidden (`keep_latest`). This fact is on the stream `meta-`.
    """

    thread_id: ThreadId
    ttl: JsonObject


@dataclass(frozen=True, slots=True)
class ThreadPruned:
    """Only the last checkpoint of each namespace was kept; `CheckpointsHidden` of this commit names the others.

    A thread with the strategy `keep_latest` does not expire again before its next update.
    """

    thread_id: ThreadId


@dataclass(frozen=True, slots=True)
class ThreadCopied:
    """The thread was created as a copy; its checkpoints are on its stream `copy-`. The other fields: `StateUpdated`.

    This fact follows `ThreadCreated` in one commit. From then on the thread exists.
    """

    thread_id: ThreadId
    source_thread_id: ThreadId
    view: JsonObject
    next: tuple[str, ...]
    interrupts: JsonObject


@dataclass(frozen=True, slots=True)
class ThreadDeleted:
    """The thread was deleted; no reader sees it, its runs or its checkpoints any more."""

    thread_id: ThreadId


@dataclass(frozen=True, slots=True)
class StateUpdated:
    """A client updated the state; the checkpoints of the update are in the same commit.

    `view` is the change of the thread's JSON values; `next` names the nodes that would run next;
    `interrupts` maps a task id to its open interrupts. `command` is the update as the client asked for it: {values,
    as_node, checkpoint, checkpoint_id}; it is None in facts of earlier releases.
    """

    thread_id: ThreadId
    checkpoint_ns: str
    checkpoint_id: str
    view: JsonObject
    next: tuple[str, ...]
    interrupts: JsonObject
    command: JsonObject | None = field(default=None, metadata={"added": True})


@dataclass(frozen=True, slots=True)
class RunCreated:
    """A run waits for a worker. The fact holds everything that the run needs, so a fold reads no other aggregate.

    `assistant` is the resolved assistant: {assistant_id, graph_id, version, config, context, metadata};
    `kwargs` is the stored request, as the API shows it; `due_at` is the earliest start of a delayed run.
    `thread_config` is the config that the thread shows; it is None in facts of earlier releases, whose threads show
    `kwargs.config` without the keys of the server.
    `resumes` names the interrupts that a resume answers, as they were open when it was decided: {interrupt_id, task_id,
    checkpoint_id}; a task is None where the run starts from an older checkpoint. `consistency_token` is the one that
    the client sent, so it names what the client had seen.
    """

    run_id: RunId
    thread_id: ThreadId
    assistant: JsonObject
    metadata: JsonObject
    kwargs: JsonObject
    multitask_strategy: str
    due_at: datetime | None = None
    temporary: bool = False
    thread_config: JsonObject | None = field(default=None, metadata={"added": True})
    resumes: tuple[JsonObject, ...] = field(default=(), metadata={"added": True})
    consistency_token: str | None = field(default=None, metadata={"added": True})


@dataclass(frozen=True, slots=True)
class RunClaimed:
    """A worker claimed the run. The version of this commit is the epoch, which fences all writes of the worker.

    `attempt` counts from 1; the frames of this attempt begin at position `outputs_from` of `outputs`, or later.
    `worker` is a random id; `process` tells which process it was: {name, host, pid, version}.
    """

    run_id: RunId
    worker: str
    attempt: int
    outputs_from: int
    process: JsonObject | None = field(default=None, metadata={"added": True})


@dataclass(frozen=True, slots=True)
class RunReleased:
    """The claim with this epoch was revoked before the run ended; the run is pending again.

    `counts` tells whether the attempt counts towards the retry limit (a drained one does not). After the first release
    for the reason `lost`, a worker executes the run only while it executes no other.
    """

    run_id: RunId
    epoch: int
    reason: str
    counts: bool = False


@dataclass(frozen=True, slots=True)
class RunAlive:
    """A worker that cannot reach Redis still executes the run: a heartbeat on the log."""

    run_id: RunId


@dataclass(frozen=True, slots=True)
class RunCancelRequested:
    """An active run was asked to stop. After `deadline` the reaper ends it, with or without a lease."""

    run_id: RunId
    action: CancelAction
    deadline: datetime
    error: JsonObject


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run ended, once. `view`: its change of the thread's values; `outputs_to`: the position after its last frame.

    `error` is {error, message} or None; `interrupts` maps task ids to open interrupts; `next` names the nodes that
    would run next. `checkpoint_id` is the run's last accepted root checkpoint, None if it wrote none.
    """

    run_id: RunId
    status: RunStatus
    error: JsonObject | None
    view: JsonObject
    next: tuple[str, ...]
    interrupts: JsonObject
    checkpoint_id: str | None = None
    outputs_to: int | None = None


@dataclass(frozen=True, slots=True)
class RunDeleted:
    """The run was deleted, with everything on its `run-` stream; `view` is the change to the remaining state."""

    run_id: RunId
    view: JsonObject
    next: tuple[str, ...]
    interrupts: JsonObject


ThreadFact: TypeAlias = (
    ThreadCreated
    | ThreadMetadataPatched
    | ThreadTtlSet
    | ThreadPruned
    | ThreadCopied
    | ThreadDeleted
    | StateUpdated
    | RunCreated
    | RunClaimed
    | RunReleased
    | RunAlive
    | RunCancelRequested
    | RunFinished
    | RunDeleted
)


@dataclass(frozen=True, slots=True)
class RunState:
    """Active run of a thread, for the deciders.

    `answers` holds the interrupts that its `command.resume` names: None without a resume, empty for a bare value, which
    answers any open interrupt. `asks` tells whether the run itself has reached an interrupt by now.
    """

    run_id: RunId
    status: RunStatus
    due_at: datetime | None
    temporary: bool
    attempt: int = 0
    epoch: int | None = None
    cancel: CancelAction | None = None
    answers: tuple[str, ...] | None = None
    asks: bool = False


@dataclass(frozen=True, slots=True)
class ThreadState:
    """State of a thread for the deciders; `runs` holds the active runs in order of creation."""

    exists: bool = False
    temporary: bool = False
    graph_id: str | None = None
    runs: Mapping[RunId, RunState] = field(default_factory=dict[RunId, RunState])

    @property
    def busy(self) -> bool:
        """Return whether any run waits or is executed, delayed runs included, runs with a cancel request not."""
        return any(run.cancel is None for run in self.runs.values())

    @property
    def stopping(self) -> tuple[RunId, ...]:
        """Return the runs whose cancel was accepted and whose end is not on the log yet. Clients see them as ended."""
        return tuple(run.run_id for run in self.runs.values() if run.cancel is not None)

    @property
    def claimed(self) -> RunState | None:
        """Return the run that a worker executes now, None if there is none."""
        return next((run for run in self.runs.values() if run.epoch is not None), None)


def answered(fact: RunCreated) -> tuple[str, ...] | None:
    """Return the interrupts that a run's `command.resume` names: None without a resume, empty for a bare value."""
    command = fact.kwargs.get("command")
    resume = command.get("resume") if isinstance(command, dict) else None
    return None if resume is None else named_interrupts(resume)


def named_interrupts(resume: Json) -> tuple[str, ...]:
    """Return the interrupt ids of a map of answers; empty for a bare value. Source: langgraph.pregel._utils."""
    if isinstance(resume, dict) and resume and all(_INTERRUPT_ID.fullmatch(name) for name in resume):
        return tuple(resume)
    return ()


def new_run(fact: RunCreated) -> RunState:
    """Return the state of a run at its creation."""
    return RunState(fact.run_id, "pending", fact.due_at, fact.temporary, answers=answered(fact))


def _with(state: ThreadState, run: RunState) -> ThreadState:
    return replace(state, runs={**state.runs, run.run_id: run})


def _without(state: ThreadState, run_id: RunId) -> ThreadState:
    return replace(state, runs={key: run for key, run in state.runs.items() if key != run_id})


def _created(state: ThreadState, fact: RunCreated) -> ThreadState:
    graph_id = fact.assistant.get("graph_id")
    return _with(replace(state, graph_id=graph_id if isinstance(graph_id, str) else state.graph_id), new_run(fact))


def _changed(state: ThreadState, fact: RunClaimed | RunReleased | RunCancelRequested, version: int) -> ThreadState:
    run = state.runs.get(fact.run_id)
    if run is None:
        return state
    match fact:
        case RunClaimed():
            return _with(state, replace(run, status="running", attempt=fact.attempt, epoch=version))
        case RunReleased():
            return _with(state, replace(run, status="pending", epoch=None))
        case RunCancelRequested():
            return _with(state, replace(run, cancel=run.cancel or fact.action))
        case _:
            assert_never(fact)


def evolve(state: ThreadState, fact: ThreadFact, version: int) -> ThreadState:
    """Fold one accepted fact into the state; `version` is the version of its commit on its stream."""
    match fact:
        case ThreadCreated():
            return ThreadState(exists=True, temporary=fact.temporary)
        case ThreadDeleted():
            return ThreadState()
        case RunCreated():
            return _created(state, fact)
        case RunClaimed() | RunReleased() | RunCancelRequested():
            return _changed(state, fact, version)
        case RunFinished() | RunDeleted():
            return _without(state, fact.run_id)
        case ThreadMetadataPatched() | ThreadTtlSet() | ThreadPruned() | ThreadCopied() | StateUpdated() | RunAlive():
            return state
        case _:
            assert_never(fact)
