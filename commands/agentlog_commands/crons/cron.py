"""Commands of a cron, and the run that a slot of it gets. Source: docs/http-api.md, section 14.

`CronFired` decides that a slot gets a run; the run is a commit on another aggregate, whose event id follows from it. So
several housekeepers may fire the same slot, and finish what another has begun: each commit counts once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID, uuid5

from agentlog_commands.command import Accepted, Decision, Refused
from agentlog_commands.crons.schedule import Schedule
from agentlog_commands.metadata_limit import DEFAULT, MetadataLimit
from agentlog_commands.run_request import BOTH_GIVEN, Durability, RunRequest, Strategy
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
from agentlog_facts.ids import CronId, RunId, Stream, ThreadId, stream
from agentlog_facts.json_value import Json, JsonObject

LATE = timedelta(minutes=5)
"""A slot that nobody has fired this long after it was due is missed. Source: decision 0059."""


def cron_stream(cron_id: CronId) -> Stream:
    """Return the stream of a cron."""
    return stream("cron", cron_id)


def derived(cron_id: CronId, slot: datetime, name: str) -> str:
    """Return an id that follows from a cron and a slot: of the firing, its run, or its thread."""
    return str(uuid5(UUID(cron_id), f"{slot.isoformat()}:{name}"))


@dataclass(frozen=True, slots=True)
class CreateCron:
    """Create a cron; `given` has no next slot yet."""

    given: CronCreated
    now: datetime
    limit: MetadataLimit = DEFAULT

    def decide(self, state: CronState, version: int | None) -> Decision:
        """Accept, or refuse `context` with `config.configurable`, and metadata that is too large."""
        refusal = _refusal(self.given, self.limit)
        if refusal is not None:
            return refusal
        if state.current is not None:
            return Refused("not_possible", f"cron {self.given.cron_id} exists")
        name = cron_stream(self.given.cron_id)
        slot = _capped(_schedule(self.given).next_slot(self.now), self.given.end_time)
        return Accepted(name, (replace(self.given, next_slot=slot),), {name: "absent" if version is None else version})


@dataclass(frozen=True, slots=True)
class PatchCron:
    """Change the fields in `changes`; `metadata` is merged by its top-level keys, and so is `payload`."""

    cron_id: CronId
    changes: Mapping[str, object]
    metadata: JsonObject
    payload: JsonObject
    now: datetime
    limit: MetadataLimit = DEFAULT

    def decide(self, state: CronState, version: int | None) -> Decision:
        """Accept, or refuse an unknown cron and values that cannot be stored.

        The next slot stays, unless schedule or time zone change, or the cron is enabled again: then it comes after now,
        and after each slot that has fired.
        """
        old = state.current
        if old is None or version is None:
            return Refused("cron_not_found")
        if self.changes.get("on_run_completed") is not None and old.thread_id is not None:
            return Refused("not_possible", "on_run_completed is for crons without a thread")
        new = replace(
            _revised(old),
            metadata={**old.metadata, **self.metadata},
            payload={**old.payload, **self.payload},
            **self.changes,  # type: ignore[arg-type]  # names of its fields
        )
        refusal = _refusal(new, self.limit)
        if refusal is not None:
            return refusal
        kept = (new.schedule, new.timezone) == (old.schedule, old.timezone) and (old.enabled or not new.enabled)
        slot = state.next_slot if kept else None
        if slot is None:
            slot = _schedule(new).next_slot(max(self.now, state.passed or self.now))
        name = cron_stream(self.cron_id)
        return Accepted(name, (replace(new, next_slot=_capped(slot, new.end_time)),), {name: version})


@dataclass(frozen=True, slots=True)
class DeleteCron:
    """Delete a cron."""

    cron_id: CronId

    def decide(self, state: CronState, version: int | None) -> Decision:
        """Accept, or refuse an unknown cron."""
        if state.current is None or version is None:
            return Refused("cron_not_found")
        name = cron_stream(self.cron_id)
        return Accepted(name, (CronDeleted(self.cron_id),), {name: version})


@dataclass(frozen=True, slots=True)
class FireCron:
    """Fire the newest slot that is due; those before it, and those that are later than `LATE`, are skipped."""

    cron_id: CronId
    now: datetime

    def decide(self, state: CronState, version: int | None) -> Decision:
        """Fire and skip what is due, or refuse with `nothing_to_do`."""
        current, due = state.current, state.next_slot
        if current is None or version is None or not current.enabled or state.firing is not None:
            return Refused("nothing_to_do")
        if due is None or due > self.now:
            return Refused("nothing_to_do")
        schedule, end, oldest = _schedule(current), current.end_time, self.now - LATE
        slot = due if due >= oldest else schedule.next_slot(oldest - timedelta(microseconds=1))
        last = self.now if end is None else min(self.now, end)
        for later in schedule.slots(slot, last):
            slot = later
        following = slot if slot > last else schedule.next_slot(slot)
        name, facts = cron_stream(self.cron_id), list[Fact]()
        if slot > due:
            facts.append(CronSlotsSkipped(self.cron_id, due, slot, _capped(slot, end)))
        if slot <= last:
            run_id, thread_id = (derived(self.cron_id, slot, name) for name in ("run", "thread"))
            thread = current.thread_id or ThreadId(thread_id)
            facts.append(CronFired(self.cron_id, slot, RunId(run_id), thread, _capped(following, end)))
        return Accepted(name, tuple(facts), {name: version})


@dataclass(frozen=True, slots=True)
class EndFiring:
    """Tell that the run of a slot is on the log, or why it was refused."""

    fired: CronFired
    refusal: str | None

    def decide(self, state: CronState, version: int | None) -> Decision:
        """Accept, or refuse with `nothing_to_do` if it was told before, or the cron is gone."""
        open_ = state.firing
        if open_ is None or open_.slot != self.fired.slot or version is None:
            return Refused("nothing_to_do")
        name, fired = cron_stream(self.fired.cron_id), self.fired
        ended = CronFiringEnded(fired.cron_id, fired.slot, fired.run_id, self.refusal)
        return Accepted(name, (ended,), {name: version})


class _Stored(Protocol):
    @property
    def cron_id(self) -> CronId: ...
    @property
    def thread_id(self) -> ThreadId | None: ...
    @property
    def payload(self) -> JsonObject: ...
    @property
    def metadata(self) -> JsonObject: ...
    @property
    def on_run_completed(self) -> str | None: ...


def run_request(cron: _Stored) -> RunRequest:
    """Return the request for a run of a cron, from its payload with opened secrets; its values were checked."""
    given = cron.payload
    modes = given.get("stream_mode") or ["values"]
    exits = given.get("checkpoint_during") is False
    return RunRequest(
        input=given.get("input"),
        metadata=cron.metadata,
        config=_config(_object(given.get("config"))),
        context=_object(given.get("context")),
        interrupt_before=given.get("interrupt_before"),
        interrupt_after=given.get("interrupt_after"),
        stream_mode=tuple(dict.fromkeys(str(one) for one in (modes if isinstance(modes, list) else [modes]))),
        stream_subgraphs=given.get("stream_subgraphs") is True,
        stream_resumable=given.get("stream_resumable") is True,
        multitask_strategy=_strategy(given.get("multitask_strategy")),
        durability=_durability(given.get("durability"), exits=exits),
        creates_thread=cron.thread_id is None,
        temporary=cron.on_run_completed == "delete",
        cron_id=cron.cron_id,
    )


def _durability(given: Json, *, exits: bool) -> Durability:
    match given:
        case "sync" | "async" | "exit":
            return given
        case _:
            return "exit" if exits else "async"


def _config(given: JsonObject) -> JsonObject:
    stored: JsonObject = {name: value for name, value in given.items() if value is not None}
    for name in ("configurable", "metadata"):
        stored[name] = _object(given.get(name))
    return stored


def _strategy(given: Json) -> Strategy:
    match given:
        case "reject" | "rollback" | "interrupt":
            return given
        case _:
            return "enqueue"


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _schedule(cron: CronStated) -> Schedule:
    return Schedule(cron.schedule, cron.timezone)


def _capped(slot: datetime, end: datetime | None) -> datetime | None:
    return None if end is not None and slot > end else slot


def _refusal(cron: CronStated, limit: MetadataLimit) -> Refused | None:
    configurable = _object(_object(cron.payload.get("config")).get("configurable"))
    if configurable and cron.payload.get("context"):
        return Refused("context_and_configurable", BOTH_GIVEN)
    return limit.refusal(cron.metadata)


def _revised(old: CronStated) -> CronRevised:
    return CronRevised(
        old.cron_id,
        old.assistant_id,
        old.thread_id,
        old.schedule,
        old.timezone,
        old.end_time,
        old.payload,
        old.metadata,
        old.on_run_completed,
        old.enabled,
        old.next_slot,
    )
