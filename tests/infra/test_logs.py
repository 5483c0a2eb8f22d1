"""Tests of the form of log lines."""

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from agentlog_infra import logs
from agentlog_infra.log_lines import JsonLines, TerminalFilter, TerminalLines, TextLines


def record(event: str, level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("agentlog_infra.x", level, "x.py", 1, event, None, None)
    made.__dict__.update(fields)
    made.created = 0.0
    return made


def test_a_json_line_carries_the_event_and_its_fields() -> None:
    line = json.loads(JsonLines().format(record("run.claimed", stream="thread-1", position=3)))
    assert line == {
        "timestamp": "1970-01-01T00:00:00.000+00:00",
        "level": "info",
        "logger": "agentlog_infra.x",
        "event": "run.claimed",
        "stream": "thread-1",
        "position": 3,
    }


def test_a_text_line_shows_time_level_event_and_fields() -> None:
    assert TextLines().format(record("run.claimed", run="r1")) == "00:00:00.000 info    run.claimed run=r1"


def test_an_exception_stands_in_the_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        failed = record("x")
        failed.exc_info = sys.exc_info()
    assert "ValueError: broken" in json.loads(JsonLines().format(failed))["exception"]
    assert TextLines().format(failed).endswith("ValueError: broken")


def test_a_terminal_shows_a_run_and_a_request_as_sentences() -> None:
    run = record("run.finished", stream="thread-1", run_id="r1", epoch=4, attempt=1, status="success")
    request = record("request.answered", method="GET", path="/ok", status=200, took_ms=1.6)
    assert TerminalLines().format(run)[9:] == "run r1 of thread-1 ended: success"
    assert TerminalLines().format(request)[9:] == "GET /ok 200 in 2 ms"


def test_a_terminal_shows_no_partitions_positions_and_pids() -> None:
    shown = TerminalFilter().filter
    assert not shown(record("projector.took", partition=1, position=7))
    assert not shown(record("role.ready", role="gateway", pid=12))
    assert shown(record("run.finished"))
    stopped = record("projector.partition_stopped", logging.ERROR, partition=3, reason="log diverged")
    assert shown(stopped)
    line = TerminalLines().format(stopped)
    assert "partition=3" not in line
    assert "log diverged" in line


@pytest.mark.parametrize(
    ("event", "remedy"), [("config.unknown_key", "correct the key"), ("feed.reconnecting", "agentlog doctor")]
)
def test_a_warning_at_a_terminal_says_what_to_do(event: str, remedy: str) -> None:
    first, second = TerminalLines().format(record(event, logging.WARNING, key="grahps")).splitlines()
    assert first[9:] == f"warning: {event} key=grahps"
    assert remedy in second


class Terminal:
    """A standard error that is a terminal, or is none."""

    def __init__(self, *, is_terminal: bool) -> None:
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = kept
    root.setLevel(level)


@pytest.mark.parametrize(
    ("is_terminal", "as_json", "level", "formatter", "requests"),
    [
        (True, False, "INFO", TerminalLines, True),
        (True, True, "INFO", JsonLines, False),
        (True, False, "DEBUG", TextLines, True),
        (False, False, "INFO", TextLines, False),
        (False, True, "INFO", JsonLines, False),
    ],
)
def test_only_a_terminal_gets_sentences_and_requests(
    monkeypatch: pytest.MonkeyPatch,
    root_logger: logging.Logger,
    *,
    is_terminal: bool,
    as_json: bool,
    level: str,
    formatter: type[logging.Formatter],
    requests: bool,
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal(is_terminal=is_terminal))
    logs.configure(level, as_json=as_json)
    assert type(root_logger.handlers[0].formatter) is formatter
    assert logging.getLogger("agentlog.requests").isEnabledFor(logging.INFO) is requests
