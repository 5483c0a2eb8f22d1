"""Tests of the form of log lines."""

import json
import logging
import sys

from agentlog_infra.logs import JsonLines, TextLines


def record(event: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("agentlog_infra.x", logging.INFO, "x.py", 1, event, None, None)
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
