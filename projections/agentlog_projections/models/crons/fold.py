"""Fold of the facts of one cron into its row."""

from dataclasses import dataclass, replace
from datetime import datetime

from agentlog_facts.cron import (
    CronCreated,
    CronDeleted,
    CronFired,
    CronFiringEnded,
    CronRevised,
    CronSlotsSkipped,
    CronState,
    CronStated,
)
from agentlog_facts.envelope import Fact
from agentlog_facts.ids import AssistantId, CronId, RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_projections.sql.read_model import Commit


@dataclass(frozen=True, slots=True)
class CronRow:
    """A cron. The row of a deleted one stays: `revision` is the version of its stream.

    `creator` is the actor {kind, sub, iss} that created it. `firing` holds {event_id, slot, run_id, thread_id} from
    `CronFired` to `CronFiringEnded`, also after a deletion. `refusal` is why the last run was refused, None if it was
    not. `fired_at` is the last slot that fired, `passed` the last one that fired or was skipped before.
    """

    cron_id: CronId
    assistant_id: AssistantId
    thread_id: ThreadId | None
    schedule: str
    timezone: str | None
    end_time: datetime | None
    payload: JsonObject
    metadata: JsonObject
    on_run_completed: str | None
    enabled: bool
    next_run_date: datetime | None
    creator: JsonObject
    created_at: datetime
    updated_at: datetime
    revision: int
    deleted: bool = False
    passed: datetime | None = None
    firing: JsonObject | None = None
    refusal: str | None = None

    @property
    def state(self) -> CronState:
        """Return the state for deciders."""
        current = None if self.deleted else self._stated
        return CronState(current, self.next_run_date, self.passed, self.fired)

    @property
    def _stated(self) -> CronStated:
        return CronRevised(
            self.cron_id,
            self.assistant_id,
            self.thread_id,
            self.schedule,
            self.timezone,
            self.end_time,
            self.payload,
            self.metadata,
            self.on_run_completed,
            self.enabled,
            self.next_run_date,
        )

    @property
    def fired(self) -> CronFired | None:
        """Return the slot whose run is not known to be on the log yet."""
        if self.firing is None:
            return None
        slot = datetime.fromisoformat(str(self.firing["slot"]))
        run_id, thread_id = RunId(str(self.firing["run_id"])), ThreadId(str(self.firing["thread_id"]))
        return CronFired(self.cron_id, slot, run_id, thread_id, self.next_run_date)


def folded(row: CronRow | None, commit: Commit) -> CronRow | None:
    """Return the row after a commit; a commit that the row has already changes nothing. Raises: LookupError."""
    if row is not None and commit.version <= row.revision:
        return row
    for fact in commit.draft.facts:
        row = _after(row, fact, commit)
    return row


def _after(row: CronRow | None, fact: Fact, commit: Commit) -> CronRow | None:
    match fact:
        case CronCreated():
            actor = commit.draft.cause.actor
            return _stated(fact, commit, {"kind": actor.kind, "sub": actor.sub, "iss": actor.iss})
        case CronRevised():
            old = _known(row, commit)
            new = _stated(fact, commit, old.creator)
            return replace(new, created_at=old.created_at, passed=old.passed, firing=old.firing, refusal=old.refusal)
        case CronSlotsSkipped():
            return replace(
                _known(row, commit), revision=commit.version, next_run_date=fact.next_slot, passed=fact.first
            )
        case CronFired():
            firing: JsonObject = {
                "event_id": commit.draft.event_id,
                "slot": fact.slot.isoformat(),
                "run_id": fact.run_id,
                "thread_id": fact.thread_id,
            }
            old = _known(row, commit)
            return replace(old, revision=commit.version, next_run_date=fact.next_slot, passed=fact.slot, firing=firing)
        case CronFiringEnded():
            return replace(_known(row, commit), revision=commit.version, firing=None, refusal=fact.refusal)
        case CronDeleted():
            return replace(_known(row, commit), revision=commit.version, deleted=True)
        case _:
            return row  # a fact of another noun


def _known(row: CronRow | None, commit: Commit) -> CronRow:
    if row is None:
        raise LookupError(f"{commit.draft.stream}: its creation is missing")
    return row


def _stated(fact: CronStated, commit: Commit, creator: JsonObject) -> CronRow:
    at = commit.draft.occurred_at
    return CronRow(
        cron_id=fact.cron_id,
        assistant_id=fact.assistant_id,
        thread_id=fact.thread_id,
        schedule=fact.schedule,
        timezone=fact.timezone,
        end_time=fact.end_time,
        payload=fact.payload,
        metadata=fact.metadata,
        on_run_completed=fact.on_run_completed,
        enabled=fact.enabled,
        next_run_date=fact.next_slot,
        creator=creator,
        created_at=at,
        updated_at=at,
        revision=commit.version,
    )
