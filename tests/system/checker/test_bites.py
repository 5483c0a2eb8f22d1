"""The checker bites: every kind of wrong history, made by hand, is called wrong, and the right one is not."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.system.checker.fold import Judged, judge
from tests.system.checker.frames import unfenced_releases
from tests.system.checker.items import items
from tests.system.checker.judgement import judge_all, weigh
from tests.system.checker.notes import Change, Effect, Look, Notes, Shown
from tests.system.checker.records import Json, Record, Value
from tests.system.checker.rows import ready_runs

THREAD, RUN, OTHER = "t1", "r1", "r2"
ACTOR: Json = {"kind": "user", "sub": "ana"}
CHECKPOINTS = ("c1", "c2")
ASSISTANT: Json = {"graph_id": "steps"}


def fact(kind: str, **data: Value) -> Json:
    return {"type": kind, "schema": 1, "data": data}


def commit(offset: int, stream: str, facts: list[Value], epoch: int | None = None, **more: Value) -> Record:
    value: Json = {
        "event_id": f"e{offset}",
        "body_sha256": "b",
        "stream": stream,
        "demands": {},
        "epoch": epoch,
        "facts": facts,
        "actor": ACTOR,
        **more,
    }
    return Record(0, offset, THREAD, value)


def thread(offset: int, *facts: Value, epoch: int | None = None) -> Record:
    return commit(offset, f"thread-{THREAD}", list(facts), epoch)


def saved(offset: int, number: int, epoch: int, step: str, run_id: str = RUN) -> Record:
    checkpoint = fact("CheckpointSaved", checkpoint_ns="", checkpoint_id=CHECKPOINTS[number], run_id=run_id)
    writes = fact("WritesSaved", task_path=f"~__pregel_pull, {step}", run_id=run_id)
    return commit(offset, f"run-{run_id}", [writes, checkpoint], epoch)


def created(offset: int, run_id: str = RUN) -> Record:
    return thread(offset, fact("RunCreated", run_id=run_id, assistant=ASSISTANT, due_at=None))


def claimed(offset: int, attempt: int = 1, run_id: str = RUN) -> Record:
    return thread(offset, fact("RunClaimed", run_id=run_id, attempt=attempt, worker="w"))


def finished(offset: int, epoch: int | None, run_id: str = RUN, status: str = "success") -> Record:
    view: Json = {"set": {"done": ["one", "two"]}}
    return thread(offset, fact("RunFinished", run_id=run_id, status=status, view=view, next=[]), epoch=epoch)


def history() -> list[Record]:
    """Return a run that was claimed, lost after its first step, claimed again and finished; and a zombie's write."""
    return [
        thread(0, fact("ThreadCreated", thread_id=THREAD)),
        created(1),
        claimed(2),
        saved(3, 0, 2, "one"),
        released(4),
        claimed(5, attempt=2),
        saved(6, 1, 2, "two"),  # the zombie: void
        saved(7, 1, 4, "two"),
        finished(8, 4),
        finished(9, 2),  # the zombie again: void
    ]


def released(offset: int) -> Record:
    body = fact("RunReleased", run_id=RUN, epoch=2, reason="lost")
    return commit(offset, f"thread-{THREAD}", [body], None, demands={f"thread-{THREAD}": 2})


def notes() -> Notes:
    """Return what honest clients noted beside that history."""
    path = f"/threads/{THREAD}/runs"
    return Notes(
        changes=[
            Change("ana", "POST", "/threads", "{}", 200, "", THREAD, "", "1:0:0"),
            Change("ana", "POST", path, "{}", 504, "k", THREAD),
            Change("ana", "POST", path, "{}", 200, "k", THREAD, RUN, "1:0:1"),
            Change("bo", "POST", path, "{}", 200, "k", THREAD, RUN, "1:0:1"),
        ],
        looks=[
            Look("ana", THREAD, "1:0:1"),
            Look("ana", THREAD, "1:0:3", "c1"),
            Look("ana", THREAD, "", "c2"),
            Look("ana", THREAD, "1:0:1", "", RUN, "running"),
            Look("ana", THREAD, "", "", RUN, "success"),
        ],
        shown=[Shown(THREAD, "idle", {"done": ["one", "two"]}, [], {RUN: "success"})],
        effects=[Effect(RUN, "one", 1), Effect(RUN, "two", 1), Effect(RUN, "two", 2)],
        streams={RUN: [("values", 1), ("values", 2), ("end", 3)]},
        queued={},
        ledger={
            (one.record.partition, one.record.offset): (
                one.verdict,
                one.version if one.verdict == "accepted" else None,
            )
            for one in judge(history())
        },
    )


