"""The checker bites: it agrees with the golden verdicts, and a wrong log is called wrong."""

import json
from pathlib import Path

from tests.system.checker.fold import judge
from tests.system.checker.invariants import check
from tests.system.checker.records import Record, Value

GOLDEN = Path(__file__).parents[2] / "facts" / "golden" / "guard-rules-1.jsonl"


def histories() -> list[dict[str, list[dict[str, dict[str, Value]]]]]:
    return [json.loads(line) for line in GOLDEN.read_text().splitlines()]


def test_two_implementations_of_the_guard_agree_on_every_golden_history() -> None:
    for number, history in enumerate(histories()):
        steps = history["steps"]
        judged = judge([Record(0, at, "t1", step["commit"]) for at, step in enumerate(steps)])
        for at, (mine, step) in enumerate(zip(judged, steps, strict=True)):
            golden = step["verdict"]
            assert mine.verdict == golden.get("reason", golden["verdict"]), f"history {number}, commit {at}"
            if mine.verdict == "accepted":
                assert mine.version == golden["version"]


def test_the_golden_histories_break_no_invariant() -> None:
    for history in histories():
        commits = [Record(0, at, "t1", step["commit"]) for at, step in enumerate(history["steps"])]
        assert [v for v in check(judge(commits)).violations if "created again" not in v] == []


def test_a_promise_that_is_not_on_the_log_is_a_violation() -> None:
    assert check([], ["event-1"]).violations == ["event event-1 was promised and is not there"]
