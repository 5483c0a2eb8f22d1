"""Facts of a cron, its slots and its deletion. A slot is the time, in UTC, at which its schedule is due."""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from agentlog_facts.ids import AssistantId, CronId, RunId, ThreadId
from agentlog_facts.json_value import JsonObject


@dataclass(frozen=True, slots=True)
class CronCreated:
    """A cron was created. `thread_id` is None for a cron that makes a new thread for each of its runs.

    `payload` is the request as the client sent it, with the id of the assistant; secrets in its `config` and `context`
    are sealed. `next_slot` is the next slot, None if none comes before `end_time`.
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
    next_slot: datetime | None


@dataclass(frozen=True, slots=True)
class CronRevised:
    """The cron was changed; the fact holds all of its fields, as `CronCreated`."""

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
    next_slot: datetime | None


@dataclass(frozen=True, slots=True)
class CronSlotsSkipped:
    """The slots from `first` on and before `until` were missed, and get no run; `next_slot` follows them."""

    cron_id: CronId
    first: datetime
    until: datetime
    next_slot: datetime | None


@dataclass(frozen=True, slots=True)
class CronFired:
    """A slot gets a run. The run is created by a commit on its thread, with an event id derived from that of this fact.

    No other slot fires before `CronFiringEnded`.
    """

    cron_id: CronId
    slot: datetime
    run_id: RunId
    thread_id: ThreadId
    next_slot: datetime | None


@dataclass(frozen=True, slots=True)
class CronFiringEnded:
    """The run of a slot is on the log, or was refused; then `refusal` says why."""

    cron_id: CronId
    slot: datetime
    run_id: RunId
    refusal: str | None


@dataclass(frozen=True, slots=True)
class CronDeleted:
    """The cron is gone, and no other slot of it fires."""

    cron_id: CronId


CronStated: TypeAlias = CronCreated | CronRevised
"""A fact that states all fields of a cron."""
CronFact: TypeAlias = CronStated | CronSlotsSkipped | CronFired | CronFiringEnded | CronDeleted


@dataclass(frozen=True, slots=True)
class CronState:
    """State of a cron for the deciders. `current` is None if it does not exist.

    `next_slot` is the slot that comes next, `passed` the last one that fired or was skipped before. `firing` is the
    slot whose run is not known to be on the log yet.
    """

    current: CronStated | None = None
    next_slot: datetime | None = None
    passed: datetime | None = None
    firing: CronFired | None = None