def flush(offset: int, epoch: int, n: int, frame: str, data: Value, **headers: str) -> Record:
    frames: Json = {"frames": [{"event": frame, "data": data, "ns": ""}]}
    return Record(0, offset, THREAD, frames, {"run_id": RUN, "epoch": str(epoch), "n": str(n), **headers})


def fence(offset: int, epoch: int, event_id: str) -> Record:
    return Record(
        0, offset, THREAD, {"frames": []}, {"run_id": RUN, "epoch": str(epoch), "n": "0", "release": event_id}
    )


def outputs() -> list[Record]:
    """Return its frames: the zombie's come late, also before anybody else has spoken, and its end is void."""
    return [
        flush(0, 2, 0, "values", 1),
        fence(1, 2, "e4"),
        flush(2, 2, 1, "values", "early"),
        flush(3, 4, 0, "values", 2),
        flush(4, 2, 2, "values", "late"),
        fence(5, 4, "a release that never came to be"),
        flush(6, 4, 1, "end", 3, end="e8"),
        flush(7, 2, 3, "end", "late", end="e9"),
    ]


def test_a_history_with_a_crash_a_zombie_and_a_retry_is_right() -> None:
    found = judge_all(history(), notes(), outputs())
    assert found.violations == []
    assert found.voids == {"stale_epoch": 2}
    assert found.runs == {RUN: "success"}


def test_a_claim_that_is_taken_away_without_a_fence_is_missed() -> None:
    assert unfenced_releases(judge(history()), outputs()) == []
    told = unfenced_releases(judge(history()), without(1)(outputs()))
    assert told == ["run r1 was released from epoch 2 without a fence on the outputs"]


def at(second: int) -> datetime:
    return datetime(2026, 1, 2, 3, 4, second, tzinfo=UTC)


def put(offset: int, second: int, epoch: int) -> Record:
    named: dict[str, Value] = {"namespace": ["a"], "key": str(offset), "run_id": RUN, "epoch": epoch}
    return replace(commit(offset, "store-s", [fact("StoreItemPut", **named)]), key="s", appended_at=at(second))


def test_an_item_is_late_once_the_claim_of_its_writer_is_over_and_names_a_claim_that_there_was() -> None:
    timed = [replace(one, appended_at=at(one.offset)) for one in history()]
    told = [*timed, put(10, 3, 2), put(11, 6, 2), put(12, 6, 4), put(13, 9, 4)]
    assert [(item.key, item.late) for item in items(judge(told))] == [
        ("10", False),
        ("11", True),
        ("12", False),
        ("13", True),
    ]
    assert weigh(judge(told), Notes()).violations == []
    made_up = weigh(judge([*told, put(14, 6, 3)]), Notes())
    assert made_up.violations == ["item 14 of ('a',) names run r1 under epoch 3, which nobody claimed"]


def accepted(record: Record, version: int) -> Judged:
    """Return a commit as a broken guard would let it pass."""
    return Judged(record, "accepted", version)


def without(offset: int) -> Callable[[list[Record]], list[Record]]:
    return lambda records: [record for record in records if record.offset != offset]


LOST = {
    "the thread that was promised": (0, "ThreadCreated of t1 is on the log 0 times"),
    "the run that was promised": (1, "RunCreated of r1 is on the log 0 times"),
    "the end of a run": (8, "run r1 is stuck"),
    "the claim of a worker that ran steps": (5, "attempt 2, step two: ran without an accepted claim"),
    "a checkpoint that was shown": (3, "showed checkpoint c1, accepted nowhere"),
}


