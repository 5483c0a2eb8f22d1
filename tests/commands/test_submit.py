"""Submission of commands: races, retries, lost acknowledgements, keys."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from tests.facts import commits as c
from tests.facts.commits import ON_META, ON_THREAD, commit
from tests.fakes.memory_log import MemoryLog
from tests.fakes.ports import CountedIds, TestClock

from agentlog_commands.command import Accepted, Decision, Refused
from agentlog_commands.submit import TRIES, Intent, Submitted, Submitter, Voided
from agentlog_facts.envelope import Actor, Cause, Draft, LogPosition, Recorded
from agentlog_facts.errors import AgentlogError, Contended, Diverged, KeyReused, OutcomeUnknown, Unavailable
from agentlog_facts.guard import Verdict
from agentlog_facts.ids import Key
from agentlog_facts.ports import Indexed
from agentlog_facts.vocabulary import encode_commit, encode_facts
from agentlog_infra.system_ports import SystemClock

DEADLINE = 1000.0
CREATE = Accepted(ON_THREAD, (c.thread_created(),), {ON_THREAD: "absent"})


def intent(event_id: str = "e1", body: str = "b", keyed: bool = False, serial: bool = False) -> Intent:
    return Intent(Key("t1"), event_id, body, Cause(Actor("user", "ana"), "request"), keyed, serial)


def submitter(log: MemoryLog, step_s: float = 0.0) -> Submitter:
    return Submitter(log, log, log, TestClock(step_s), CountedIds())


def decide(*decisions: Decision) -> Callable[[], Awaitable[Decision]]:
    """Return a function that gives these decisions in turn, and the last one for ever."""
    left = list(decisions)

    async def next_one() -> Decision:
        await asyncio.sleep(0)
        return left.pop(0) if len(left) > 1 else left[0]

    return next_one


async def test_an_accepted_commit_is_answered_from_its_facts() -> None:
    log = MemoryLog()
    outcome = await submitter(log).submit(intent(), decide(CREATE), DEADLINE)
    assert isinstance(outcome, Submitted)
    assert (outcome.version, outcome.facts, outcome.duplicate) == (0, CREATE.facts, False)


async def test_a_refusal_appends_nothing() -> None:
    log = MemoryLog()
    assert await submitter(log).submit(intent(), decide(Refused("thread_busy")), DEADLINE) == Refused("thread_busy")
    assert log.records == []


async def test_a_lost_race_decides_again_under_the_same_intent_and_a_new_try() -> None:
    log = MemoryLog()
    await submitter(log).submit(intent(), decide(CREATE), DEADLINE)
    late = Accepted(ON_THREAD, (c.run_created(),), {ON_THREAD: 7})
    better = Accepted(ON_THREAD, (c.run_created(),), {ON_THREAD: 0})
    outcome = await submitter(log).submit(intent("e2"), decide(late, better), DEADLINE)
    assert isinstance(outcome, Submitted)
    tries = [draft for draft, _ in log.rows if draft.event_id == "e2"]
    assert len({draft.append_id for draft in tries}) == len(tries) == 2


async def test_a_first_patch_that_came_second_decides_again() -> None:
    log = MemoryLog()
    await submitter(log).submit(intent(), decide(CREATE), DEADLINE)
    first = Accepted(ON_META, (c.patched(),), {ON_META: "absent"})
    await submitter(log).submit(intent("e2"), decide(first), DEADLINE)
    outcome = await submitter(log).submit(intent("e3"), decide(first, replace(first, demands={ON_META: 0})), DEADLINE)
    assert isinstance(outcome, Submitted)
    assert outcome.version == 1


async def test_a_race_that_is_lost_every_time_is_given_up() -> None:
    log = MemoryLog()
    await submitter(log).submit(intent(), decide(CREATE), DEADLINE)
    late = Accepted(ON_THREAD, (c.run_created(),), {ON_THREAD: 7})
    with pytest.raises(Contended) as caught:
        await submitter(log).submit(intent("e2"), decide(late), DEADLINE)
    assert (caught.value.status, caught.value.retriable) == (503, True)
    assert len(log.records) == 1 + TRIES


async def test_a_final_void_is_told_with_its_reason() -> None:
    log = MemoryLog()
    await submitter(log).submit(intent(), decide(CREATE), DEADLINE)
    outcome = await submitter(log).submit(intent("e2"), decide(CREATE), DEADLINE)
    assert isinstance(outcome, Voided)
    assert outcome.void.reason == "exists"


async def test_a_retry_with_the_same_key_is_answered_as_the_first_time() -> None:
    log = MemoryLog()
    await submitter(log).submit(intent(keyed=True), decide(CREATE), DEADLINE)
    again = await submitter(log).submit(intent(keyed=True), decide(CREATE), DEADLINE)
    assert isinstance(again, Submitted)
    assert again.duplicate
    assert again.facts == CREATE.facts


async def test_a_retry_that_would_be_refused_now_is_answered_as_the_first_time() -> None:
    log = MemoryLog()
    await submitter(log).submit(intent(keyed=True), decide(CREATE), DEADLINE)
    again = await submitter(log).submit(intent(keyed=True), decide(Refused("thread_exists")), DEADLINE)
    assert isinstance(again, Submitted)
    assert again.duplicate
    assert len(log.records) == 1


@pytest.mark.parametrize("decision", [CREATE, Refused("thread_exists")])
async def test_a_key_with_another_body_is_refused(decision: Decision) -> None:
    log = MemoryLog()
    await submitter(log).submit(intent(keyed=True), decide(CREATE), DEADLINE)
    with pytest.raises(KeyReused):
        await submitter(log).submit(intent(body="other", keyed=True), decide(decision), DEADLINE)


async def test_a_lost_acknowledgement_is_not_a_failure() -> None:
    log = MemoryLog(lose_acks=1)
    outcome = await submitter(log).submit(intent(), decide(CREATE), DEADLINE)
    assert isinstance(outcome, Submitted)
    assert len(log.records) == 1


async def test_a_record_that_lies_on_the_log_twice_is_answered_as_accepted() -> None:
    class Doubling(MemoryLog):
        async def append(self, draft: Draft) -> LogPosition:
            await super().append(draft)
            return await super().append(draft)

    outcome = await submitter(Doubling()).submit(intent(), decide(CREATE), DEADLINE)
    assert isinstance(outcome, Submitted)
    assert (outcome.version, outcome.facts, outcome.place) == (0, CREATE.facts, LogPosition(0, 0))


async def test_what_is_on_the_log_but_cannot_be_read_is_never_told_as_not_done() -> None:
    class Blind(MemoryLog):
        async def accepted(self, key: Key, event_id: str) -> Indexed | None:
            raise Unavailable("the database is away")

    log = Blind()
    await submitter(log).submit(intent(keyed=True), decide(CREATE), DEADLINE)
    with pytest.raises(OutcomeUnknown):
        await submitter(log).submit(intent(keyed=True), decide(CREATE), DEADLINE)


async def test_what_is_on_the_log_but_not_yet_in_the_index_is_never_told_as_not_done() -> None:
    class Behind(MemoryLog):
        async def accepted(self, key: Key, event_id: str) -> Indexed | None:
            return None

    log = Behind()
    await submitter(log).submit(intent(keyed=True), decide(CREATE), DEADLINE)
    with pytest.raises(OutcomeUnknown):
        await submitter(log).submit(intent(keyed=True), decide(CREATE), DEADLINE)


@pytest.mark.parametrize(("decision", "expected"), [(CREATE, OutcomeUnknown), (Refused("thread_exists"), Diverged)])
async def test_a_first_outcome_is_not_told_from_a_record_that_lies_there_since_a_restore(
    decision: Decision, expected: type[AgentlogError]
) -> None:
    log = MemoryLog()
    await submitter(log).submit(intent(keyed=True), decide(CREATE), DEADLINE)
    other = commit(c.run_created())
    log.records[0] = (other.key, encode_commit(other, encode_facts(other)))
    with pytest.raises(expected):
        await submitter(log).submit(intent(keyed=True), decide(decision), DEADLINE)


class Hanging(MemoryLog):
    """Log with one method that hangs, named by `away`: `append`, `by_append`, `accepted` or `read`."""

    away = ""

    async def _hang_if(self, name: str) -> None:
        if self.away == name:
            await asyncio.Event().wait()

    async def append(self, draft: Draft) -> LogPosition:
        await self._hang_if("append")
        return await super().append(draft)

    async def by_append(self, key: Key, append_id: str) -> Indexed | None:
        await self._hang_if("by_append")
        return await super().by_append(key, append_id)

    async def accepted(self, key: Key, event_id: str) -> Indexed | None:
        await self._hang_if("accepted")
        return await super().accepted(key, event_id)

    async def read(self, place: LogPosition) -> Recorded:
        await self._hang_if("read")
        return await super().read(place)


@pytest.mark.parametrize(
    ("away", "lose_acks", "decision", "expected"),
    [
        ("append", 0, CREATE, OutcomeUnknown),
        ("by_append", 1, CREATE, OutcomeUnknown),
        ("accepted", 0, CREATE, OutcomeUnknown),
        ("read", 0, CREATE, OutcomeUnknown),
        ("accepted", 0, Refused("thread_exists"), Unavailable),
        ("read", 0, Refused("thread_exists"), Unavailable),
    ],
)
async def test_whatever_hangs_the_answer_comes_at_the_deadline(
    away: str, lose_acks: int, decision: Decision, expected: type[AgentlogError]
) -> None:
    log = Hanging()
    one = Submitter(log, log, log, SystemClock(), CountedIds())
    await one.submit(intent(keyed=True), decide(CREATE), time.monotonic() + 10)
    log.away, log.lose_acks = away, lose_acks
    async with asyncio.timeout(5):
        with pytest.raises(expected) as found:
            await one.submit(intent(keyed=True), decide(decision), time.monotonic() + 0.1)
    assert type(found.value) is expected


async def test_a_decision_that_hangs_is_given_up_at_the_deadline_and_nothing_is_appended() -> None:
    log = MemoryLog()

    async def never() -> Decision:
        await asyncio.Event().wait()
        return CREATE

    one = Submitter(log, log, log, SystemClock(), CountedIds())
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable) as found:
            await one.submit(intent(), never, time.monotonic() + 0.1)
    assert type(found.value) is Unavailable
    assert log.records == []


async def test_at_the_deadline_the_outcome_is_unknown() -> None:
    class Silent(MemoryLog):
        async def append(self, draft: Draft) -> LogPosition:
            raise OutcomeUnknown("no acknowledgement")

    with pytest.raises(OutcomeUnknown):
        await submitter(Silent(), step_s=300.0).submit(intent(), decide(CREATE), DEADLINE)


async def test_what_was_never_handed_over_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await submitter(MemoryLog(refuse=1)).submit(intent(), decide(CREATE), DEADLINE)


async def test_commands_that_follow_each_other_do_not_race_themselves() -> None:
    log = MemoryLog()
    one = submitter(log)
    await one.submit(intent(), decide(CREATE), DEADLINE)

    async def patch(number: int) -> None:
        async def decide_on_what_is() -> Decision:
            version = log.heads["t1"].versions[ON_THREAD]
            await asyncio.sleep(0)
            return Accepted(ON_THREAD, (c.state_updated(),), {ON_THREAD: version})

        await one.submit(intent(f"e{number}", serial=True), decide_on_what_is, DEADLINE)

    await asyncio.gather(*(patch(number) for number in range(2, 22)))
    assert len(log.records) == 21, "no try was lost"


async def test_commands_that_wait_for_their_turn_give_up_at_their_own_deadline() -> None:
    class Stalled(MemoryLog):
        async def wait(self, place: LogPosition, append_id: str, deadline: float) -> Verdict:
            never: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    return await never
            except TimeoutError as error:
                raise OutcomeUnknown("no verdict") from error

    log = Stalled()
    one = Submitter(log, log, log, SystemClock(), CountedIds())
    began = time.monotonic()
    serial = [intent(f"e{number}", serial=True) for number in range(5)]
    tries = [one.submit(each, decide(CREATE), began + 0.1) for each in serial]
    ends = await asyncio.gather(*tries, return_exceptions=True)
    assert isinstance(ends[0], OutcomeUnknown)
    assert [type(end) for end in ends[1:]] == [Unavailable] * 4
    assert len(log.records) == 1, "what was answered with nothing was not appended afterwards"


async def test_a_decision_that_came_too_late_is_not_appended() -> None:
    log = MemoryLog()
    with pytest.raises(Unavailable):
        await submitter(log, step_s=2 * DEADLINE).submit(intent(), decide(CREATE), DEADLINE)
    assert log.records == []


async def test_a_turn_that_was_given_up_does_not_hold_up_the_next_command() -> None:
    log = MemoryLog()
    one = Submitter(log, log, log, SystemClock(), CountedIds())
    deciding, gate = asyncio.Event(), asyncio.Event()

    async def slowly() -> Decision:
        deciding.set()
        await gate.wait()
        return CREATE

    first = asyncio.ensure_future(one.submit(intent(serial=True), slowly, time.monotonic() + 10))
    await deciding.wait()
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable):
            await one.submit(intent("e2", serial=True), decide(CREATE), time.monotonic() + 0.05)
    gate.set()
    assert isinstance(await first, Submitted)
    outcome = await one.submit(intent("e3", serial=True), decide(Refused("thread_busy")), time.monotonic() + 10)
    assert outcome == Refused("thread_busy")
