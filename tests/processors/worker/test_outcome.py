"""Tests of the end of a run: given an outcome and a stop request, when it ends, then facts."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.processors.examples import a_work

from agentlog_commands.claims import TIMED_OUT, CancelRequest, End
from agentlog_facts.execution_port import RunOutcome
from agentlog_facts.graph_ports import ThreadView
from agentlog_facts.ids import stream
from agentlog_facts.json_value import MOST_LEVELS, Json, JsonObject, dump, load
from agentlog_facts.thread import CancelAction, RunFinished, RunStatus, ThreadDeleted
from agentlog_facts.vocabulary import encode_fact
from agentlog_processors.runs.outcome import last_frames, readable_end
from agentlog_processors.worker.attempt import Attempt
from agentlog_processors.worker.outcome import end_of, finish, state_of

STOPPED: JsonObject = {"error": "UserInterrupt", "message": "stop"}


def outcome(status: RunStatus = "success", error: JsonObject | None = None) -> RunOutcome:
    return RunOutcome(status, error, {"messages": ["a", "b"]}, (), {}, "checkpoint", 4)


def an_attempt() -> Attempt:
    return Attempt(a_work(), 7, "00000000-0000-7000-8000-000000000001")


def fact_of(attempt: Attempt) -> RunFinished:
    """Return the fact of an attempt's usual end."""
    return readable_end(attempt.work, end_of(attempt, outcome()), state_of(outcome()))[1]


def cancel(action: CancelAction) -> CancelRequest:
    return CancelRequest(action, datetime(2026, 1, 2, tzinfo=UTC), STOPPED)


async def test_a_run_that_nobody_stopped_ends_as_it_went() -> None:
    end = end_of(an_attempt(), outcome("error", {"error": "ValueError", "message": "no"}))
    assert (end.status, end.error) == ("error", {"error": "ValueError", "message": "no"})


async def test_a_cancelled_run_ends_interrupted_with_the_text_of_the_request() -> None:
    attempt = an_attempt()
    attempt.request_stop("cancel", cancel("interrupt"))
    end = end_of(attempt, outcome("interrupted"))
    assert (end.status, end.error, end.rollback) == ("interrupted", STOPPED, False)


@pytest.mark.parametrize("status", ["success", "error"])
async def test_a_run_that_was_faster_than_its_cancel_ends_as_clients_see_it_since_the_request(
    status: RunStatus,
) -> None:
    attempt = an_attempt()
    attempt.request_stop("cancel", cancel("interrupt"))
    assert end_of(attempt, outcome(status)).status == "interrupted"


@pytest.mark.parametrize("status", ["success", "interrupted", "error"])
async def test_a_rollback_takes_the_run_back_however_it_went(status: RunStatus) -> None:
    attempt = an_attempt()
    attempt.request_stop("cancel", cancel("rollback"))
    end = end_of(attempt, outcome(status))
    assert (end.status, end.rollback) == ("rollback", True)


async def test_a_rollback_is_one_also_for_a_run_that_stops_for_its_time() -> None:
    attempt = an_attempt()
    attempt.request_stop("timeout")
    attempt.request_stop("cancel", cancel("rollback"))
    assert end_of(attempt, outcome("interrupted")).status == "rollback"


async def test_a_cancel_that_is_accepted_while_a_run_stops_for_its_time_decides_its_end() -> None:
    attempt = an_attempt()
    attempt.request_stop("timeout")
    attempt.request_stop("cancel", cancel("interrupt"))
    assert end_of(attempt, outcome("interrupted")).status == "interrupted"


async def test_a_run_over_its_time_ends_in_timeout() -> None:
    attempt = an_attempt()
    attempt.request_stop("timeout")
    assert (end_of(attempt, outcome("interrupted")).status, end_of(attempt, outcome("interrupted")).error) == (
        "timeout",
        TIMED_OUT,
    )


async def test_what_leaves_the_run_to_others_overrides_an_earlier_request() -> None:
    attempt = an_attempt()
    attempt.request_stop("cancel", cancel("interrupt"))
    attempt.request_stop("stale")
    attempt.request_stop("timeout")
    assert attempt.stop_reason == "stale"


async def test_the_end_states_only_what_changed_in_the_view() -> None:
    attempt = Attempt(replace(a_work(), values={"messages": ["a"]}), 7, "event")
    command = finish(attempt, replace(fact_of(attempt), outputs_to=8192), 4, 7)
    decision = command.decide()
    fact = decision.facts[0]
    assert isinstance(fact, RunFinished)
    assert fact.view == {"append": {"messages": ["b"]}}
    assert (fact.outputs_to, fact.checkpoint_id) == (8192, "checkpoint")


async def test_the_end_is_fenced_and_demands_the_last_checkpoint_and_the_thread_as_it_was_seen() -> None:
    attempt = an_attempt()
    decision = finish(attempt, fact_of(attempt), 4, 9).decide()
    assert decision.epoch == 7
    assert decision.demands == {stream("run", attempt.work.run_id): 4, stream("thread", attempt.work.thread_id): 9}


async def test_a_temporary_thread_goes_with_its_run() -> None:
    attempt = Attempt(replace(a_work(), temporary=True), 7, "event")
    decision = finish(attempt, fact_of(attempt), None, 7).decide()
    assert [type(fact) for fact in decision.facts] == [RunFinished, ThreadDeleted]


async def test_only_an_error_is_said_on_the_stream() -> None:
    attempt = an_attempt()
    failed = end_of(attempt, outcome("error", {"error": "ValueError", "message": "no"}))
    assert [frame.event for frame in last_frames(failed)] == ["error"]
    assert last_frames(end_of(attempt, outcome())) == ()


@pytest.mark.parametrize("value", [[[]], "\ud800"], ids=["deep", "surrogate"])
@pytest.mark.parametrize("part", ["view", "interrupts", "error"])
async def test_an_end_that_no_reader_could_decode_is_replaced_by_an_error_that_can_be(value: Json, part: str) -> None:
    """The run ended never: each try appended its whole state again, and was void without a verdict."""
    for _ in range(200 if isinstance(value, list) else 0):
        value = [value]
    given: dict[str, JsonObject] = {part: {"x": value}}
    view = ThreadView(given.get("view", {}), ("n",), given.get("interrupts", {}), "checkpoint")
    _, fact = readable_end(a_work(), End("success", "success", given.get("error", {})), view)
    assert (fact.status, fact.view, fact.interrupts, fact.checkpoint_id) == ("error", {}, {}, "checkpoint")
    assert fact.error is not None
    assert str(fact.error["message"]).startswith("the end of the run cannot be written: ")
    assert load(dump(encode_fact(fact))) == encode_fact(fact)


async def test_an_end_that_wraps_the_deepest_state_is_written_as_it_is() -> None:
    deep: Json = "x"
    for _ in range(MOST_LEVELS):
        deep = [deep]
    view = ThreadView({"x": deep}, (), {"t": deep})
    _, fact = readable_end(a_work(), End("success", "success", {}), view)
    assert (fact.status, fact.view, fact.interrupts) == ("success", {"set": {"x": deep}}, {"t": deep})
