"""Forms of log lines: JSON for machines, text with fields, and sentences for people at a terminal."""

import json
import logging
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime

_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

_LINES = {
    "request.answered": "{method} {path} {status} in {took_ms:.0f} ms",
    "run.finished": "run {run_id} of {stream} ended: {status}",
    "run.released": "run {run_id} goes back to the queue: {reason}",
    "run.ended_in_place": "run {run_id} ended: {status} ({reason})",
    "start.waiting": "{doing} ...",
    "dev.reloading": "a file in {folder} changed: workers and gateway start again",
    "signal.received": "stopping; runs get a few seconds to finish; Ctrl-C again stops at once",
}
"""The lines at INFO that a terminal shows; all others need LOG_LEVEL=DEBUG."""

_REMEDIES = {
    "config.unknown_key": "correct the key in langgraph.json, or remove it",
    "config.key_without_effect": "remove the key: this version does not use it",
    "embedded.orphan_stopped": "nothing to do: a server of an earlier start was still running",
    "graph.own_store_unused": "nothing to do: the graph gets agentlog's store",
    "graph.without_schema": "annotate the graph's state, so that clients can see its schema",
    "run.blocks_loop": "use async calls in the graph's nodes, or plain (not async) node functions",
    "run.does_not_stop": "its code blocks; make it return, or set a time-out for what it waits for",
    "role.broken_by_change": "correct the file; the role starts again at the next change",
    "gateway.out_of_descriptors": "raise the limit of open files: ulimit -n",
    "projector.partition_stopped": "`agentlog projection stuck` names the record and the way on",
    "projector.quarantined": "`agentlog projection list` names the aggregates; `agentlog rebuild` folds them again",
}
_OTHER_REMEDY = "if it repeats: `agentlog doctor`, or LOG_LEVEL=DEBUG for all lines"

_INNER = frozenset({"partition", "partitions", "offset", "position", "positions", "pid", "behind", "client"})
"""Fields that only help with LOG_LEVEL=DEBUG."""


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields that were given as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}


class JsonLines(logging.Formatter):
    """One JSON object per line: timestamp (UTC), level, logger, event, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        line: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= fields_of(record)
        if record.exc_info and record.exc_info[0]:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """Time, level, event, then the fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        fields = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        text = f"{at} {record.levelname.lower():7} {record.getMessage()}{fields}"
        if record.exc_info and record.exc_info[0]:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return text


class TerminalFilter(logging.Filter):
    """Lets through warnings, errors, and the lines at INFO that have a sentence."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a terminal shows the record."""
        return record.levelno >= logging.WARNING or record.getMessage() in _LINES


class TerminalLines(logging.Formatter):
    """Local time and a sentence; after a warning or an error, a line that says what to do."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        event, fields = record.getMessage(), fields_of(record)
        if record.levelno < logging.WARNING and event in _LINES:
            return f"{at} {_LINES[event].format_map(fields)}"
        text = f"{at} {record.levelname.lower()}: {event}{_shown(fields)}"
        text += f"\n         {_REMEDIES.get(event, _OTHER_REMEDY)}"
        if record.exc_info and record.exc_info[0]:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return text


def _shown(fields: Mapping[str, object]) -> str:
    """Return the fields that help people, as text."""
    return "".join(f" {name}={value}" for name, value in fields.items() if name not in _INNER)
