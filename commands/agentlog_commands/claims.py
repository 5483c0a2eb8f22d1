"""When a claimed run counts as lost, overdue or spent, and how an attempt that ended without an end is counted."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import CancelAction, RunStatus

TIMED_OUT: JsonObject = {"error": "TimeoutError", "message": ""}
"""Error of a run over its time limit. Source: docs/http-api.md, section 7.3."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """What a `RunCancelRequested` asks for."""

    action: CancelAction
    deadline: datetime
    error: JsonObject


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed run as the reaper sees it.

    `counted` are its earlier attempts that count towards the limit; `committed_at` is the last commit under the epoch
    (None: only the claim itself); `progressed` tells whether the attempt has a new accepted checkpoint.
    """

    run_id: RunId
    thread_id: ThreadId
    graph_id: str
    worker: str
    epoch: int
    attempt: int
    counted: int
    claimed_at: datetime
    committed_at: datetime | None
    progressed: bool
    cancel: CancelRequest | None
    temporary: bool

    def deadline(self, limits: "ClaimLimits") -> datetime:
        """Return when the run is ended in place of its worker, lease or not."""
        if self.cancel is not None:
            return self.cancel.deadline
        return self.claimed_at + limits.run_time + limits.cancel_grace  # its worker looks at the time first


@dataclass(frozen=True, slots=True)
class ClaimLimits:
    """How long a claim may be silent, how long a run may take, how many lost attempts it may have.

    `cancel_grace`: how long a worker may take to stop a run that is over its time.
    """

    lost_after: timedelta
    run_time: timedelta
    retries: int
    cancel_grace: timedelta = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Keep:
    """Nothing is to be done now."""


@dataclass(frozen=True, slots=True)
class Release:
    """Take the claim away; the run is pending again. `counts`: towards the retry limit."""

    reason: str
    counts: bool


@dataclass(frozen=True, slots=True)
class End:
    """Take the claim away and end the run in place of its worker."""

    reason: str
    status: RunStatus
    error: JsonObject
    rollback: bool = False

    def request(self, now: datetime) -> CancelRequest | None:
        """Return what has to stand beside the release, so that nobody claims the run before it has this end.

        A run over its time looks like any lost one without it; who lost too many attempts is known by their number.
        """
        return CancelRequest("interrupt", now, TIMED_OUT) if self.status == "timeout" else None


ClaimAction: TypeAlias = Keep | Release | End


@dataclass(frozen=True, slots=True)
class ClaimPolicy:
    """Look at one claim. `unleased_looks` counts looks in a row without a lease, this one included, at the same Redis;
    `showed_lease` tells whether any look saw one; `dead`: its supervisor saw the worker die, with the run in its hands.
    """

    claim: Claim
    unleased_looks: int
    showed_lease: bool
    dead: bool
    now: datetime

    def decide(self, limits: ClaimLimits) -> ClaimAction:
        """End what is overdue, lease or not; release what is lost, until that happened too often."""
        return self._overdue(limits) or self._lost(limits)

    def _overdue(self, limits: ClaimLimits) -> End | None:
        if self.now < self.claim.deadline(limits):
            return None
        return timed_out() if self.claim.cancel is None else cancelled(self.claim.cancel)

    def _lost(self, limits: ClaimLimits) -> ClaimAction:
        heard = self.claim.committed_at or self.claim.claimed_at
        silent = self.unleased_looks >= 2 and self.now - heard >= limits.lost_after
        if not (silent or self.dead):
            return Keep()
        showed = self.showed_lease or self.dead or self.claim.committed_at is not None
        return after_attempt("lost", self.claim.counted, showed and not self.claim.progressed, limits.retries)


def after_attempt(reason: str, counted: int, counts: bool, retries: int) -> Release | End:
    """Return what follows an attempt that ended without an end: another one, or an error after too many that count.

    Source: docs/http-api.md, section 7.9 (BG_JOB_MAX_RETRIES).
    """
    if not counts or counted < retries:
        return Release(reason, counts)
    return given_up(counted + 1)


def as_asked(end: End, cancel: CancelRequest | None) -> End:
    """Return how a run ends that was to end so: what was accepted as a rollback is one, whatever else came up."""
    return cancelled(cancel) if cancel is not None and cancel.action == "rollback" else end


def cancelled(cancel: CancelRequest) -> End:
    """Return the end of a run that was told to stop after it had been claimed: by a client, or for its time."""
    if cancel.error == TIMED_OUT:
        return timed_out()
    rollback = cancel.action == "rollback"
    return End("cancelled", "rollback" if rollback else "interrupted", cancel.error, rollback)


def timed_out() -> End:
    """Return the end of a run over its time limit."""
    return End("timeout", "timeout", TIMED_OUT)


def given_up(attempts: int) -> End:
    """Return the end of a run that was lost too often."""
    message = f"The run was given up after {attempts} attempts without progress"
    return End("retries", "error", {"error": "RuntimeError", "message": message})
