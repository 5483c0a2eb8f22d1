"""Commands of a run: CreateRun, CancelRun, DeleteRun; for workers and the reaper ClaimRun, ReleaseRun, FinishRun."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from agentlog_commands.claims import CancelRequest
from agentlog_commands.command import Accepted, Decision, Refused
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
    answered,
)

BUSY = "Thread is already running a task. Wait for it to finish or choose a different multitask strategy."
"""Shown by clients. Source: docs/http-api.md, section 1.4."""
ANSWERED = "The interrupt is being answered by run {run_id}. Wait for it to finish and look at what is open then."
"""Detail of the refusal of the later of two answers to one interrupt."""


@dataclass(frozen=True, slots=True)
class CreateRun:
    """Queue a run. `create_thread` holds the metadata for a missing thread, None if the thread must exist.

    `version` is the version of the thread's stream at which `state` was read; decisions that depend on other runs
    demand it. Workers of superseded runs must stop by `deadline`. `rivals` of an answer to an interrupt are the runs
    that were answering when the command first read the thread, and all later runs: by now, another interrupt than its
    own may be open. `ttl` is that of a missing thread, unless it is temporary.
    """

    run: RunCreated
    deadline: datetime
    create_thread: JsonObject | None = None
    version: int | None = None
    rivals: Sequence[RunState] = ()
    ttl: JsonObject | None = None
    provenance: JsonObject | None = None

    def decide(self, state: ThreadState) -> Decision:
        """Create a missing thread with the run, queue the run behind active runs, stop those, or refuse.

        Source: docs/http-api.md, section 8; decision 0019 for a second answer to an interrupt.
        """
        decision = self._decision(state)
        return replace(decision, provenance=self.provenance) if isinstance(decision, Accepted) else decision

    def _decision(self, state: ThreadState) -> Decision:
        name = thread_stream(self.run.thread_id)
        if not state.exists:
            if self.create_thread is None:
                return Refused("thread_not_found")
            created = ThreadCreated(
                self.run.thread_id,
                self.create_thread,
                self.run.temporary,
                None if self.run.temporary else self.ttl,
            )
            return Accepted(name, (created, self.run), {name: "absent"})
        match self.run.multitask_strategy:
            case "reject":
                decision = self._alone(name, state)
            case "interrupt" | "rollback" as action:
                decision = self._superseding(name, state, action)
            case _:
                decision = self._behind(name, state)
        first = self._answered_first(state)
        if isinstance(decision, Refused) or first is None:
            return decision
        return Refused("interrupt_answered", ANSWERED.format(run_id=first.run_id))

    def _alone(self, name: Stream, state: ThreadState) -> Decision:
        if state.busy or self.version is None:
            return Refused("thread_busy", BUSY)
        return Accepted(name, (self.run,), {name: self.version})

    def _superseding(self, name: Stream, state: ThreadState, action: CancelAction) -> Decision:
        """Stop every active run in the same commit; an earlier cancel request of a run stays as it is."""
        error = superseded(action, self.run.run_id)
        stops = [_stopped(run, action, self.deadline, error) for run in state.runs.values() if run.cancel is None]
        return Accepted(name, (*stops, self.run), self._as_seen(name))

    def _behind(self, name: Stream, state: ThreadState) -> Decision:
        answers = answered(self.run)
        if answers is None:
            return Accepted(name, (self.run,), {name: "exists"})
        other = next((run for run in answering(state) if _overlap(run.answers, answers)), None)
        if other is not None:
            return Refused("interrupt_answered", ANSWERED.format(run_id=other.run_id))
        return Accepted(name, (self.run,), self._as_seen(name))

    def _answered_first(self, state: ThreadState) -> RunState | None:
        """Return an earlier run that answered the same interrupt, unless this run replaces it."""
        answers = answered(self.run)
        if answers is None:
            return None
        rivals = (run for run in self.rivals if not self._replaces(state.runs.get(run.run_id)))
        return next((run for run in rivals if _overlap(run.answers, answers)), None)

    def _replaces(self, run: RunState | None) -> bool:
        """Return whether this run stops another run so early that its interrupt is open again."""
        if run is None:
            return False
        strategy = self.run.multitask_strategy
        return strategy == "rollback" or (strategy == "interrupt" and not run.asks)

    def _as_seen(self, name: Stream) -> dict[Stream, Demand]:
        return {name: "exists" if self.version is None else self.version}


def superseded(action: CancelAction, by: RunId) -> JsonObject:
    """Return the error of a run that another run has superseded. Source: docs/http-api.md, section 8."""
    name = "UserRollback" if action == "rollback" else "UserInterrupt"
    return {"error": name, "message": f"superseded by run {by} (multitask_strategy={action})"}


def answering(state: ThreadState) -> list[RunState]:
    """Return the active runs that may answer an interrupt; a run that stops or is at the next interrupt does not."""
    return [run for run in state.runs.values() if run.answers is not None and run.cancel is None and not run.asks]


def _overlap(one: tuple[str, ...] | None, other: tuple[str, ...]) -> bool:
    """Return whether two answers are for the same interrupt; a bare answer is for all, None for none."""
    return one is not None and (not one or not other or not set(other).isdisjoint(one))


def _stopped(run: RunState, action: CancelAction, deadline: datetime, error: JsonObject) -> Fact:
    """Return the end of a run that was never claimed; for any other, which may have checkpoints, a cancel request."""
    if run.attempt > 0:
        return RunCancelRequested(run.run_id, action, deadline, error)
    status: RunStatus = "rollback" if action == "rollback" else "interrupted"
    return RunFinished(run.run_id, status, error, {}, (), {})


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Cancel a run; the thread shows `error` for it, and the decision relies on `version` of the thread."""

    thread_id: ThreadId
    run_id: RunId
    action: CancelAction
    error: JsonObject
    deadline: datetime
    version: int

    def decide(self, state: ThreadState) -> Decision:
        """End a run at once if it was never claimed, else request its cancel; an accepted request counts as the end.

        A released run may have checkpoints. The request keeps it from being claimed again; the first process that finds
        the run ends it with the state of its checkpoints.
        """
        run = state.runs.get(self.run_id)
        if run is None or run.cancel is not None:
            return Refused("run_not_active")
        name = thread_stream(self.thread_id)
        return Accepted(name, self._facts(run), {name: self.version})

    def _facts(self, run: RunState) -> tuple[Fact, ...]:
        stopped = _stopped(run, self.action, self.deadline, self.error)
        gone = run.temporary and isinstance(stopped, RunFinished)
        return (stopped, ThreadDeleted(self.thread_id)) if gone else (stopped,)


