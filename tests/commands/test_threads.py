"""Commands of threads, one sentence each."""

from datetime import timedelta

from tests.commands.spec import given
from tests.facts import commits as c
from tests.facts.commits import ON_META, ON_THREAD, THREAD

from agentlog_commands.threads import CreateThread, DeleteThread, ExpireThread, PatchThread, PruneThread, UpdateState
from agentlog_facts.checkpoint import CheckpointKey, CheckpointsHidden
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import ThreadCreated, ThreadDeleted, ThreadMetadataPatched, ThreadPruned, ThreadTtlSet

EARLIER = CheckpointKey(THREAD, "", "c1")
HIDDEN = CheckpointsHidden(THREAD, ({"ns": "", "checkpoint_id": "c1"},), "prune")
DELETE: JsonObject = {"strategy": "delete", "ttl_minutes": 5}
KEEP: JsonObject = {"strategy": "keep_latest", "ttl_minutes": 5}


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


def test_a_patch_of_the_ttl_alone_changes_no_metadata() -> None:
    command = PatchThread(THREAD, {}, ttl=DELETE)
    decision = given(c.thread_created()).when(lambda state: command.decide(state, {}, None))
    assert decision.then(ThreadTtlSet(THREAD, DELETE)).stream == ON_META
    both = PatchThread(THREAD, {"a": 1}, ttl=DELETE)
    facts = ThreadMetadataPatched(THREAD, {"a": 1}), ThreadTtlSet(THREAD, DELETE)
    given(c.thread_created()).when(lambda state: both.decide(state, {}, None)).then(*facts)


def test_a_prune_demands_both_streams_and_waits_for_no_run() -> None:
    prune = PruneThread(THREAD, 4, 2, [EARLIER])
    decision = given(c.thread_created()).when(prune.decide).then(HIDDEN, ThreadPruned(THREAD))
    assert (decision.stream, decision.demands) == (ON_THREAD, {ON_THREAD: 4, ON_META: 2})
    given().when(prune.decide).then_refused("thread_not_found")
    given(c.thread_created(), c.run_created()).when(prune.decide).then_refused("thread_busy")
    given(c.thread_created()).when(PruneThread(THREAD, 4, 2, []).decide).then_refused("nothing_to_do")


def test_a_thread_expires_by_its_strategy_once_its_time_is_over() -> None:
    prune = PruneThread(THREAD, 4, None, [EARLIER])
    deleted = given(c.thread_created()).when(ExpireThread(prune, DELETE, c.NOW, c.NOW).decide)
    assert deleted.then(ThreadDeleted(THREAD)).demands == {ON_THREAD: 4, ON_META: "absent"}
    kept = given(c.thread_created()).when(ExpireThread(prune, KEEP, c.NOW, c.NOW).decide)
    assert kept.then(HIDDEN, ThreadPruned(THREAD)).demands == {ON_THREAD: 4, ON_META: "absent"}
    nothing = PruneThread(THREAD, 4, None, [])
    given(c.thread_created()).when(ExpireThread(nothing, KEEP, c.NOW, c.NOW).decide).then(ThreadPruned(THREAD))


def test_a_thread_that_was_updated_or_runs_does_not_expire() -> None:
    prune = PruneThread(THREAD, 4, None, [EARLIER])
    later = c.NOW + timedelta(minutes=5)
    for ttl, expires_at in ((DELETE, later), (KEEP, None), (None, None)):
        given(c.thread_created()).when(ExpireThread(prune, ttl, expires_at, c.NOW).decide).then_refused("nothing_to_do")
    busy = given(c.thread_created(), c.run_created())
    busy.when(ExpireThread(prune, DELETE, c.NOW, c.NOW).decide).then_refused("nothing_to_do")
    given().when(ExpireThread(prune, DELETE, c.NOW, c.NOW).decide).then_refused("thread_not_found")