@pytest.mark.parametrize("what", LOST)
def test_a_record_that_is_lost_is_missed(what: str) -> None:
    offset, told = LOST[what]
    found = judge_all(without(offset)(history()), notes(), outputs())
    assert any(told in violation for violation in found.violations), found.violations


def doubled_end() -> list[Judged]:
    judged = judge(history())
    return [*judged, accepted(finished(10, None), judged[8].version + 1)]


def zombie_write() -> list[Judged]:
    judged = judge(history())
    judged[6] = accepted(judged[6].record, 1)
    judged[7] = replace(judged[7], version=2)
    return judged


def zombie_end() -> list[Judged]:
    judged = judge(history())
    return [*judged[:7], accepted(finished(7, 2), 5)]


def two_claims() -> list[Judged]:
    judged = judge(history())[:3]
    return [*judged, accepted(created(3, OTHER), 3), accepted(claimed(4, run_id=OTHER), 4)]


def created_again() -> list[Judged]:
    judged = judge(history())
    again = created(10)
    return [*judged, accepted(replace(again, value={**again.value, "event_id": "other"}), 6)]


def counted_twice() -> list[Judged]:
    judged = judge(history())
    return [*judged[:2], accepted(replace(judged[1].record, offset=2), 2)]


def gap() -> list[Judged]:
    judged = judge(history())
    judged[5] = replace(judged[5], version=7)
    return judged


def nobody() -> list[Judged]:
    judged = judge(history())
    record = judged[1].record
    judged[1] = replace(judged[1], record=replace(record, value={**record.value, "actor": None}))
    return judged


def unfenced() -> list[Judged]:
    return [*judge(history()), accepted(commit(10, f"run-{RUN}", [fact("WritesSaved", task_path="x, one")]), 2)]


def foreign_release() -> list[Judged]:
    judged = judge(history())[:4]
    value = fact("RunReleased", run_id=RUN, epoch=1, reason="lost")
    return [*judged, accepted(commit(4, f"thread-{THREAD}", [value]), 3)]


def elsewhere() -> list[Judged]:
    judged = judge(history())
    judged[8] = replace(judged[8], record=replace(judged[8].record, partition=1))
    return judged


def asked_to_stop(*actions: str) -> list[Record]:
    """Return a run that is asked to stop and then ends in success."""
    asked = [thread(3 + n, fact("RunCancelRequested", run_id=RUN, action=action)) for n, action in enumerate(actions)]
    return [*history()[:3], *asked, finished(9, 2)]


def rollback_ignored() -> list[Judged]:
    return judge(asked_to_stop("rollback", "interrupt"))


BROKEN_GUARDS: dict[str, tuple[Callable[[], list[Judged]], str]] = {
    "a doubled end": (doubled_end, "run r1 ends a second time"),
    "a zombie's write is accepted": (zombie_write, "run r1 writes under epoch 2, its claim has 4"),
    "a zombie's end is accepted": (zombie_end, "run r1 writes under epoch 2, its claim has 4"),
    "two claims on one thread": (two_claims, "r2 is claimed beside r1"),
    "a run that is created again": (created_again, "run r1 is created again"),
    "one intent that counts twice": (counted_twice, "event e1 counts 2 times"),
    "a gap in the versions": (gap, "thread-t1 version 7, expected 4"),
    "a change that nobody made": (nobody, "no actor"),
    "a checkpoint without an epoch": (unfenced, "run r1 writes under epoch None"),
    "a key in two partitions": (elsewhere, "1:8: t1 belongs to partition 0"),
    "a rollback that came before the end": (rollback_ignored, "run r1 was to be rolled back and ends as success"),
    "a release of somebody else's claim": (foreign_release, "r1 is released from epoch 1, not its own"),
}