@dataclass(frozen=True, slots=True)
class DeleteRun:
    """Hide a run and all its writes; `view`, `next` and `interrupts` describe the thread without it."""

    thread_id: ThreadId
    run_id: RunId
    known: bool
    view: JsonObject
    next: tuple[str, ...]
    interrupts: JsonObject
    error: JsonObject
    version: int

    def decide(self, state: ThreadState) -> Decision:
        """Hide the run; in the same commit, end an active run before and delete its thread if it is temporary."""
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
    """Claim a pending run; the accepted version is the epoch of all writes of the worker for this run."""

    thread_id: ThreadId
    run_id: RunId
    worker: str
    attempt: int
    outputs_from: int
    provenance: JsonObject
    process: JsonObject | None = None

    def decide(self) -> Accepted:
        """Always accept; of several claims, the guard accepts one."""
        claimed = RunClaimed(self.run_id, self.worker, self.attempt, self.outputs_from, self.process)
        return Accepted(thread_stream(self.thread_id), (claimed,), provenance=self.provenance)


@dataclass(frozen=True, slots=True)
class ReleaseRun:
    """Release a claim without an end: the run is pending again.

    `stop` adds a cancel request to the commit: the run is not claimed again, and the first process that finds it ends
    it.
    """

    thread_id: ThreadId
    released: RunReleased
    version: int | None = None
    stop: CancelRequest | None = None

    def decide(self) -> Accepted:
        """Return the release: of the worker under its epoch, of another process under the thread's version."""
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
    """End a run: the worker under its `epoch`, another process after the release of the claim.

    `version` is the thread's version that the decision has seen, so that no end is accepted after a rollback request
    that it has not seen. `saved` is the last version that the worker wrote to the run's own stream (None: no write; -1
    is never used), so that an end is accepted only after all checkpoints of the run. A `temporary` thread is deleted
    with its run.
    """

    thread_id: ThreadId
    finished: RunFinished
    temporary: bool
    version: int
    epoch: int | None = None
    saved: int | None = None

    def decide(self) -> Accepted:
        """Return the end of the run, with the deletion of a temporary thread."""
        name = thread_stream(self.thread_id)
        facts: tuple[Fact, ...] = (self.finished,)
        if self.temporary:
            facts = (self.finished, ThreadDeleted(self.thread_id))
        return Accepted(name, facts, self._demands(name), self.epoch)

    def _demands(self, name: Stream) -> dict[Stream, Demand]:
        demands: dict[Stream, Demand] = {name: self.version}
        if self.saved is not None:
            demands[stream("run", self.finished.run_id)] = self.saved
        return demands
