"""Guard: the verdict on one commit from the earlier commits of its own aggregate; pure, frozen, versioned by `rules`.

It judges history: the projector, verifiers and replays use it unchanged, and golden vectors hold it. It must never get
another input. Source of the rules: ARCHITECTURE.md, "The guard".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from agentlog_facts.envelope import Demand, Draft
from agentlog_facts.ids import RunId, Stream, category, rest, stream
from agentlog_facts.thread import (
    RunCancelRequested,
    RunClaimed,
    RunCreated,
    RunDeleted,
    RunFinished,
    RunReleased,
    StateUpdated,
    ThreadCreated,
    ThreadDeleted,
)

THREAD_STREAMS = frozenset({"thread", "meta", "run"})
ROOTS = frozenset({"assistant", "cron", "store", "system", "partition"})
"""Categories whose stream is the root of its aggregate: its first commit makes the aggregate exist."""


@dataclass(frozen=True, slots=True)
class RunHead:
    """Active run: its number of claims, the epoch of its present claim, and whether a cancel was requested."""

    attempt: int = 0
    epoch: int | None = None
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class AggregateHead:
    """All that the guard knows of an aggregate: one version per stream, and the active runs, oldest first."""

    exists: bool = False
    versions: Mapping[Stream, int] = field(default_factory=dict[Stream, int])
    runs: Mapping[RunId, RunHead] = field(default_factory=dict[RunId, RunHead])

    @property
    def claimed(self) -> RunId | None:
        """Return the run that is claimed now."""
        return next((run_id for run_id, run in self.runs.items() if run.epoch is not None), None)


EMPTY = AggregateHead()

VoidReason: TypeAlias = Literal[
    "idempotency_key_reused",
    "version_conflict",
    "exists",
    "gone",
    "stale_epoch",
    "not_pending",
    "cancel_requested",
    "wrong_attempt",
    "thread_claimed",
    "no_such_run",
    "unfenced",
    "run_exists",
    "view_locked",
    "wrong_partition",
    "unreadable",
]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The commit counts; `version` is its version on its stream."""

    version: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same intent was accepted before, as version `of` of its stream; this record changes nothing."""

    of: int


@dataclass(frozen=True, slots=True)
class Void:
    """The record is evidence and changes nothing; `expected` and `found` show the demand or rule that failed."""

    reason: VoidReason
    stream: Stream | None = None
    expected: str | None = None
    found: str | None = None


Verdict: TypeAlias = Accepted | Duplicate | Void


@dataclass(frozen=True, slots=True)
class Prior:
    """The accepted commit of this aggregate with the same `event_id`."""

    body_sha256: str
    version: int


def guard(head: AggregateHead, prior: Prior | None, commit: Draft) -> Verdict:
    """Judge `commit` against the accepted prefix of its aggregate: idempotency, then demands, then life cycle."""
    if prior is not None:
        if prior.body_sha256 != commit.body_sha256:
            return Void("idempotency_key_reused")
        return Duplicate(prior.version)
    void = _demands(head, commit) or _life(head, commit)
    return void or Accepted(head.versions.get(commit.stream, -1) + 1)


def _demands(head: AggregateHead, commit: Draft) -> Void | None:
    creates = isinstance(commit.facts[0], ThreadCreated)
    known = any(category(name) in THREAD_STREAMS for name in head.versions)
    if category(commit.stream) in THREAD_STREAMS and known and not head.exists and not creates:
        return Void("gone", commit.stream, "exists", "deleted")
    for name, demand in commit.demands.items():
        void = _demand(head, name, demand, commit.rules)
        if void is not None:
            return void
    return None


def _demand(head: AggregateHead, name: Stream, demand: Demand, rules: int) -> Void | None:
    found = head.versions.get(name)
    match demand:
        case "absent":
            own = category(name) == "run" or (rules > 1 and category(name) == "meta")  # the stream itself is asked for
            there = found is not None if own else head.exists
            return Void("exists", name, "absent", str(found)) if there else None
        case "exists":
            return None if head.exists else Void("gone", name, "exists", "nothing")
        case version:
            return None if found == version else Void("version_conflict", name, str(version), str(found))


def _life(head: AggregateHead, commit: Draft) -> Void | None:
    void = _fenced(head, commit)
    if void is not None:
        return void
    now, version = head, head.versions.get(commit.stream, -1) + 1
    for number, fact in enumerate(commit.facts, 1):
        void = _step(now, commit, fact)
        if void is not None:
            return void
        if number < len(commit.facts):
            now = _fold(now, fact, version)
    return None


def _fenced(head: AggregateHead, commit: Draft) -> Void | None:
    """A commit with an epoch needs the current epoch of its run; a `run-` stream accepts no commit without an epoch."""
    if commit.epoch is None:
        return Void("unfenced", commit.stream) if category(commit.stream) == "run" else None
    run_ids = {RunId(rest(commit.stream))} if category(commit.stream) == "run" else _runs_of(commit)
    for run_id in run_ids:
        run = head.runs.get(run_id)
        if run is None or run.epoch != commit.epoch:
            found = None if run is None else run.epoch
            return Void("stale_epoch", commit.stream, str(commit.epoch), str(found))
    return None if run_ids else Void("stale_epoch", commit.stream, str(commit.epoch), "no run")


def _runs_of(commit: Draft) -> set[RunId]:
    named = {getattr(fact, "run_id", None) for fact in commit.facts if not isinstance(fact, RunCreated)}
    return {RunId(run_id) for run_id in named if isinstance(run_id, str)}


def _step(head: AggregateHead, commit: Draft, fact: object) -> Void | None:
    match fact:
        case RunCreated():
            return Void("run_exists", commit.stream) if fact.run_id in head.runs else None
        case RunClaimed():
            return _claim(head, fact)
        case RunReleased():
            return _ends(head, commit, fact.run_id) or _released(head, fact)
        case RunFinished() | RunDeleted():
            hides = isinstance(fact, RunDeleted) and fact.run_id not in head.runs  # a run that ended before
            void = None if hides else _ends(head, commit, fact.run_id)
            return void or _moves(head, commit, fact.run_id, bool(fact.view))
        case RunCancelRequested():
            return None if fact.run_id in head.runs else Void("no_such_run")
        case StateUpdated():
            return _moves(head, commit, None, True)
        case _:
            return None


def _claim(head: AggregateHead, fact: RunClaimed) -> Void | None:
    run = head.runs.get(fact.run_id)
    if run is None:
        return Void("no_such_run")
    if run.epoch is not None:
        return Void("not_pending", None, "pending", f"claimed at {run.epoch}")
    if run.cancelled:
        return Void("cancel_requested")
    if fact.attempt != run.attempt + 1:
        return Void("wrong_attempt", None, str(run.attempt + 1), str(fact.attempt))
    if head.claimed is not None:
        return Void("thread_claimed", None, "none", head.claimed)
    return None


def _ends(head: AggregateHead, commit: Draft, run_id: RunId) -> Void | None:
    """A terminal or release fact needs an active run, and the run's epoch or a version demand."""
    if run_id not in head.runs:
        return Void("no_such_run")
    versioned = isinstance(commit.demands.get(commit.stream), int)
    created_here = any(isinstance(fact, RunCreated) and fact.run_id == run_id for fact in commit.facts)
    return None if commit.epoch is not None or versioned or created_here else Void("unfenced", commit.stream)


