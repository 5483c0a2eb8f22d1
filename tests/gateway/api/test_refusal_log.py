"""Log of refused mutations: one fact each, and a count for the rest of a burst."""

from dataclasses import replace

from tests.fakes.memory_log import MemoryLog
from tests.fakes.ports import CountedIds, TestClock

from agentlog_commands.identity import digest
from agentlog_facts.envelope import ANONYMOUS, Actor, Cause
from agentlog_facts.ids import Key
from agentlog_facts.keyed_digest import KeyedDigest
from agentlog_facts.system import CommandRefused
from agentlog_gateway import timeouts
from agentlog_gateway.api.refusal_log import MOST, Refusal, Refusals


def refusal(sub: str = ANONYMOUS.sub, reason: str = "thread_busy") -> Refusal:
    return Refusal(Key("t-1"), "CreateRun", reason, {}, KeyedDigest("0" * 64, "s"), Cause(Actor("user", sub), "q-1"))


def counts(log: MemoryLog) -> list[int]:
    """Return the counts of all facts, after a check that all are on the aggregate's stream of refusals."""
    drafts = [draft for draft, _ in log.rows]
    assert {draft.stream for draft in drafts} == {"refusals-t-1"}
    assert len({draft.event_id for draft in drafts}) == len(drafts)
    return [fact.count for draft in drafts for fact in draft.facts if isinstance(fact, CommandRefused)]


async def test_ten_refusals_are_told_one_by_one_and_the_rest_of_the_minute_as_a_count() -> None:
    log, clock = MemoryLog(), TestClock()
    refusals = Refusals(log, clock, CountedIds())
    for _ in range(MOST + 5):
        await refusals.record(refusal())
    assert counts(log) == [1] * MOST
    await refusals.append_counts(clock.monotonic() - timeouts.REFUSAL_WINDOW_S)
    assert counts(log) == [1] * MOST
    clock.seconds += timeouts.REFUSAL_WINDOW_S
    await refusals.append_counts(clock.monotonic() - timeouts.REFUSAL_WINDOW_S)
    assert counts(log) == [1] * MOST + [5]


async def test_another_caller_or_reason_is_counted_apart() -> None:
    log = MemoryLog()
    refusals = Refusals(log, TestClock(), CountedIds())
    for _ in range(MOST + 1):
        await refusals.record(refusal())
    await refusals.record(refusal(sub="other"))
    await refusals.record(refusal(reason="run_not_active"))
    assert counts(log) == [1] * (MOST + 2)


async def test_a_new_window_tells_the_count_of_the_old_one() -> None:
    log, clock = MemoryLog(), TestClock()
    refusals = Refusals(log, clock, CountedIds())
    for _ in range(MOST + 2):
        await refusals.record(refusal())
    clock.seconds += timeouts.REFUSAL_WINDOW_S
    await refusals.record(refusal())
    await refusals.append_counts(clock.monotonic())
    assert sorted(counts(log)) == [1] * (MOST + 1) + [2]


async def test_a_log_that_is_away_does_not_turn_a_refusal_into_a_fault() -> None:
    log = MemoryLog(refuse=1)
    await Refusals(log, TestClock(), CountedIds()).record(refusal())
    assert log.rows == []


async def test_a_refusal_names_its_target_and_a_count_what_all_targets_have_in_common() -> None:
    log, clock = MemoryLog(), TestClock()
    refusals = Refusals(log, clock, CountedIds())
    for number in range(MOST + 3):
        await refusals.record(replace(refusal(), target={"thread_id": "t-1", "run_id": f"r-{number}"}))
    await refusals.append_counts(clock.monotonic() + 1)
    facts = [fact for draft, _ in log.rows for fact in draft.facts if isinstance(fact, CommandRefused)]
    assert [fact.target for fact in facts[:2]] == [
        {"thread_id": "t-1", "run_id": "r-0"},
        {"thread_id": "t-1", "run_id": "r-1"},
    ]
    assert (facts[-1].count, facts[-1].target) == (3, {"thread_id": "t-1"})


async def test_the_digest_of_a_refused_request_is_keyed_wherever_it_stands() -> None:
    log = MemoryLog()
    await Refusals(log, TestClock(), CountedIds()).record(refusal())
    [(draft, _)] = log.rows
    assert draft.facts == (CommandRefused("CreateRun", "thread_busy", {}, KeyedDigest("0" * 64, "s")),)
    assert draft.body_sha256 == digest(draft.event_id.encode())