@pytest.mark.parametrize("what", BROKEN_GUARDS)
def test_what_a_broken_guard_lets_pass_is_a_violation(what: str) -> None:
    make, told = BROKEN_GUARDS[what]
    found = weigh(make(), Notes())
    assert any(told in violation for violation in found.violations), found.violations


def test_a_run_ends_in_time_before_an_interrupt_or_is_deleted_with_all_that_it_wrote() -> None:
    assert weigh(judge(asked_to_stop("interrupt", "rollback")), Notes()).violations == []
    *asked, end = asked_to_stop("rollback")
    gone = fact("RunDeleted", run_id=RUN, view={}, next=[], interrupts={})
    deleted = thread(end.offset, *[end.value["facts"][0], gone], epoch=2)  # type: ignore[index]  # a list, as made above
    assert weigh(judge([*asked, deleted]), Notes()).violations == []


def changed(**more: object) -> Callable[[Notes], None]:
    def alter(noted: Notes) -> None:
        for name, value in more.items():
            setattr(noted, name, value)

    return alter


def ask(status: int, body: str = "{}", run_id: str = "", key: str = "k", token: str = "") -> Change:
    return Change("ana", "POST", f"/threads/{THREAD}/runs", body, status, key, THREAD, run_id, token)


FALSE_NOTES: dict[str, tuple[Callable[[Notes], None], str]] = {
    "an acknowledged run that is not there": (
        lambda noted: noted.changes.append(ask(200, run_id="r9", key="")),
        "RunCreated of r9 is on the log 0 times",
    ),
    "an acknowledged commit that is not there": (
        lambda noted: noted.changes.append(ask(200, key="", token="1:0:99")),
        "its commit 1:0:99 is not on the log",
    ),
    "an acknowledged commit that is void": (
        lambda noted: noted.changes.append(ask(200, key="", token="1:0:6")),
        "its commit 1:0:6 is stale_epoch",
    ),
    "an acknowledged commit of another thread": (
        lambda noted: noted.changes.append(Change("bo", "PATCH", "/threads/t2", "{}", 200, "", "t2", "", "1:0:1")),
        "its commit 1:0:1 belongs to t1",
    ),
    "a promise that names nothing": (
        lambda noted: noted.changes.append(Change("ana", "PATCH", "/threads/t1", "{}", 200)),
        "names nothing",
    ),
    "two runs for one key": (
        lambda noted: noted.changes.append(ask(200, run_id=OTHER)),
        "promises name different outcomes",
    ),
    "two bodies for one key": (
        lambda noted: noted.changes.append(ask(200, '{"other":1}', RUN)),
        "two bodies were both accepted",
    ),
    "a key that is refused after it was promised": (
        lambda noted: noted.changes.append(ask(409)),
        "promised first and refused later",
    ),
    "a conflict that the log does not justify": (
        lambda noted: noted.changes.extend([ask(409, key="") for _ in range(3)]),
        "3 answers 409, the log justifies 2",
    ),
    "a state that goes back": (
        lambda noted: noted.looks.append(Look("ana", THREAD, "", "c1")),
        "went back from offset 7 to 3",
    ),
    "a state older than its token": (
        changed(looks=[Look("bo", THREAD, "1:0:7", "c1")]),
        "token 1:0:7 demands offset 7, shown was 3",
    ),
    "a state that vanished again": (
        changed(looks=[Look("bo", THREAD, "", "c1"), Look("bo", THREAD, "", "")]),
        "went back from offset 3 to -1",
    ),
    "a checkpoint nobody accepted": (
        changed(looks=[Look("bo", THREAD, "", "c9")]),
        "showed checkpoint c9, accepted nowhere",
    ),
    "a run that ends and goes on": (
        lambda noted: noted.looks.append(Look("ana", THREAD, "", "", RUN, "running")),
        "was shown success, then running",
    ),
    "an end the log does not know": (
        changed(looks=[Look("bo", THREAD, "", "", RUN, "error")]),
        "was shown error, the log knows no such end",
    ),
    "a run that is hidden from its token": (
        changed(looks=[Look("bo", THREAD, "1:0:1", "", RUN, "")]),
        "token 1:0:1 demands run r1",
    ),
    "a step whose writes were accepted runs again": (
        lambda noted: noted.effects.append(Effect(RUN, "one", 2)),
        "step one: an earlier attempt's writes of it had been accepted",
    ),
    "a step runs twice in one attempt": (
        lambda noted: noted.effects.append(Effect(RUN, "two", 2)),
        "ran twice in one attempt",
    ),
    "values that are not the fold": (
        changed(shown=[Shown(THREAD, "idle", {"done": ["one"]}, [], {RUN: "success"})]),
        "values is shown as",
    ),
    "a thread that stays busy": (
        changed(shown=[Shown(THREAD, "busy", {"done": ["one", "two"]}, [], {RUN: "success"})]),
        "status is shown as 'busy', the log demands 'idle'",
    ),
    "a next node that is not the fold": (
        changed(shown=[Shown(THREAD, "idle", {"done": ["one", "two"]}, ["two"], {RUN: "success"})]),
        "next is shown as ['two'], the log demands []",
    ),
    "a thread that the log does not have": (
        changed(shown=[Shown("t9", "idle", {}, [], {})]),
        "thread t9 is shown, the log has none",
    ),
    "a run with another status": (
        changed(shown=[Shown(THREAD, "idle", {"done": ["one", "two"]}, [], {RUN: "running"})]),
        "run r1 is shown as 'running', the log demands 'success'",
    ),
    "a run nobody created": (
        changed(shown=[Shown(THREAD, "idle", {"done": ["one", "two"]}, [], {RUN: "success", OTHER: "error"})]),
        "run r2 is shown as 'error', the log demands ''",
    ),
    "rows with another verdict": (
        lambda noted: (noted.ledger or {}).update({(0, 6): ("accepted", 1)}),
        "0:6: the rows say ('accepted', 1), the log ('stale_epoch', None)",
    ),
    "rows that the log does not have": (
        lambda noted: (noted.ledger or {}).update({(0, 99): ("accepted", 9)}),
        "0:99: the rows say ('accepted', 9), the log None",
    ),
    "rows that lack a commit": (
        lambda noted: (noted.ledger or {}).__delitem__((0, 8)),
        "0:8: the rows say None",
    ),
    "a finished run in the queue": (changed(queued={"steps": [RUN]}), "run r1 is in the queue and not ready"),
    "a late flush is shown": (
        changed(streams={RUN: [("values", 1), ("values", 2), ("values", "late"), ("end", 3)]}),
        "differs from the log: event 2 is",
    ),
    "a flush behind its release is shown": (
        changed(streams={RUN: [("values", 1), ("values", "early"), ("values", 2), ("end", 3)]}),
        "differs from the log: event 1 is",
    ),
    "a stream with a gap": (changed(streams={RUN: [("values", 1), ("end", 3)]}), "differs from the log: event 1 is"),
    "a stream that ends early": (
        changed(streams={RUN: [("values", 1), ("values", 2)]}),
        "differs from the log: 2 events, the log demands 3",
    ),
}


