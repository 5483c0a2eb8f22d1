"""Policy for claimed runs: lost claims, overdue runs, the retry limit, and runs that end the process of their worker.

A worker executes several runs, so its death does not tell which of them caused it. All of them become *suspects*. A
worker executes a suspect only while it executes no other run. So its next death with that run names the run; the death
of a worker with several runs costs none of them a retry.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import LOST, CancelAction, RunStatus

TIMED_OUT: JsonObject = {"error": "TimeoutError", "message": ""}
"""Error of a run over its time limit. Source: docs/http-api.md, section 7.3."""
DEATHS = 2
"""A suspect ends after this many deaths of its worker without progress; its first death, among others, not counted."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Content of a `RunCancelRequested`."""

    action: CancelAction
    deadline: datetime
    error: JsonObject


@dataclass(frozen=True, slots=True)
class Claim:
    """Claimed run, for the reaper.

    `counted` is the number of earlier attempts that count towards the retry limit; `deaths` the number of deaths of its
    worker, as `run_fold` counts them: above 0, the run is a suspect, which its worker executes alone. `committed_at` is
    the time of the last commit under the epoch (None: only the claim itself); `progressed` tells whether the attempt
    has a new accepted checkpoint.
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
    deaths: int = 0

    def deadline(self, limits: "ClaimLimits") -> datetime:
        """Return when the reaper ends the run in place of its worker, with or without a lease."""
        if self.cancel is not None:
            return self.cancel.deadline
        return self.claimed_at + limits.run_time + limits.cancel_grace  # the worker checks the time limit first


@dataclass(frozen=True, slots=True)
class ClaimLimits:
    """Limits of a claim: time without a commit or a lease, duration of the run, and retries after lost attempts.

    `cancel_grace` is the time that a worker has to stop a run that is over its time limit.
    """

    lost_after: timedelta
    run_time: timedelta
    retries: int
    cancel_grace: timedelta = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep the claim."""


@dataclass(frozen=True, slots=True)
class Release:
    """Revoke the claim; the run is pending again. `counts`: the attempt counts towards the retry limit."""

    reason: str
    counts: bool


@dataclass(frozen=True, slots=True)
class End:
    """Revoke the claim and end the run in place of its worker.

    `deaths` is set for a run that ends because its worker died so many times while it executed no other run.
    """

    reason: str
    status: RunStatus
    error: JsonObject
    rollback: bool = False
    deaths: int = 0

    def request(self, now: datetime) -> CancelRequest | None:
        """Return the cancel request to commit with the release, so that no worker claims the run before this end.

        A run over its time limit would look like any lost run without it. A run with too many lost attempts needs none:
        their number is on the log.
        """
        return CancelRequest("interrupt", now, TIMED_OUT) if self.status == "timeout" else None


ClaimAction: TypeAlias = Keep | Release | End


@dataclass(frozen=True, slots=True)
class ClaimPolicy:
    """Policy for one claim, at one look of the reaper.

    `unleased_looks` counts the looks in a row without a lease, including this one, at the same Redis; `showed_lease`
    tells whether any look saw a lease; `dead`: the supervisor saw the worker die while it executed the run.
    """

    claim: Claim
    unleased_looks: int
    showed_lease: bool
    dead: bool
    now: datetime

    def decide(self, limits: ClaimLimits) -> ClaimAction:
        """End an overdue run, with or without a lease; release a lost run, or end it after too many lost attempts."""
        return self._overdue(limits) or self._lost(limits)

    def _overdue(self, limits: ClaimLimits) -> End | None:
        if self.now < self.claim.deadline(limits):
            return None
        return timed_out() if self.claim.cancel is None else cancelled(self.claim.cancel)

    def _lost(self, limits: ClaimLimits) -> ClaimAction:
        last_commit_at = self.claim.committed_at or self.claim.claimed_at
        silent = self.unleased_looks >= 2 and self.now - last_commit_at >= limits.lost_after
        if not (silent or self.dead):
            return Keep()
        if self.claim.deaths == 0:
            return Release(LOST, counts=False)  # which of the worker's runs ended it is not known
        showed = self.showed_lease or self.dead or self.claim.committed_at is not None
        if not showed or self.claim.progressed:
            return Release(LOST, counts=False)
        if is_named(self.claim.deaths + 1):
            return worker_died(self.claim.deaths)
        return after_attempt(LOST, self.claim.counted, True, limits.retries)


def after_attempt(reason: str, counted: int, counts: bool, retries: int) -> Release | End:
    """Return what follows an attempt that did not end its run: a release, or an error after too many counted attempts.

    Source: docs/http-api.md, section 7.9 (BG_JOB_MAX_RETRIES).
    """
    if not counts or counted < retries:
        return Release(reason, counts)
    return given_up(counted + 1)


def is_named(deaths: int) -> bool:
    """Return whether a run with so many deaths of its worker is named as their cause, and is not executed again."""
    return deaths > DEATHS


def worker_died(deaths: int, where: str = "") -> End:
    """Return the end of a suspect whose worker died so many times; `where` says what it executed, if that is known."""
    times = {1: "once", 2: "twice"}.get(deaths, f"{deaths} times")
    message = (
        f"its worker process died {times} while it executed {where or 'this run'}, and no other run. "
        "Possible causes: os._exit, a signal, a crash of C code, or too much memory"
    )
    return End("worker_died", "error", {"error": "WorkerDied", "message": message}, deaths=deaths)


def as_asked(end: End, cancel: CancelRequest | None) -> End:
    """Return the given end, or the end of an accepted cancel, which wins: clients see it since the request."""
    return end if cancel is None else cancelled(cancel)


def cancelled(cancel: CancelRequest) -> End:
    """Return the end of a claimed run with a cancel request: of a client, or because of the time limit."""
    if cancel.error == TIMED_OUT:
        return timed_out()
    rollback = cancel.action == "rollback"
    return End("cancelled", "rollback" if rollback else "interrupted", cancel.error, rollback)


def timed_out() -> End:
    """Return the end of a run over its time limit."""
    return End("timeout", "timeout", TIMED_OUT)


def never_taken(graph_id: str) -> End:
    """Return the end of a run over its time limit that no worker could take."""
    message = f"{not_served(graph_id)}: nobody could take the run within its time limit"
    return End("timeout", "timeout", {"error": "TimeoutError", "message": message})


def not_served(graph_id: str) -> str:
    """Return what is said of a graph that no worker serves."""
    return f"graph {graph_id} is not in langgraph.json"


def given_up(attempts: int) -> End:
    """Return the end of a run that has lost too many attempts."""
    message = f"The run was given up after {attempts} attempts without progress"
    return End("retries", "error", {"error": "RuntimeError", "message": message})
