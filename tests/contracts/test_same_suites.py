"""Equality of the suites of the embedded broker and of Apache Kafka: neither lacks a test of behaviour."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SUITES = {
    "tests/broker": 50,
    "tests/contracts/test_event_log.py": 10,
    "tests/contracts/test_frame_log.py": 10,
    "tests/contracts/test_log_away.py": 1,
    "tests/gateway/streaming/test_run_streams.py": 5,
    "tests/infra/kafka/test_outputs.py": 3,
    "tests/infra/kafka/test_producer.py": 7,
    "tests/infra/kafka/test_event_tail.py": 4,
    "tests/infra/kafka/test_topics.py": 15,
}
"""The suites, each with its least number of tests, so that two empty suites do not count as equal."""
KINDS = ("agentlog_broker", "apache_kafka")
OWN = {"crashes", "damage", "disk_failures", "login", "space", "start"}
"""Files of `tests/broker` about properties of our server alone: its files, its disk, its login, its settings."""
OWN_TESTS = {
    "test_repeats_are_known_after_a_restart_and_ids_are_not_given_twice",
    "test_a_client_that_sends_far_ahead_is_slowed_and_served",
    "test_a_setting_that_cannot_work_is_named",
    "test_transactions_are_refused_and_not_advertised",
    "test_a_server_that_was_killed_starts_soon_on_much_that_is_stored",
    "test_protected_topics_stay_whole_whatever_a_client_wants",
    "test_a_finite_default_makes_no_endless_topic",
}
"""Tests of behaviour that concern our server alone."""
NO_SERVER = {
    "test_a_setting_that_is_not_shown_is_neither_good_nor_wrong",
    "test_a_wrong_setting_is_never_accepted",
    "test_manifests_for_strimzi_hold_every_required_setting",
}
"""Tests of functions that ask no server."""


def collected() -> list[str]:
    """Return the ids of all tests of the suites, even if their programs are not installed."""
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *SUITES]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [line for line in done.stdout.splitlines() if "::" in line]


def is_asked_of_none(test: str) -> bool:
    """Return whether a test of a server's or adapter's behaviour names no kind, so that it is never compared."""
    file, _, name = test.partition("::")
    if re.search(rf"[\[-]({'|'.join(KINDS)}|memory)[\]-]", name) or file.startswith("tests/gateway"):
        return False
    return Path(file).stem.removeprefix("test_") not in OWN and name.partition("[")[0] not in OWN_TESTS | NO_SERVER


def test_the_embedded_broker_and_apache_kafka_are_asked_the_same() -> None:
    of: dict[str, set[str]] = {kind: set() for kind in KINDS}
    tests = collected()
    assert [test for test in tests if is_asked_of_none(test)] == []
    for test in tests:
        for kind in KINDS:
            if re.search(rf"[\[-]{kind}[\]-]", test):
                of[kind].add(re.sub(rf"(?<=[\[-]){kind}(?=[\]-])", "KIND", test))
    embedded, apache = of["agentlog_broker"], of["apache_kafka"]
    assert embedded - apache == set(), "only on the embedded broker"
    assert apache - embedded == set(), "only on Apache Kafka"
    for suite, least in SUITES.items():
        assert len([test for test in embedded if test.startswith(suite)]) >= least, suite