@pytest.mark.parametrize("what", FALSE_NOTES)
def test_notes_that_do_not_fit_the_log_are_a_violation(what: str) -> None:
    alter, told = FALSE_NOTES[what]
    noted = notes()
    alter(noted)
    found = judge_all(history(), noted, outputs())
    assert any(told in violation for violation in found.violations), found.violations


@pytest.mark.parametrize(("told", "counting", "right"), [(10, True, True), (10, False, False), (9, True, False)])
def test_a_burst_of_conflicts_may_be_told_as_a_count_later_but_not_after_its_gateways(
    told: int, counting: bool, right: bool
) -> None:
    one = fact("CommandRefused", command="CreateRun", reason="thread_busy", count=1)
    burst = [commit(10 + number, f"refusals-{THREAD}", [one]) for number in range(told)]
    noted = Notes(changes=[ask(409, key="") for _ in range(told + 5)], counting=counting)
    assert (weigh(judge([*history(), *burst]), noted).violations == []) is right


def test_a_ready_run_that_is_missing_in_the_queue_is_missed() -> None:
    waiting = history()[:2]
    assert weigh(judge(waiting), Notes(queued={"steps": [RUN]})).violations == []
    assert weigh(judge(waiting), Notes(queued={})).violations == ["run r1 is ready and not in the queue"]
    assert weigh(judge(waiting), Notes(queued={"chat": [RUN]})).violations == [
        "run r1 of graph steps lies in the list of chat"
    ]


