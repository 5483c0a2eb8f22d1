"""Rules of the guard, one sentence each."""

from dataclasses import replace

import pytest
from tests.facts import commits as c
from tests.facts.commits import ON_META, ON_THREAD, Log, commit

from agentlog_facts.guard import Accepted, Duplicate, Void
from agentlog_facts.ids import RunId, Stream

ON_RUN = Stream("run-r1")


def thread_with_claimed_run() -> Log:
    """Return a log with the versions 0 (thread created), 1 (run created), 2 (claimed); so the epoch is 2."""
    return Log().given(commit(c.thread_created()), commit(c.run_created()), commit(c.run_claimed()))


def reason(log: Log, draft: object) -> str:
    verdict = log.append(draft)  # type: ignore[arg-type]  # the helper's only caller passes commits
    assert isinstance(verdict, Void), verdict
    return verdict.reason


def test_the_first_commit_of_a_stream_gets_version_0() -> None:
    assert Log().append(commit(c.thread_created(), demands={ON_THREAD: "absent"})) == Accepted(0)


def test_a_second_creation_is_void_because_the_thread_exists() -> None:
    log = Log().given(commit(c.thread_created()))
    verdict = log.append(commit(c.thread_created(), demands={ON_THREAD: "absent"}))
    assert verdict == Void("exists", ON_THREAD, "absent", "0")


def test_the_same_intent_is_a_duplicate_even_though_its_demand_fails_now() -> None:
    log = Log().given(commit(c.thread_created(), demands={ON_THREAD: "absent"}, event_id="e"))
    assert log.append(commit(c.thread_created(), demands={ON_THREAD: "absent"}, event_id="e")) == Duplicate(0)


def test_the_same_intent_with_another_body_is_refused() -> None:
    log = Log().given(commit(c.thread_created(), event_id="e"))
    assert reason(log, commit(c.thread_created(), event_id="e", body="other")) == "idempotency_key_reused"


def test_a_void_does_not_consume_its_event_id() -> None:
    log = Log().given(commit(c.thread_created()))
    assert reason(log, commit(c.run_created(), demands={ON_THREAD: 7}, event_id="e")) == "version_conflict"
    assert log.append(commit(c.run_created(), demands={ON_THREAD: 0}, event_id="e")) == Accepted(1)


def test_a_version_demand_names_what_was_expected_and_found() -> None:
    log = Log().given(commit(c.thread_created()))
    verdict = log.append(commit(c.run_created(), demands={ON_THREAD: 7}))
    assert verdict == Void("version_conflict", ON_THREAD, "7", "0")


def test_exists_is_about_the_aggregate_whatever_the_stream() -> None:
    log = Log()
    assert reason(log, commit(c.patched(), stream=ON_META, demands={ON_META: "exists"})) == "gone"
    log.given(commit(c.thread_created()))
    assert log.append(commit(c.patched(), stream=ON_META, demands={ON_META: "exists"})) == Accepted(0)


def test_absent_on_meta_asks_for_that_stream_and_by_rules_1_for_the_thread() -> None:
    log = Log().given(commit(c.thread_created()))
    first = commit(c.patched(), stream=ON_META, demands={ON_META: "absent"})
    by_rules_1 = replace(first, event_id="other", rules=1)
    assert log.append(by_rules_1) == Void("exists", ON_META, "absent", "None")
    assert log.append(first) == Accepted(0)
    assert log.append(replace(first, event_id="late")) == Void("exists", ON_META, "absent", "0")


def test_the_metadata_of_a_thread_created_again_is_not_absent() -> None:
    log = Log().given(commit(c.thread_created()), commit(c.patched(), stream=ON_META), commit(c.thread_deleted()))
    log.given(commit(c.thread_created()))
    assert reason(log, commit(c.patched(), stream=ON_META, demands={ON_META: "absent"})) == "exists"


def test_a_metadata_patch_does_not_move_the_version_that_run_decisions_demand() -> None:
    log = Log().given(commit(c.thread_created()), commit(c.patched(), stream=ON_META))
    assert log.append(commit(c.run_created(), demands={ON_THREAD: 0})) == Accepted(1)


@pytest.mark.parametrize("stream", [ON_THREAD, ON_META])
def test_after_a_deletion_everything_is_gone_but_creation(stream: Stream) -> None:
    log = thread_with_claimed_run().given(commit(c.thread_deleted()))
    assert reason(log, commit(c.patched(), stream=stream)) == "gone"


def test_a_thread_created_again_continues_its_versions() -> None:
    log = Log().given(commit(c.thread_created()), commit(c.thread_deleted()))
    assert log.append(commit(c.thread_created(), demands={ON_THREAD: "absent"})) == Accepted(2)


def test_a_deleted_thread_voids_its_worker() -> None:
    log = thread_with_claimed_run().given(commit(c.thread_deleted()))
    assert reason(log, commit(c.run_finished(), epoch=2)) == "gone"


def test_refusals_outlive_the_thread() -> None:
    log = Log().given(commit(c.thread_created()), commit(c.thread_deleted()))
    assert log.append(commit(c.patched(), stream=Stream("refusals-t1"))) == Accepted(0)


def test_the_epoch_is_the_version_of_the_claim() -> None:
    assert thread_with_claimed_run().head.runs[RunId("r1")].epoch == 2


