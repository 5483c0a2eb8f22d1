"""Races of resumes: the second resume of an interrupt is refused, even if a new interrupt is open by then."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from httpx2 import AsyncClient
from tests.facts import commits as c
from tests.gateway.race_env import THREAD, Gateways, two_gateways
from tests.gateway.web_env import detail
from tests.stack_fixtures import until

from agentlog_commands.run_request import BOTH_GIVEN
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.thread import RunCreated, ThreadCreated

ONE, OTHER = "0" * 32, "f" * 32
PATH = f"/threads/{THREAD}/runs"


@pytest.fixture
async def raced() -> AsyncIterator[Gateways]:
    """Yield gateways with a thread whose run has reached an interrupt."""
    async with two_gateways() as made:
        await made.log.happen(ThreadCreated(THREAD, {}))
        await run_to_interrupt(made, replace(c.run_created("asker"), thread_id=THREAD))
        yield made


def resumed(answer: Json, run: str = "rival") -> RunCreated:
    return replace(c.run_created(run), thread_id=THREAD, kwargs={"command": {"resume": answer}})


async def run_to_interrupt(raced: Gateways, run: RunCreated, *, ends: bool = True) -> None:
    """Append another writer's run up to its interrupt; with `ends` the run finishes there."""
    await raced.log.happen(run)
    epoch = await raced.log.happen(c.run_claimed(run.run_id))
    raced.rows.asking.add(run.run_id)
    if ends:
        await raced.log.happen(c.run_finished(run.run_id), epoch=epoch)


async def post(
    client: AsyncClient, answer: Json, strategy: str = "enqueue", key: str = ""
) -> tuple[int, JsonObject | str]:
    """Resume an interrupt; return the status, and the run or the refusal's text."""
    body: JsonObject = {"assistant_id": "steps", "command": {"resume": answer}, "multitask_strategy": strategy}
    got = await client.post(PATH, json=body, headers={"Idempotency-Key": key} if key else {})
    return got.status_code, got.json() if got.status_code == 200 else detail(got.content)


async def test_context_beside_configurable_is_refused_and_nothing_is_written(raced: Gateways) -> None:
    body: JsonObject = {"assistant_id": "steps", "context": {"a": 1}, "config": {"configurable": {"a": 1}}}
    got = await raced.one.post(PATH, json=body)
    assert (got.status_code, detail(got.content), raced.log.verdicts) == (400, BOTH_GIVEN, {})


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("strategy", ["enqueue", "reject", "interrupt"])
@pytest.mark.parametrize(("first", "second"), [("yes", "no"), ({ONE: "yes"}, {ONE: "no"}), ("yes", {ONE: "no"})])
async def test_an_answer_that_lost_its_race_does_not_answer_what_is_asked_next(
    raced: Gateways, first: Json, second: Json, strategy: str, ends: bool
) -> None:
    raced.log.before_append = lambda: run_to_interrupt(raced, resumed(first), ends=ends)
    status, shown = await post(raced.other, second, strategy)
    assert (status, raced.log.verdicts) == (409, {"version_conflict": 1})
    assert "rival" in shown or (strategy == "reject" and not ends)


@pytest.mark.parametrize("ends", [True, False])
async def test_an_answer_that_met_another_one_at_work_is_refused_whatever_is_open_when_it_is_decided(
    raced: Gateways, ends: bool
) -> None:
    await raced.log.happen(resumed("yes"))
    epoch = await raced.log.happen(c.run_claimed("rival"))

    async def comes_to_the_next_interrupt() -> None:
        raced.rows.asking.add("rival")
        if ends:
            await raced.log.happen(c.run_finished("rival"), epoch=epoch)

    raced.rows.after_look = comes_to_the_next_interrupt
    status, shown = await post(raced.other, "no")
    assert (status, "rival" in shown, raced.log.verdicts) == (409, True, {})


async def test_an_answer_that_waited_for_its_turn_does_not_answer_what_is_asked_next(raced: Gateways) -> None:
    late: list[asyncio.Task[tuple[int, JsonObject | str]]] = []

    async def the_other_comes() -> None:
        before = raced.ids.last
        late.append(asyncio.create_task(post(raced.one, "no")))
        await until(lambda: raced.ids.last > before)  # it has an id; it joins the queue without another await

    async def the_first_has_run() -> None:
        run = next(fact for fact in raced.log.rows[-1][0].facts if isinstance(fact, RunCreated))
        epoch = await raced.log.happen(c.run_claimed(run.run_id))
        await raced.log.happen(c.run_finished(run.run_id), epoch=epoch)

    raced.log.before_append, raced.log.before_verdict = the_other_comes, the_first_has_run
    assert (await post(raced.one, "yes"))[0] == 200
    status, shown = await late[0]
    assert (status, raced.log.verdicts) == (409, {"accepted": 1}), shown


async def test_an_answer_that_is_sent_again_with_its_key_is_for_the_interrupt_that_it_was_first_sent_for(
    raced: Gateways,
) -> None:
    raced.log.before_append, raced.log.lost_verdicts = (lambda: run_to_interrupt(raced, resumed("yes"))), 1
    assert (await post(raced.other, "no", key="k"))[0] == 504
    status, shown = await post(raced.one, "no", key="k")
    assert (status, raced.log.verdicts) == (409, {"version_conflict": 1}), shown
    assert (await post(raced.one, "no", key="another"))[0] == 200


async def test_an_accepted_answer_that_is_sent_again_is_answered_as_the_first_time(raced: Gateways) -> None:
    async def nothing_of_it_is_answered() -> None:
        await run_to_interrupt(raced, resumed({OTHER: 1}))

    raced.log.before_append = nothing_of_it_is_answered
    first = await post(raced.other, {ONE: 1}, key="k")
    assert (first[0], raced.log.verdicts) == (200, {"version_conflict": 1, "accepted": 1})
    assert await post(raced.one, {ONE: 1}, key="k") == first


async def test_an_answer_that_lost_a_race_to_no_other_answer_goes_on(raced: Gateways) -> None:
    async def written_by_hand() -> None:
        await raced.log.happen(replace(c.state_updated(), thread_id=THREAD))

    raced.log.before_append = written_by_hand
    assert (await post(raced.other, "yes"))[0] == 200
    assert raced.log.verdicts == {"version_conflict": 1, "accepted": 1}


async def test_an_answer_to_the_next_interrupt_may_come_before_the_run_that_asks_it_has_ended(raced: Gateways) -> None:
    await run_to_interrupt(raced, resumed("yes"), ends=False)

    async def it_ends() -> None:
        epoch = max(run.epoch or 0 for run in (await raced.rows.thread(THREAD, 0)).state.runs.values())
        await raced.log.happen(c.run_finished("rival"), epoch=epoch)

    raced.log.before_append = it_ends
    assert (await post(raced.other, "also"))[0] == 200
    assert raced.log.verdicts == {"version_conflict": 1, "accepted": 1}
