"""Commands of runs, one sentence each."""

from dataclasses import replace

import pytest
from tests.commands.spec import given
from tests.facts import commits as c
from tests.facts.commits import NOW, ON_THREAD, THREAD

from agentlog_commands.claims import CancelRequest
from agentlog_commands.command import Accepted
from agentlog_commands.runs import CancelRun, ClaimRun, CreateRun, DeleteRun, FinishRun, ReleaseRun
from agentlog_facts.guard import Void
from agentlog_facts.ids import RunId, Stream
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.thread import (
    CancelAction,
    RunCancelRequested,
    RunCreated,
    RunFinished,
    RunReleased,
    ThreadCreated,
    ThreadDeleted,
    new_run,
)

R1 = RunId("r1")
ERROR = {"error": "UserInterrupt", "message": "stop"}


def create(strategy: str = "enqueue", version: int | None = None) -> CreateRun:
    return CreateRun(replace(c.run_created("r2"), multitask_strategy=strategy), NOW, version=version)


def cancel(action: str = "interrupt") -> CancelRun:
    return CancelRun(THREAD, R1, "rollback" if action == "rollback" else "interrupt", {**ERROR}, NOW, 2)


def test_a_run_needs_a_thread() -> None:
    given().when(create().decide).then_refused("thread_not_found")


def test_a_thread_may_be_created_with_its_run_in_one_commit() -> None:
    command = replace(create(), create_thread={"a": 1})
    decision = given().when(command.decide).then(ThreadCreated(THREAD, {"a": 1}), command.run)
    assert decision.demands == {ON_THREAD: "absent"}


def test_a_second_run_queues_behind_the_first_and_demands_no_version() -> None:
    command = create()
    decision = given(c.thread_created(), c.run_created()).when(command.decide).then(command.run)
    assert decision.demands == {ON_THREAD: "exists"}


def test_reject_refuses_a_busy_thread() -> None:
    given(c.thread_created(), c.run_created()).when(create("reject", 1).decide).then_refused("thread_busy")


def test_reject_refuses_while_only_a_delayed_run_waits() -> None:
    delayed: RunCreated = c.run_created(due_at=NOW)
    given(c.thread_created(), delayed).when(create("reject", 1).decide).then_refused("thread_busy")


def test_reject_on_an_idle_thread_demands_the_version_it_saw() -> None:
    command = create("reject", 0)
    assert given(c.thread_created()).when(command.decide).then(command.run).demands == {ON_THREAD: 0}


def test_a_pending_run_is_cancelled_at_once() -> None:
    ended = RunFinished(R1, "interrupted", {**ERROR}, {}, (), {})
    assert given(c.thread_created(), c.run_created()).when(cancel().decide).then(ended).demands == {ON_THREAD: 2}


def test_a_pending_run_of_a_temporary_thread_takes_the_thread_with_it() -> None:
    temporary = replace(c.run_created(), temporary=True)
    ended = RunFinished(R1, "interrupted", {**ERROR}, {}, (), {})
    given(c.thread_created(True), temporary).when(cancel().decide).then(ended, ThreadDeleted(THREAD))


def test_a_running_run_is_asked_to_stop() -> None:
    asked = replace(c.cancel_requested(), error={**ERROR})
    given(c.thread_created(), c.run_created(), c.run_claimed()).when(cancel().decide).then(asked)


def test_a_released_run_is_asked_to_stop_since_it_may_have_checkpoints() -> None:
    asked = replace(c.cancel_requested(), error={**ERROR})
    given(c.thread_created(), c.run_created(), c.run_claimed(), c.run_released()).when(cancel().decide).then(asked)


def test_the_first_cancel_says_how_a_run_ends() -> None:
    twice = (c.cancel_requested(), replace(c.cancel_requested(), action="rollback"))
    state = given(c.thread_created(), c.run_created(), c.run_claimed(), *twice).state
    assert state.runs[R1].cancel == "interrupt"


def test_a_run_that_ended_is_not_cancelled() -> None:
    history = (c.thread_created(), c.run_created(), c.run_claimed(), c.run_finished())
    given(*history).when(cancel().decide).then_refused("run_not_active")


def delete(known: bool = True) -> DeleteRun:
    return DeleteRun(THREAD, R1, known, {"remove": ["x"]}, (), {}, {**ERROR}, 2)


def test_deleting_a_running_run_releases_ends_and_hides_it_in_one_commit() -> None:
    released = RunReleased(R1, 2, "deleted")
    ended = RunFinished(R1, "interrupted", {**ERROR}, {}, (), {})
    hidden = replace(c.run_deleted(), view={"remove": ["x"]})
    given(c.thread_created(), c.run_created(), c.run_claimed()).when(delete().decide).then(released, ended, hidden)


