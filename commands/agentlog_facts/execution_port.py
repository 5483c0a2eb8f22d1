"""Port from the worker to the execution of a graph: the assignment, the outcome, and the stop request."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias, TypeVar

from agentlog_facts.envelope import Cause
from agentlog_facts.errors import AgentlogError
from agentlog_facts.frame import Frame
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import RunStatus

T = TypeVar("T")
CANCELLED = "CancelledError"
"""Name of the error of a run that user code has cancelled, its own or that of another run on the loop."""

Emit: TypeAlias = Callable[[Frame], Awaitable[None] | None]
"""Callback for one stream frame, in production order, in the event loop of the graph; it waits if writing is slow."""


class ServerTask(asyncio.Task[T]):
    """A task of the server on a loop that it shares with user code, whose tasks cannot cancel it."""

    def cancel(self, msg: object = None) -> bool:
        """Cancel the task, unless another task of the loop calls this."""
        try:
            caller = asyncio.current_task()
        except RuntimeError:  # the loop does not run any more
            caller = None
        return super().cancel(msg) if caller in (None, self) else False

    async def end(self) -> None:
        """Cancel the task for the code that made it, and wait for its end."""
        super().cancel()
        await asyncio.wait((self,))


class AttemptLost(AgentlogError):
    """The attempt must not write any more: an append was lost, or another claim took over. Do not finish the run."""

    code: ClassVar[str] = "attempt_lost"
    retriable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class RunAssignment:
    """Claimed attempt of a run. `assistant`, `kwargs`, `metadata` are those of its `RunCreated`.

    `epoch` fences its writes. `run_version` is the accepted version of the stream `run-<run_id>`, None if the stream
    does not exist yet. `thread_metadata`, `values` and `next` are those of the thread's row, as before the run. `cause`
    goes into the commits of its checkpoints. `has_checkpoints` is False if the thread has none, and no pending writes.
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
    values: JsonObject | None = None
    next: tuple[str, ...] = ()
    has_checkpoints: bool = True


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """Outcome of an attempt; the log has acknowledged all of its checkpoints.

    `status` is success (also at an interrupt), error, or interrupted (after a stop request). `error` is
    {error, message}. `values` is the whole JSON view of the thread's state after the attempt, None if the thread has no
    state at all; the caller computes the view change from it. `interrupts` maps task ids to open interrupts.
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
    """Execution of graphs. Call it in the event loop of user code; its calls into the service loop are bridged."""

    async def execute(self, order: RunAssignment, emit: Emit, stop: asyncio.Event) -> RunOutcome:
        """Execute until the graph ends, interrupts, fails, or `stop` is set (then the outcome is `interrupted`).

        Each stream item becomes one frame, with the stream mode as its event (`values`, `updates`, `messages`,
        `custom`, ...); the caller adds the `metadata` and `error` frames. Errors of user code are not raised, they
        become `status="error"`, also a cancellation by user code (its name is CANCELLED). Cancelling the call after
        `stop` is set (drain) stops user code and raises CancelledError; do not finish the run then.

        Raises:
            AttemptLost: the run must not be finished by this attempt.
            Unavailable: state could not be read; release the run.
        """
        ...
