"""Log lines on stderr: events with fields, as text for people or as JSON for machines."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_WRITES_CONTENT = "aiokafka.conn"
"""This logger writes every request at DEBUG, including records and login passwords."""
_LIBRARIES = ("aiokafka", "asyncio", "httpx", "httpcore", "uvicorn", "faust", "mode", "alembic")


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


def configure(level: str, *, as_json: bool) -> None:
    """Send lines of `level` and above to stderr; libraries log from WARNING on, unless the level is DEBUG."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel("DEBUG" if level == "DEBUG" else "WARNING")
    logging.getLogger(_WRITES_CONTENT).setLevel("INFO" if level == "DEBUG" else "WARNING")
