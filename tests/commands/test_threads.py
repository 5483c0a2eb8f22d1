"""Commands of threads, one sentence each."""

from tests.commands.spec import given
from tests.facts import commits as c
from tests.facts.commits import ON_META, ON_THREAD, THREAD

from agentlog_commands.threads import CreateThread, DeleteThread, PatchThread, UpdateState
from agentlog_facts.thread import ThreadCreated, ThreadDeleted, ThreadMetadataPatched


def test_creating_leaves_the_question_of_existence_to_the_log() -> None:
    decision = given().when(lambda _: CreateThread(THREAD, {"a": 1}).decide()).then(ThreadCreated(THREAD, {"a": 1}))
    assert decision.demands == {ON_THREAD: "absent"}


def test_a_patch_lies_beside_the_life_of_runs() -> None:
    command = PatchThread(THREAD, {"a": 1})
    decision = (
        given(c.thread_created())
        .when(lambda state: command.decide(state, {}, None))
        .then(ThreadMetadataPatched(THREAD, {"a": 1}))
    )
    assert (decision.stream, decision.demands) == (ON_META, {ON_META: "exists"})


def test_an_unknown_thread_is_neither_patched_nor_deleted() -> None:
    given().when(lambda state: PatchThread(THREAD, {}).decide(state, {}, None)).then_refused("thread_not_found")
    given().when(DeleteThread(THREAD, 0, None).decide).then_refused("thread_not_found")


def test_a_deletion_demands_both_streams_as_they_were_seen() -> None:
    decision = given(c.thread_created()).when(DeleteThread(THREAD, 0, 3).decide).then(ThreadDeleted(THREAD))
    assert decision.demands == {ON_THREAD: 0, ON_META: 3}


def test_a_deletion_that_saw_no_patch_demands_that_there_is_none() -> None:
    decision = given(c.thread_created()).when(DeleteThread(THREAD, 0, None).decide).then(ThreadDeleted(THREAD))
    assert decision.demands == {ON_THREAD: 0, ON_META: "absent"}


def test_state_is_not_written_while_a_run_is_active() -> None:
    command = UpdateState(THREAD, 1, (), c.state_updated())
    given(c.thread_created(), c.run_created()).when(command.decide).then_refused("thread_busy")
    given(c.thread_created()).when(command.decide).then(c.state_updated())


def test_behind_an_accepted_cancel_state_is_written_once_the_run_has_ended() -> None:
    command = UpdateState(THREAD, 3, (), c.state_updated())
    stopping = (c.thread_created(), c.run_created(), c.run_claimed(), c.cancel_requested())
    given(*stopping).when(command.decide).then_refused("run_stopping")
    given(*stopping, c.run_finished()).when(command.decide).then(c.state_updated())
