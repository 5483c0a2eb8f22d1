"""CreateRun, CancelRun, DeleteRun and, for workers and the reaper, ClaimRun, ReleaseRun, FinishRun."""

from dataclasses import dataclass
from datetime import datetime

from agentlog_commands.command import Accepted, Decision, Refused
from agentlog_commands.leases import CancelRequest
from agentlog_commands.threads import thread_stream
from agentlog_facts.envelope import Demand, Fact
from agentlog_facts.ids import RunId, Stream, ThreadId, stream
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import (
    CancelAction,
    RunCancelRequested,
    RunClaimed,
    RunCreated,
    RunDeleted,
    RunFinished,
    RunReleased,
    RunState,
    RunStatus,
    ThreadCreated,
    ThreadDeleted,
    ThreadState,
)

BUSY = "Thread is already running a task. Wait for it to finish or choose a different multitask strategy."
"""Shown by clients. Source: Agent Server API, section 1.4."""


@dataclass(frozen=True, slots=True)
class CreateRun:
    """Queue a run. `create_thread` holds the metadata of a thread to be created where it is missing, else None.

    `version` is the thread stream's version that `state` was read at; only `reject` depends on it.
    """

    run: RunCreated
    create_thread: JsonObject | None = None
    version: int | None = None

    def decide(self, state: ThreadState) -> Decision:
        """Create the thread with the run, queue behind what runs, or refuse a busy thread."""
        name = thread_stream(self.run.thread_id)
        if not state.exists:
            if self.create_thread is None:
                return Refused("thread_not_found")
            created = ThreadCreated(self.run.thread_id, self.create_thread, self.run.temporary)
            return Accepted(name, (created, self.run), {name: "absent"})
        if self.run.multitask_strategy == "reject":
            return self._alone(name, state)
        return Accepted(name, (self.run,), {name: "exists"})

    def _alone(self, name: Stream, state: ThreadState) -> Decision:
        if state.busy or self.version is None:
            return Refused("thread_busy", BUSY)
        return Accepted(name, (self.run,), {name: self.version})


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Ask a run to stop; `error` is what the thread shows for it, `version` what the decision relied on."""

    thread_id: ThreadId
    run_id: RunId
    action: CancelAction
    error: JsonObject
    deadline: datetime
    version: int

    def decide(self, state: ThreadState) -> Decision:
        """End a run at once that no worker ever had; ask the worker of a running one.

        One that was released may have checkpoints: it is asked to stop too, which keeps it from being claimed again,
        and ended with the state they left by whoever finds it.
        """
        run = state.runs.get(self.run_id)
        if run is None:
            return Refused("run_not_active")
        name = thread_stream(self.thread_id)
        return Accepted(name, self._facts(state, run), {name: self.version})

    def _facts(self, state: ThreadState, run: RunState) -> tuple[Fact, ...]:
        if run.attempt > 0:
            return (RunCancelRequested(self.run_id, self.action, self.deadline, self.error),)
        status: RunStatus = "rollback" if self.action == "rollback" else "interrupted"
        ended = RunFinished(self.run_id, status, self.error, {}, (), {})
        return (ended, ThreadDeleted(self.thread_id)) if run.temporary else (ended,)


@dataclass(frozen=True, slots=True)
class DeleteRun:
    """Hide a run and everything it wrote; `view`, `next`, `interrupts`: the thread without it."""

    thread_id: ThreadId
    run_id: RunId
    known: bool
    view: JsonObject
    next: tuple[str, ...]
    interrupts: JsonObject
    error: JsonObject
    version: int

    def decide(self, state: ThreadState) -> Decision:
        """End an active run first, in the same commit, then hide it; its thread goes too where it is temporary."""
        run = state.runs.get(self.run_id)
        if run is None and not self.known:
            return Refused("run_not_found")
        name = thread_stream(self.thread_id)
        deleted = RunDeleted(self.run_id, self.view, self.next, self.interrupts)
        gone = (ThreadDeleted(self.thread_id),) if run is not None and run.temporary else ()
        return Accepted(name, (*self._ending(run), deleted, *gone), {name: self.version})

    def _ending(self, run: RunState | None) -> tuple[Fact, ...]:
        if run is None:
            return ()
        ended = RunFinished(self.run_id, "interrupted", self.error, {}, (), {})
        return (ended,) if run.epoch is None else (RunReleased(self.run_id, run.epoch, "deleted"), ended)


@dataclass(frozen=True, slots=True)
class ClaimRun:
    """Take a pending run; the verdict's version is the epoch of everything the worker writes for it."""

    thread_id: ThreadId
    run_id: RunId
    worker: str
    attempt: int
    outputs_from: int
    provenance: JsonObject

    def decide(self) -> Accepted:
        """Always try; the guard lets one of several claims through."""
        claimed = RunClaimed(self.run_id, self.worker, self.attempt, self.outputs_from)
        return Accepted(thread_stream(self.thread_id), (claimed,), provenance=self.provenance)


@dataclass(frozen=True, slots=True)
class ReleaseRun:
    """Give a claim up without an end: the run is pending again.

    `stop`: in the same commit ask the run to stop, so that it is not claimed again but ended by whoever looks first.
    """

    thread_id: ThreadId
    released: RunReleased
    version: int | None = None
    stop: CancelRequest | None = None

    def decide(self) -> Accepted:
        """Under the epoch when the worker releases, under the thread's version when somebody else does."""
        name = thread_stream(self.thread_id)
        if self.version is None:
            return Accepted(name, self._facts(), epoch=self.released.epoch)
        return Accepted(name, self._facts(), {name: self.version})

    def _facts(self) -> tuple[Fact, ...]:
        if self.stop is None:
            return (self.released,)
        asked = RunCancelRequested(self.released.run_id, self.stop.action, self.stop.deadline, self.stop.error)
        return (asked, self.released)


@dataclass(frozen=True, slots=True)
class FinishRun:
    """End a run: by its worker under `epoch`, by anybody else under `version` after the claim was released.

    `saved` is the last version that the worker wrote to the run's own stream (None: none, -1 is never used), so that
    an end is accepted only behind all of its checkpoints. `temporary` threads go with their run.
    """

    thread_id: ThreadId
    finished: RunFinished
    temporary: bool
    epoch: int | None = None
    saved: int | None = None
    version: int | None = None

    def decide(self) -> Accepted:
        """Return the end, and the thread's with it where it is temporary."""
        name = thread_stream(self.thread_id)
        facts: tuple[Fact, ...] = (self.finished,)
        if self.temporary:
            facts = (self.finished, ThreadDeleted(self.thread_id))
        return Accepted(name, facts, self._demands(name), self.epoch)

    def _demands(self, name: Stream) -> dict[Stream, Demand]:
        demands: dict[Stream, Demand] = {}
        if self.saved is not None:
            demands[stream("run", self.finished.run_id)] = self.saved
        if self.version is not None:
            demands[name] = self.version
        return demands