def test_a_thread_has_one_run_in_the_queue_and_a_claimed_one_none() -> None:
    two = [*history()[:2], created(2, OTHER)]
    assert weigh(judge(two), Notes(queued={"steps": [RUN]})).violations == []
    assert weigh(judge(two), Notes(queued={"steps": [RUN, OTHER]})).violations == [
        "run r2 is in the queue and not ready"
    ]
    assert weigh(judge([*two, claimed(3)]), Notes(queued={})).violations == []


def deleted(offset: int, kind: str = "ThreadDeleted") -> Record:
    named: Json = {"thread_id": THREAD} if kind == "ThreadDeleted" else {"run_id": OTHER, "view": None, "next": []}
    return commit(offset, f"thread-{THREAD}", [fact(kind, **named)], demands={f"thread-{THREAD}": offset - 1})


def test_a_run_that_goes_with_its_busy_thread_or_alone_is_not_stuck() -> None:
    for busy in (history()[:2], history()[:3]):
        found = judge_all([*busy, deleted(len(busy))], Notes())
        assert (found.violations, found.runs) == ([], {RUN: "deleted"})
    waiting = [*history()[:2], created(2, OTHER)]
    found = judge_all([*waiting, deleted(3, "RunDeleted")], Notes())
    assert (found.violations, found.runs) == (["run r1 is stuck: it has no end"], {RUN: "", OTHER: "deleted"})


def test_a_run_that_ends_after_its_thread_went_is_a_violation() -> None:
    judged = [*judge([*history()[:3], deleted(3)]), accepted(finished(4, 2), 4)]
    assert "0:4: run r1 ends a second time" in weigh(judged, Notes()).violations


def test_a_run_that_was_rolled_back_is_shown_no_more() -> None:
    log = [*history()[:3], finished(3, 2, status="rollback")]
    shown = Shown(THREAD, "idle", {"done": ["one", "two"]}, [], {})
    assert judge_all(log, Notes(shown=[shown])).violations == []
    wrong = judge_all(log, Notes(shown=[replace(shown, runs={RUN: "rollback"})])).violations
    assert wrong == ["thread t1: run r1 is shown as 'rollback', the log demands ''"]


def test_a_retry_that_becomes_a_second_intent_is_a_violation() -> None:
    log = [*history(), created(10, OTHER), claimed(11, run_id=OTHER)]
    log.append(finished(12, judge(log)[-1].version, OTHER))
    again = commit(13, "thread-t2", [fact("ThreadCreated", thread_id="t2")])
    log.append(replace(again, key="t2"))
    found = judge_all(log, Notes(changes=notes().changes))
    assert found.violations == [
        "2 threads were created for 1 requests",
        "thread t1: 2 runs were created for 1 requests",
    ]
    another = [ask(0, key="another"), Change("bo", "POST", "/threads", "{}", 0)]
    assert judge_all(log, Notes(changes=[*notes().changes, *another])).violations == []
    assert judge_all(log, Notes(changes=[*notes().changes, another[0]], all_threads=False)).violations == []


def test_a_thread_that_is_born_twice_is_a_violation_unless_it_was_deleted_between() -> None:
    born = thread(0, fact("ThreadCreated", thread_id=THREAD))
    again = replace(born, offset=2, value={**born.value, "event_id": "e2"})
    promised = [Change("ana", "POST", "/threads", "{}", 200, key, THREAD) for key in ("a", "b")]
    twice = weigh([accepted(born, 0), accepted(again, 1)], Notes(changes=promised)).violations
    assert set(twice) == {"POST /threads was answered 200: ThreadCreated of t1 is on the log 2 times"}
    gone = thread(1, fact("ThreadDeleted", thread_id=THREAD))
    log = [accepted(born, 0), accepted(gone, 1), accepted(again, 2)]
    assert weigh(log, Notes(changes=promised)).violations == []