def _released(head: AggregateHead, fact: RunReleased) -> Void | None:
    found = head.runs[fact.run_id].epoch
    return None if found == fact.epoch else Void("stale_epoch", None, str(fact.epoch), str(found))


def _moves(head: AggregateHead, commit: Draft, run_id: RunId | None, moves: bool) -> Void | None:
    """While a run is claimed, only that run, under its epoch, may change the view."""
    if not moves or head.claimed is None or (head.claimed == run_id and commit.epoch is not None):
        return None
    return Void("view_locked", None, "no claimed run", head.claimed)


def advance(head: AggregateHead, commit: Draft) -> AggregateHead:
    """Fold an accepted commit into the head."""
    version = head.versions.get(commit.stream, -1) + 1
    exists = head.exists or category(commit.stream) in ROOTS
    now = AggregateHead(exists, {**head.versions, commit.stream: version}, head.runs)
    for fact in commit.facts:
        now = _fold(now, fact, version)
    return now


def _fold(head: AggregateHead, fact: object, version: int) -> AggregateHead:
    match fact:
        case ThreadCreated():
            return AggregateHead(True, head.versions, head.runs)
        case ThreadDeleted():
            kept = {name: number for name, number in head.versions.items() if category(name) != "run"}
            return AggregateHead(exists=False, versions=kept)
        case RunCreated():
            return _with(head, fact.run_id, RunHead())
        case RunClaimed():
            return _with(head, fact.run_id, RunHead(fact.attempt, version, head.runs[fact.run_id].cancelled))
        case RunReleased():
            return _with(head, fact.run_id, replace(head.runs[fact.run_id], epoch=None))
        case RunCancelRequested():
            return _with(head, fact.run_id, replace(head.runs[fact.run_id], cancelled=True))
        case RunFinished() | RunDeleted():
            return _without(head, fact.run_id)
        case _:
            return head


def _with(head: AggregateHead, run_id: RunId, run: RunHead) -> AggregateHead:
    return AggregateHead(head.exists, head.versions, {**head.runs, run_id: run})


def _without(head: AggregateHead, run_id: RunId) -> AggregateHead:
    runs = {key: run for key, run in head.runs.items() if key != run_id}
    versions = {name: number for name, number in head.versions.items() if name != stream("run", run_id)}
    return AggregateHead(head.exists, versions, runs)
