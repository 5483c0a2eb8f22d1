"""Golden vectors of each version of the rules: recorded histories keep their verdicts for ever.

A line of `golden/guard-rules-<version>.jsonl` is one history: stored commits, their verdicts, and the head after them.
Never edit one; a new rules version gets a new file.
"""

from dataclasses import asdict
from pathlib import Path

import pytest
from tests.facts.commits import Log

from agentlog_facts.envelope import RULES
from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load_object
from agentlog_facts.notification import encode_verdict
from agentlog_facts.vocabulary import decode_commit, encode_commit, encode_facts, parse_commit

GOLDEN = Path(__file__).parent / "golden"
VECTORS = {rules: (GOLDEN / f"guard-rules-{rules}.jsonl").read_bytes().splitlines() for rules in range(1, RULES + 1)}
HISTORIES = [(rules, number) for rules, histories in VECTORS.items() for number in range(len(histories))]


def steps(history: JsonObject) -> list[JsonObject]:
    listed = history["steps"]
    assert isinstance(listed, list)
    return [as_object(step) for step in listed]


@pytest.mark.parametrize(("rules", "line"), HISTORIES)
def test_recorded_histories_keep_their_verdicts(rules: int, line: int) -> None:
    history = load_object(VECTORS[rules][line])
    log = Log()
    for step in steps(history):
        draft = decode_commit("t1", parse_commit(dump(step["commit"])))
        assert draft.rules == rules
        assert encode_verdict(log.append(draft)) == step["verdict"]
    assert head_json(log) == history["head"]


@pytest.mark.parametrize(("rules", "line"), HISTORIES)
def test_recorded_commits_are_stored_as_they_were(rules: int, line: int) -> None:
    for step in steps(load_object(VECTORS[rules][line])):
        draft = decode_commit("t1", parse_commit(dump(step["commit"])))
        assert encode_commit(draft, encode_facts(draft)) == dump(step["commit"])


def head_json(log: Log) -> Json:
    runs: JsonObject = {run_id: {**asdict(run)} for run_id, run in log.head.runs.items()}
    return {"exists": log.head.exists, "versions": dict(log.head.versions.items()), "runs": runs}
