"""Fold of facts into the row of their run; pure, no database.

Rows are changed in place, by one batch at a time; a lost transaction drops them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from agentlog_facts.envelope import Fact
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import (
    LOST,
    RunAlive,
    RunCancelRequested,
    RunClaimed,
    RunCreated,
    RunDeleted,
    RunFinished,
    RunReleased,
)
from agentlog_projections.sql.read_model import Commit

RunFact = RunCreated | RunClaimed | RunReleased | RunAlive | RunCancelRequested | RunFinished | RunDeleted


@dataclass(slots=True)
class RunOrigin:
    """The part of a row of `runs` that never changes; `seq` orders the runs of a thread."""

    thread_id: str
    partition: int
    seq: int
    assistant_id: str
    graph_id: str
    assistant: JsonObject
    created_at: datetime
    metadata: JsonObject
    kwargs: JsonObject
    multitask_strategy: str
    due_at: datetime | None
    temporary: bool


@dataclass(slots=True)
class RunRow:
    """The part of a row of `runs` that changes, with the fixed columns that the fold reads.

    `origin` is set until the row is written. `outputs_from` is that of the first attempt, `counted_attempts` the number
    of lost attempts that count towards the limit, `last_commit_at` the time of the run's last commit by the clock of
    its writer. `deaths` counts the deaths of its worker: the first one, and later ones without progress. `ordinal`
    counts the folded facts.
    """

    run_id: str
    thread_id: str
    graph_id: str
    seq: int
    due_at: datetime | None
    updated_at: datetime
    last_commit_at: datetime
    origin: RunOrigin | None = None
    status: str = "pending"
    attempt: int = 0
    counted_attempts: int = 0
    deaths: int = 0
    epoch: int | None = None
    worker: str | None = None
    claimed_at: datetime | None = None
    cancel: JsonObject | None = None
    outputs_from: int | None = None
    outputs_to: int | None = None
    error: JsonObject | None = None
    interrupts: JsonObject | None = None
    next: tuple[str, ...] | None = None
    checkpoint_id: str | None = None
    finished_event_id: str | None = None
    deleted: bool = False
    ordinal: int = 0
    changed: bool = False
    touched: bool = False

    @property
    def active(self) -> bool:
        """Tell whether the run has no end yet."""
        return self.status in ("pending", "running") and not self.deleted


def run_of(fact: Fact) -> str | None:
    """Return the id of the run whose row a fact changes."""
    return str(fact.run_id) if isinstance(fact, RunFact) else None


def created(fact: RunCreated, commit: Commit, seq: int) -> RunRow:
    """Return the row of a new run; `seq` orders the runs of a thread."""
    at = commit.draft.occurred_at
    origin = RunOrigin(
        thread_id=fact.thread_id,
        partition=commit.place.partition,
        seq=seq,
        assistant_id=str(fact.assistant.get("assistant_id", "")),
        graph_id=str(fact.assistant.get("graph_id", "")),
        assistant=fact.assistant,
        created_at=at,
        metadata=fact.metadata,
        kwargs=fact.kwargs,
        multitask_strategy=fact.multitask_strategy,
        due_at=fact.due_at,
        temporary=fact.temporary,
    )
    return RunRow(
        run_id=fact.run_id,
        thread_id=origin.thread_id,
        graph_id=origin.graph_id,
        seq=seq,
        due_at=origin.due_at,
        updated_at=at,
        last_commit_at=at,
        origin=origin,
        ordinal=seq + 1,
    )


def evolve(row: RunRow, fact: Fact, commit: Commit) -> None:
    """Fold one fact of the run, other than its creation."""
    at = commit.draft.occurred_at
    match fact:
        case RunClaimed():
            _claimed(row, fact, commit.version, at)
        case RunReleased():
            row.status, row.epoch, row.worker, row.claimed_at = "pending", None, None, None
            row.counted_attempts += fact.counts
            row.deaths += fact.reason == LOST and (fact.counts or row.deaths == 0)
        case RunCancelRequested() if row.cancel is None:  # a later one changes neither the deadline nor the action
            deadline = fact.deadline.astimezone(UTC).isoformat(timespec="microseconds")
            row.cancel = {"action": fact.action, "deadline": deadline, "error": fact.error}
        case RunFinished():
            _finished(row, fact, commit.draft.event_id)
        case RunDeleted():
            row.deleted = True
        case RunAlive():
            row.last_commit_at, row.touched = max(row.last_commit_at, at), True
            return
        case _:
            return
    row.updated_at, row.last_commit_at, row.changed = at, max(row.last_commit_at, at), True


def _claimed(row: RunRow, fact: RunClaimed, epoch: int, at: datetime) -> None:
    row.status, row.attempt, row.epoch = "running", fact.attempt, epoch
    row.worker, row.claimed_at = fact.worker, at
    if row.outputs_from is None:
        row.outputs_from = fact.outputs_from


def _finished(row: RunRow, fact: RunFinished, event_id: str) -> None:
    row.status, row.epoch = fact.status, None
    row.error, row.interrupts, row.next = fact.error, fact.interrupts, fact.next
    row.checkpoint_id, row.outputs_to, row.finished_event_id = fact.checkpoint_id, fact.outputs_to, event_id
    row.deleted = row.deleted or fact.status == "rollback"  # a rolled back run is never shown again


def hides(fact: Fact) -> str | None:
    """Return the id of the run whose checkpoints and writes a fact hides."""
    match fact:
        case RunDeleted() | RunFinished(status="rollback"):
            return str(fact.run_id)
        case _:
            return None