def test_deleting_the_active_run_of_a_temporary_thread_takes_the_thread_with_it() -> None:
    temporary = replace(c.run_created(), temporary=True)
    ended = RunFinished(R1, "interrupted", {**ERROR}, {}, (), {})
    hidden = replace(c.run_deleted(), view={"remove": ["x"]})
    when = given(c.thread_created(True), temporary).when(replace(delete(), version=1).decide)
    decision = when.then(ended, hidden, ThreadDeleted(THREAD))
    log = c.Log().given(c.commit(c.thread_created(True)), c.commit(temporary))
    log.given(c.commit(*decision.facts, demands=decision.demands))
    assert not log.head.exists


def test_deleting_a_run_that_ended_only_hides_it() -> None:
    history = (c.thread_created(), c.run_created(), c.run_claimed(), c.run_finished())
    given(*history).when(delete().decide).then(replace(c.run_deleted(), view={"remove": ["x"]}))


def test_an_unknown_run_is_not_deleted() -> None:
    given(c.thread_created()).when(delete(known=False).decide).then_refused("run_not_found")


def test_a_claim_states_its_attempt_and_leaves_the_rest_to_the_guard() -> None:
    decision = ClaimRun(THREAD, R1, "w", 2, 4096, {"graph_id": "agent"}).decide()
    assert (decision.stream, decision.demands, decision.epoch) == (ON_THREAD, {}, None)


def test_a_worker_ends_its_run_under_its_epoch_behind_its_checkpoints_and_what_it_knows_of_the_thread() -> None:
    decision = FinishRun(THREAD, c.run_finished(), temporary=False, version=5, epoch=2, saved=4).decide()
    assert (decision.demands, decision.epoch) == ({ON_THREAD: 5, Stream("run-r1"): 4}, 2)


def test_the_end_of_a_temporary_threads_run_deletes_the_thread() -> None:
    decision = FinishRun(THREAD, c.run_finished(), temporary=True, version=5, epoch=2).decide()
    assert decision.facts == (c.run_finished(), ThreadDeleted(THREAD))


def test_a_reaper_ends_a_run_under_the_threads_version() -> None:
    decision = FinishRun(THREAD, c.run_finished(), temporary=False, version=5).decide()
    assert (decision.demands, decision.epoch) == ({ON_THREAD: 5}, None)


def test_a_worker_releases_under_its_epoch_a_reaper_under_the_version() -> None:
    released = c.run_released()
    assert ReleaseRun(THREAD, released).decide().epoch == 2
    assert ReleaseRun(THREAD, released, version=5).decide().demands == {ON_THREAD: 5}


def test_a_claim_that_is_taken_away_for_good_is_stopped_and_released_in_one_commit() -> None:
    stop = CancelRequest("interrupt", NOW, {**ERROR})
    decision = ReleaseRun(THREAD, c.run_released(), version=2, stop=stop).decide()
    assert decision.facts == (replace(c.cancel_requested(), error={**ERROR}), c.run_released())
    log = c.Log().given(c.commit(c.thread_created()), c.commit(c.run_created()), c.commit(c.run_claimed()))
    log.given(c.commit(*decision.facts, demands=decision.demands))
    assert log.append(c.commit(c.run_claimed(attempt=2))) == Void("cancel_requested")


def superseded(action: str) -> JsonObject:
    name = "UserRollback" if action == "rollback" else "UserInterrupt"
    return {"error": name, "message": f"superseded by run r2 (multitask_strategy={action})"}


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
def test_a_run_that_supersedes_asks_the_running_one_to_stop_in_its_own_commit(action: CancelAction) -> None:
    command = create(action, 2)
    asked = RunCancelRequested(R1, action, NOW, superseded(action))
    decision = given(c.thread_created(), c.run_created(), c.run_claimed()).when(command.decide).then(asked, command.run)
    assert decision.demands == {ON_THREAD: 2}
    log = c.Log().given(c.commit(c.thread_created()), c.commit(c.run_created()), c.commit(c.run_claimed()))
    log.given(c.commit(*decision.facts, demands=decision.demands))
    assert list(log.head.runs) == ["r1", "r2"]


def test_a_run_that_supersedes_ends_those_that_no_worker_had() -> None:
    command = create("rollback", 2)
    ended = RunFinished(R1, "rollback", superseded("rollback"), {}, (), {})
    given(c.thread_created(), c.run_created()).when(command.decide).then(ended, command.run)


