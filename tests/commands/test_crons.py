"""Commands of a cron: given its state, when a command comes, then facts or a refusal."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agentlog_commands.command import Accepted, Decision, Refused
from agentlog_commands.crons.cron import LATE, CreateCron, DeleteCron, EndFiring, FireCron, PatchCron
from agentlog_facts.cron import CronCreated, CronDeleted, CronFired, CronFiringEnded, CronSlotsSkipped, CronState
from agentlog_facts.envelope import Fact
from agentlog_facts.ids import AssistantId, CronId

CRON = CronId("019ab000-0000-7000-8000-000000000009")
NINE = datetime(2026, 7, 1, 9, tzinfo=UTC)
DAY = timedelta(days=1)
DAILY = CronCreated(CRON, AssistantId("a"), None, "0 9 * * *", None, None, {}, {"a": 1}, "delete", True, NINE)
STATE = CronState(DAILY, NINE)


def facts(decision: Decision) -> tuple[Fact, ...]:
    assert isinstance(decision, Accepted), decision
    return decision.facts


def test_a_new_cron_states_its_next_slot_unless_it_ends_before() -> None:
    given = replace(DAILY, next_slot=None)
    assert facts(CreateCron(given, NINE - DAY).decide(CronState(), None)) == (DAILY,)
    ended = replace(given, end_time=NINE - timedelta(seconds=1))
    assert facts(CreateCron(ended, NINE - DAY).decide(CronState(), None)) == (ended,)


def test_a_due_slot_fires_with_ids_that_follow_from_it() -> None:
    one, other = (facts(FireCron(CRON, NINE + late).decide(STATE, 0)) for late in (timedelta(), LATE))
    assert one == other
    (fired,) = one
    assert isinstance(fired, CronFired)
    assert (fired.slot, fired.next_slot) == (NINE, NINE + DAY)


def test_a_late_slot_is_skipped_and_of_several_the_newest_fires() -> None:
    late = facts(FireCron(CRON, NINE + LATE + timedelta(seconds=1)).decide(STATE, 0))
    assert late == (CronSlotsSkipped(CRON, NINE, NINE + DAY, NINE + DAY),)
    skipped, fired = facts(FireCron(CRON, NINE + 3 * DAY).decide(STATE, 0))
    assert skipped == CronSlotsSkipped(CRON, NINE, NINE + 3 * DAY, NINE + 3 * DAY)
    assert isinstance(fired, CronFired)
    assert fired.slot == NINE + 3 * DAY


def test_nothing_fires_early_twice_disabled_or_after_the_end() -> None:
    nothing = Refused("nothing_to_do")
    fired = facts(FireCron(CRON, NINE).decide(STATE, 0))[0]
    assert isinstance(fired, CronFired)
    assert FireCron(CRON, NINE - timedelta(seconds=1)).decide(STATE, 0) == nothing
    assert FireCron(CRON, NINE).decide(replace(STATE, firing=fired), 1) == nothing
    assert FireCron(CRON, NINE).decide(replace(STATE, current=replace(DAILY, enabled=False)), 1) == nothing
    assert FireCron(CRON, NINE).decide(CronState(), 1) == nothing
    ending = replace(STATE, current=replace(DAILY, end_time=NINE + timedelta(hours=1)))
    (last,) = facts(FireCron(CRON, NINE).decide(ending, 0))
    assert isinstance(last, CronFired)
    assert last.next_slot is None


def test_a_firing_ends_once() -> None:
    fired = facts(FireCron(CRON, NINE).decide(STATE, 0))[0]
    assert isinstance(fired, CronFired)
    end = EndFiring(fired, "thread_busy")
    ended = facts(end.decide(replace(STATE, firing=fired), 1))
    assert ended == (CronFiringEnded(CRON, NINE, fired.run_id, "thread_busy"),)
    assert end.decide(STATE, 2) == Refused("nothing_to_do")


def test_a_patch_keeps_the_next_slot_unless_the_schedule_changes() -> None:
    (kept,) = facts(PatchCron(CRON, {}, {"b": 2}, {"input": 1}, NINE + DAY).decide(STATE, 0))
    assert (kept.next_slot, kept.metadata, kept.payload) == (NINE, {"a": 1, "b": 2}, {"input": 1})  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]  # it is CronRevised
    (moved,) = facts(PatchCron(CRON, {"schedule": "0 10 * * *"}, {}, {}, NINE).decide(STATE, 0))
    assert moved.next_slot == NINE + timedelta(hours=1)  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]  # it is CronRevised
    back = replace(STATE, passed=NINE)
    (again,) = facts(PatchCron(CRON, {"timezone": "UTC"}, {}, {}, NINE - DAY).decide(back, 0))
    assert again.next_slot == NINE + DAY  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]  # it is CronRevised


def test_an_unknown_cron_is_neither_changed_nor_deleted() -> None:
    assert PatchCron(CRON, {}, {}, {}, NINE).decide(CronState(), 3) == Refused("cron_not_found")
    assert DeleteCron(CRON).decide(CronState(), 3) == Refused("cron_not_found")
    assert facts(DeleteCron(CRON).decide(STATE, 0)) == (CronDeleted(CRON),)