def test_a_run_is_claimed_beside_nobody_once_its_thread_was_deleted_and_made_again() -> None:
    log = [*history()[:3], thread(3, fact("ThreadDeleted", thread_id=THREAD))]
    log += [thread(4, fact("ThreadCreated", thread_id=THREAD)), created(5, OTHER), claimed(6, run_id=OTHER)]
    assert weigh(judge(log), Notes()).violations == []


def test_a_refusal_on_the_log_justifies_as_many_conflicts_as_it_counts() -> None:
    refusal = commit(10, f"refusals-{THREAD}", [fact("CommandRefused", reason="thread_busy", count=3)])
    conflicts = [ask(409, key="") for _ in range(6)]
    log = judge([*history(), refusal])
    assert weigh(log, Notes(changes=conflicts[:5])).violations == []
    assert weigh(log, Notes(changes=conflicts)).violations == ["thread t1: 6 answers 409, the log justifies 5"]


def moved(offset: int, run_id: str = "", **view: Value) -> Record:
    """Move the values of the thread, by hand or by deleting a run."""
    told = {"run_id": run_id} if run_id else {}
    kind = "RunDeleted" if run_id else "StateUpdated"
    return thread(offset, fact(kind, **told, view=dict(view), next=["two"] if not run_id else []))


def test_values_are_removed_appended_and_left_by_a_deleted_run_as_the_log_says() -> None:
    log = [*history(), moved(10, append={"done": ["three"]}, set={"more": 1})]
    after = Shown(THREAD, "", {"done": ["one", "two", "three"], "more": 1}, ["two"], {RUN: "success"})
    assert weigh(judge(log), Notes(shown=[after])).violations == []
    log.append(moved(11, RUN, remove=["more"], set={"done": []}))
    less = Shown(THREAD, "", {"done": []}, [], {})
    assert weigh(judge(log), Notes(shown=[less])).violations == []
    assert len(weigh(judge(log), Notes(shown=[after])).violations) == 3, "values, next and the run"
    log.append(thread(12, fact("ThreadDeleted", thread_id=THREAD)))
    assert weigh(judge(log), Notes(shown=[less])).violations == ["thread t1 is shown, the log has none"]


def test_a_run_that_is_not_due_or_is_to_stop_is_not_ready_and_one_that_is_ended_holds_nobody_up() -> None:
    later = thread(1, fact("RunCreated", run_id=RUN, assistant=ASSISTANT, due_at="2999-01-01T00:00:00+00:00"))
    log = [history()[0], later, created(2, OTHER)]
    assert ready_runs(judge(log)) == {OTHER: "steps"}
    assert ready_runs(judge(log), datetime(3000, 1, 1, tzinfo=UTC)) == {RUN: "steps"}
    again = commit(4, f"thread-{THREAD}", [fact("RunReleased", run_id=OTHER, epoch=3)], demands={f"thread-{THREAD}": 3})
    begun = judge([*log, claimed(3, run_id=OTHER), again])
    assert ready_runs(begun, datetime(3000, 1, 1, tzinfo=UTC)) == {OTHER: "steps"}, "who began goes before who is due"
    stopping = thread(3, fact("RunCancelRequested", run_id=OTHER, action="interrupt"))
    assert ready_runs(judge([*log, stopping])) == {}
    assert ready_runs(judge([*history()[:4], released(4), created(5, OTHER)])) == {RUN: "steps"}
    stopped = thread(5, fact("RunCancelRequested", run_id=RUN, action="interrupt"))
    assert ready_runs(judge([*history()[:4], released(4), stopped, created(6, OTHER)])) == {}, "its end comes first"
    assert ready_runs(judge([*log, thread(3, fact("ThreadDeleted", thread_id=THREAD))])) == {}