def test_a_run_that_was_asked_to_stop_before_is_not_asked_again() -> None:
    command = create("rollback", 3)
    history = (c.thread_created(), c.run_created(), c.run_claimed(), c.cancel_requested())
    given(*history).when(command.decide).then(command.run)


def test_a_run_that_supersedes_nothing_demands_that_nothing_came_meanwhile() -> None:
    command = create("interrupt", 0)
    assert given(c.thread_created()).when(command.decide).then(command.run).demands == {ON_THREAD: 0}


ONE, OTHER = "0" * 32, "f" * 32


def resume(answers: Json, run: str = "r1") -> RunCreated:
    return replace(c.run_created(run), kwargs={"command": {"resume": answers}})


def answer(answers: Json) -> CreateRun:
    return CreateRun(resume(answers, "r2"), NOW, version=1)


@pytest.mark.parametrize(
    ("first", "second"), [("yes", "no"), ("yes", {ONE: "no"}), ({ONE: 1}, "no"), ({ONE: 1}, {ONE: 2, OTHER: 3})]
)
def test_of_two_answers_to_one_interrupt_the_later_is_refused(first: Json, second: Json) -> None:
    given(c.thread_created(), resume(first)).when(answer(second).decide).then_refused("interrupt_answered")


def test_answers_to_different_interrupts_follow_each_other() -> None:
    command = answer({OTHER: 1})
    assert given(c.thread_created(), resume({ONE: 1})).when(command.decide).then(command.run).demands == {ON_THREAD: 1}


def test_an_answer_follows_a_run_that_answers_nothing() -> None:
    command = answer("yes")
    given(c.thread_created(), c.run_created()).when(command.decide).then(command.run)


def test_an_answer_follows_one_that_was_asked_to_stop() -> None:
    command = answer("yes")
    history = (c.thread_created(), resume("no"), c.run_claimed(), c.cancel_requested())
    given(*history).when(command.decide).then(command.run)


def test_an_answer_follows_one_that_has_come_to_the_next_interrupt() -> None:
    state = given(c.thread_created(), resume("yes"), c.run_claimed()).state
    asking = replace(state, runs={R1: replace(state.runs[R1], asks=True)})
    assert isinstance(answer("yes").decide(asking), Accepted)


@pytest.mark.parametrize("strategy", ["enqueue", "reject", "interrupt", "rollback"])
@pytest.mark.parametrize(
    ("first", "second"), [("yes", "no"), ("yes", {ONE: "no"}), ({ONE: 1}, "no"), ({ONE: 1}, {ONE: 2, OTHER: 3})]
)
def test_an_answer_that_another_one_came_before_is_not_for_the_next_interrupt(
    strategy: str, first: Json, second: Json
) -> None:
    late = replace(
        answer(second), run=replace(resume(second, "r2"), multitask_strategy=strategy), rivals=[new_run(resume(first))]
    )
    answered = (c.thread_created(), resume(first), c.run_claimed(), c.run_finished())
    given(*answered).when(late.decide).then_refused("interrupt_answered")


@pytest.mark.parametrize(("strategy", "taken"), [("enqueue", False), ("interrupt", False), ("rollback", True)])
def test_an_answer_replaces_the_one_before_only_while_the_interrupt_can_be_open_again(
    strategy: str, taken: bool
) -> None:
    late = replace(
        answer("no"), run=replace(resume("no", "r2"), multitask_strategy=strategy), rivals=[new_run(resume("yes"))]
    )
    state = given(c.thread_created(), resume("yes"), c.run_claimed()).state
    asking = replace(state, runs={R1: replace(state.runs[R1], asks=True)})
    assert isinstance(late.decide(asking), Accepted) is taken
    assert isinstance(late.decide(state), Accepted) is (strategy != "enqueue")


@pytest.mark.parametrize("first", [c.run_created(), resume({OTHER: 1})])
def test_an_answer_may_come_after_runs_that_answered_nothing_of_it(first: RunCreated) -> None:
    command = replace(answer({ONE: 1}), rivals=[new_run(first)])
    given(c.thread_created(), first, c.run_claimed(), c.run_finished()).when(command.decide).then(command.run)


def test_behind_an_accepted_cancel_reject_gets_the_thread_and_a_second_cancel_finds_nothing() -> None:
    stopping = (c.thread_created(), c.run_created(), c.run_claimed(), c.cancel_requested())
    command = create("reject", 3)
    assert given(*stopping).when(command.decide).then(command.run).demands == {ON_THREAD: 3}
    given(*stopping).when(cancel().decide).then_refused("run_not_active")
    given(*stopping, command.run).when(create("reject", 4).decide).then_refused("thread_busy")
