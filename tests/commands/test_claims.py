"""Policy for claims: kept, released or ended in place of the worker, one sentence each."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agentlog_commands.claims import (
    DEATHS,
    CancelRequest,
    Claim,
    ClaimAction,
    ClaimLimits,
    ClaimPolicy,
    End,
    Keep,
    Release,
    after_attempt,
    cancelled as cancelled_end,
    given_up,
    timed_out,
)
from agentlog_facts.ids import RunId, ThreadId

AT = datetime(2026, 1, 2, tzinfo=UTC)
LIMITS = ClaimLimits(lost_after=timedelta(seconds=30), run_time=timedelta(hours=1), retries=3)
CLAIM = Claim(
    run_id=RunId("run"),
    thread_id=ThreadId("thread"),
    graph_id="agent",
    worker="w1",
    epoch=4,
    attempt=1,
    counted=0,
    claimed_at=AT,
    committed_at=None,
    progressed=False,
    cancel=None,
    temporary=False,
)

SUSPECT = replace(CLAIM, deaths=1)


def judged(
    claim: Claim = CLAIM, *, after_s: float = 60, looks: int = 2, leased_once: bool = False, dead: bool = False
) -> ClaimAction:
    return ClaimPolicy(claim, looks, leased_once, dead, AT + timedelta(seconds=after_s)).decide(LIMITS)


def cancelled(action: str, deadline_s: float) -> Claim:
    ask = CancelRequest(
        "rollback" if action == "rollback" else "interrupt", AT + timedelta(seconds=deadline_s), {"error": "UserStop"}
    )
    return replace(CLAIM, cancel=ask)


def test_a_claim_with_a_lease_is_kept_however_long_it_says_nothing() -> None:
    assert judged(looks=0, after_s=3000) == Keep()


def test_one_look_without_a_lease_is_not_enough() -> None:
    assert judged(looks=1) == Keep()


def test_two_looks_without_a_lease_release_a_silent_claim() -> None:
    assert judged(looks=2) == Release("lost", counts=False)


def test_a_claim_that_committed_lately_is_kept_without_a_lease() -> None:
    assert judged(replace(CLAIM, committed_at=AT + timedelta(seconds=40))) == Keep()


def test_a_fresh_claim_is_kept_without_a_lease() -> None:
    assert judged(after_s=29) == Keep()


def test_a_first_death_makes_a_suspect_and_costs_no_retry() -> None:
    assert judged(dead=True, looks=0, after_s=1) == Release("lost", counts=False)
    assert judged(leased_once=True) == Release("lost", counts=False)
    assert judged(replace(CLAIM, counted=3), dead=True, looks=0) == Release("lost", counts=False)


def test_a_lost_attempt_of_a_suspect_counts_when_it_showed_a_lease() -> None:
    assert judged(SUSPECT, leased_once=True) == Release("lost", counts=True)


def test_a_lost_attempt_of_a_suspect_counts_when_it_committed() -> None:
    assert judged(replace(SUSPECT, committed_at=AT + timedelta(seconds=1))) == Release("lost", counts=True)


def test_a_lost_attempt_of_a_suspect_without_lease_or_commit_does_not_count() -> None:
    assert judged(SUSPECT) == Release("lost", counts=False)


def test_a_lost_attempt_with_a_new_checkpoint_does_not_count() -> None:
    known = replace(SUSPECT, committed_at=AT + timedelta(seconds=1), progressed=True, counted=3, deaths=DEATHS)
    assert judged(known, leased_once=True) == Release("lost", counts=False)


def test_a_suspect_of_a_dead_worker_is_released_at_once_and_counts() -> None:
    assert judged(SUSPECT, dead=True, looks=0, after_s=1) == Release("lost", counts=True)


def test_a_suspect_whose_worker_died_twice_without_progress_ends_in_error_and_is_named() -> None:
    ended = judged(replace(SUSPECT, deaths=DEATHS), dead=True, looks=0, after_s=1)
    assert isinstance(ended, End)
    assert (ended.status, ended.deaths, ended.error["error"]) == ("error", 2, "WorkerDied")
    assert "died twice while it executed" in str(ended.error["message"])


def test_the_retry_limit_holds_for_suspects_too() -> None:
    ended = judged(replace(SUSPECT, counted=3), dead=True, looks=0)
    assert isinstance(ended, End)
    assert (ended.reason, ended.deaths) == ("retries", 0)
    assert "given up after 4 attempts" in str(ended.error["message"])


def test_after_the_last_retry_the_run_ends_in_error() -> None:
    ended = after_attempt("attempt_lost", 3, True, 3)
    assert isinstance(ended, End)
    assert (ended.reason, ended.status) == ("retries", "error")
    assert "4 attempts" in str(ended.error["message"])


def test_a_drain_never_counts() -> None:
    assert after_attempt("drain", 99, False, 3) == Release("drain", counts=False)


def test_a_cancelled_run_is_left_to_its_worker_until_the_deadline() -> None:
    assert judged(cancelled("interrupt", 15), looks=0, after_s=14) == Keep()


def test_a_cancelled_run_is_ended_at_the_deadline_lease_or_not() -> None:
    assert judged(cancelled("interrupt", 15), looks=0, after_s=15) == End(
        "cancelled", "interrupted", {"error": "UserStop"}
    )


def test_a_rollback_is_ended_without_what_the_run_wrote() -> None:
    assert judged(cancelled("rollback", 15), looks=0) == End(
        "cancelled", "rollback", {"error": "UserStop"}, rollback=True
    )


def test_a_run_over_its_time_is_left_to_its_worker_for_the_length_of_the_grace() -> None:
    assert judged(looks=0, after_s=3614) == Keep()


def test_a_run_over_its_time_and_grace_is_ended_lease_or_not() -> None:
    assert judged(looks=0, after_s=3615) == End("timeout", "timeout", {"error": "TimeoutError", "message": ""})


def test_a_run_that_was_released_for_its_time_ends_in_timeout_whoever_ends_it() -> None:
    asked = timed_out().request(AT)
    assert asked == CancelRequest("interrupt", AT, {"error": "TimeoutError", "message": ""})
    assert asked is not None
    assert cancelled_end(asked) == timed_out()


def test_a_run_that_is_given_up_needs_no_request_beside_its_number_of_attempts() -> None:
    assert given_up(4).request(AT) is None