def test_a_run_is_claimed_once() -> None:
    assert reason(thread_with_claimed_run(), commit(c.run_claimed(attempt=2))) == "not_pending"


def test_a_thread_has_one_claimed_run() -> None:
    log = thread_with_claimed_run().given(commit(c.run_created("r2")))
    assert reason(log, commit(c.run_claimed("r2"))) == "thread_claimed"


def test_a_claim_states_the_next_attempt() -> None:
    log = Log().given(commit(c.thread_created()), commit(c.run_created()))
    assert reason(log, commit(c.run_claimed(attempt=2))) == "wrong_attempt"


def test_a_run_asked_to_stop_is_not_claimed() -> None:
    log = Log().given(commit(c.thread_created()), commit(c.run_created()), commit(c.cancel_requested()))
    assert reason(log, commit(c.run_claimed())) == "cancel_requested"


def test_a_released_run_is_claimed_again_as_the_next_attempt() -> None:
    log = thread_with_claimed_run().given(commit(c.run_released(), demands={ON_THREAD: 2}))
    assert log.append(commit(c.run_claimed(attempt=2))) == Accepted(4)


def test_a_zombie_writes_nothing_after_its_release() -> None:
    log = thread_with_claimed_run().given(
        commit(c.run_released(), demands={ON_THREAD: 2}), commit(c.run_claimed(attempt=2))
    )
    assert reason(log, commit(c.patched(), stream=ON_RUN, epoch=2)) == "stale_epoch"
    assert reason(log, commit(c.run_finished(), epoch=2)) == "stale_epoch"
    assert log.append(commit(c.run_finished(), epoch=4)) == Accepted(5)


def test_a_runs_own_stream_takes_nothing_without_an_epoch() -> None:
    assert reason(thread_with_claimed_run(), commit(c.patched(), stream=ON_RUN)) == "unfenced"


def test_a_runs_own_stream_begins_absent_and_counts_on() -> None:
    log = thread_with_claimed_run()
    first = commit(c.patched(), stream=ON_RUN, epoch=2, demands={ON_RUN: "absent"})
    assert log.append(first) == Accepted(0)
    assert log.append(commit(c.patched(), stream=ON_RUN, epoch=2, demands={ON_RUN: 0})) == Accepted(1)
    assert reason(log, commit(c.patched(), stream=ON_RUN, epoch=2, demands={ON_RUN: 0})) == "version_conflict"


def test_an_end_demands_the_checkpoints_before_it() -> None:
    log = thread_with_claimed_run()
    assert reason(log, commit(c.run_finished(), epoch=2, demands={ON_RUN: 0})) == "version_conflict"


def test_a_run_ends_once() -> None:
    log = thread_with_claimed_run().given(commit(c.run_finished(), epoch=2))
    assert reason(log, commit(c.run_finished(), epoch=2)) == "stale_epoch"
    assert reason(log, commit(c.run_finished(), demands={ON_THREAD: 3})) == "no_such_run"


def test_an_end_without_epoch_needs_a_version() -> None:
    log = Log().given(commit(c.thread_created()), commit(c.run_created()))
    assert reason(log, commit(c.run_finished())) == "unfenced"
    assert log.append(commit(c.run_finished(), demands={ON_THREAD: 1})) == Accepted(2)


def test_nobody_else_moves_the_view_while_a_run_is_claimed() -> None:
    log = thread_with_claimed_run()
    assert reason(log, commit(c.state_updated(), demands={ON_THREAD: 2})) == "view_locked"
    assert reason(log, commit(c.run_finished(), demands={ON_THREAD: 2})) == "view_locked"


def test_a_queued_run_may_be_ended_while_another_is_claimed_if_it_moves_nothing() -> None:
    log = thread_with_claimed_run().given(commit(c.run_created("r2")))
    assert log.append(commit(c.run_finished("r2", moves=False), demands={ON_THREAD: 3})) == Accepted(4)


def test_releasing_ending_and_hiding_a_claimed_run_fits_into_one_commit() -> None:
    log = thread_with_claimed_run()
    whole = commit(c.run_released(), c.run_finished(moves=False), c.run_deleted(), demands={ON_THREAD: 2})
    assert log.append(whole) == Accepted(3)
    assert log.head.runs == {}


def test_a_rejected_fact_voids_its_whole_commit() -> None:
    log = thread_with_claimed_run()
    before = log.head
    assert reason(log, commit(c.run_created("r2"), c.run_claimed("r2"))) == "thread_claimed"
    assert log.head == before


def test_a_run_id_is_used_once_while_it_is_active() -> None:
    log = Log().given(commit(c.thread_created()), commit(c.run_created()))
    assert reason(log, commit(c.run_created())) == "run_exists"


def test_hiding_an_active_run_needs_a_version() -> None:
    log = Log().given(commit(c.thread_created()), commit(c.run_created()))
    assert reason(log, commit(c.run_deleted())) == "unfenced"
    assert log.append(commit(c.run_deleted(), demands={ON_THREAD: 1})) == Accepted(2)


def test_hiding_a_run_that_ended_needs_nothing() -> None:
    log = thread_with_claimed_run().given(commit(c.run_finished(), epoch=2))
    assert log.append(commit(c.run_deleted())) == Accepted(4)
