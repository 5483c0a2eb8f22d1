"""The embedded broker and Apache Kafka are asked the same: neither has a test of behaviour that the other lacks."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITES = {
    "tests/broker": 50,
    "tests/contracts/test_event_log.py": 10,
    "tests/contracts/test_frame_log.py": 10,
    "tests/gateway/test_streams.py": 5,
    "tests/infra/test_kafka_topics.py": 15,
}
"""Where they are, and how many there are at least, so that an empty suite is no agreement."""
KINDS = ("agentlog_broker", "apache_kafka")


def collected() -> list[str]:
    """Return the ids of all tests of the suites, whether their programs are there or not."""
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *SUITES]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_the_embedded_broker_and_apache_kafka_are_asked_the_same() -> None:
    of: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for test in collected():
        for kind in KINDS:
            if re.search(rf"[\[-]{kind}[\]-]", test):
                of[kind].add(re.sub(rf"(?<=[\[-]){kind}(?=[\]-])", "KIND", test))
    embedded, apache = of["agentlog_broker"], of["apache_kafka"]
    assert embedded - apache == set(), "only on the embedded broker"
    assert apache - embedded == set(), "only on Apache Kafka"
    for suite, least in SUITES.items():
        assert len([test for test in embedded if test.startswith(suite)]) >= least, suite
