"""The seam between the worker and what executes a graph: what goes in, what comes out, and who stops what."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

from agentlog_facts.envelope import Cause
from agentlog_facts.errors import AgentlogError
from agentlog_facts.frame import Frame
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import RunStatus

Emit: TypeAlias = Callable[[Frame], Awaitable[None] | None]
"""Takes a stream frame, in production order, in the loop that runs the graph; waits when the writer is behind."""


class AttemptLost(AgentlogError):
    """The attempt may write nothing more: an append was lost, or another claim took over. Do not finish the run."""

    code: ClassVar[str] = "attempt_lost"
    retriable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class RunAssignment:
    """One claimed attempt of a run. `assistant`, `kwargs`, `metadata` are those of its `RunCreated`.

    `epoch` fences what it writes; `run_version` is the version of the stream `run-<run_id>` as accepted so far (None:
    the stream does not exist yet); `thread_metadata` is the thread row's; `cause` goes into the checkpoints' commits.
    """

    run_id: RunId
    thread_id: ThreadId
    graph_id: str
    epoch: int
    attempt: int
    assistant: JsonObject
    kwargs: JsonObject
    metadata: JsonObject
    thread_metadata: JsonObject
    cause: Cause
    run_version: int | None = None


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How the attempt ended; all its checkpoints are acknowledged by the log.

    `status` is success (also at an interrupt), error, or interrupted (it was stopped). `error` is {error, message}.
    `values` is the whole JSON view of the thread's state after it, None when the thread has no state at all; the
    caller turns it into a view change. `interrupts` maps task ids to open interrupts.
    `run_version` is the version of `run-<run_id>` after its last commit.
    """

    status: RunStatus
    error: JsonObject | None
    values: JsonObject | None
    next: tuple[str, ...]
    interrupts: JsonObject
    checkpoint_id: str | None
    run_version: int | None


class RunExecution(Protocol):
    """Executes graphs. Call it in the loop that runs user code; everything it needs of the service loop is bridged."""

    async def execute(self, order: RunAssignment, emit: Emit, stop: asyncio.Event) -> RunOutcome:
        """Execute until the graph ends, interrupts, fails, or `stop` is set (then the outcome is `interrupted`).

        Frames: one per stream item, event = stream mode (`values`, `updates`, `messages`, `custom`, ...); `metadata`
        and `error` frames are the caller's. Errors of user code become `status="error"`, they are not raised.
        Cancelling the call (drain) stops user code and raises CancelledError: nothing may be finished then.

        Raises:
            AttemptLost: the run must not be finished by this attempt.
            Unavailable: state could not be read; release the run.
        """
        ...
