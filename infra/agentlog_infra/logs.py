"""Logging to stderr: the level of each logger, and the form of the lines."""

import logging
import sys

from agentlog_infra.log_lines import JsonLines, TerminalFilter, TerminalLines, TextLines

_WRITES_CONTENT = "aiokafka.conn"
"""This logger writes every request at DEBUG, including records and login passwords."""
_REQUESTS = "agentlog.requests"
"""This logger has a line for each request: for terminals and at DEBUG only."""
_LIBRARIES = ("aiokafka", "asyncio", "httpx", "httpcore", "uvicorn", "faust", "mode", "alembic")


def configure(level: str, *, as_json: bool) -> None:
    """Send lines of `level` and above to stderr; libraries log from WARNING on, unless the level is DEBUG.

    At a terminal people get sentences, unless they ask for JSON or DEBUG.
    """
    handler = logging.StreamHandler(sys.stderr)
    for_people = not as_json and level != "DEBUG" and sys.stderr.isatty()
    if for_people:
        handler.setFormatter(TerminalLines())
        handler.addFilter(TerminalFilter())
    else:
        handler.setFormatter(JsonLines() if as_json else TextLines())
    logging.getLogger(_REQUESTS).setLevel("INFO" if for_people or level == "DEBUG" else "WARNING")
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel("DEBUG" if level == "DEBUG" else "WARNING")
    logging.getLogger(_WRITES_CONTENT).setLevel("INFO" if level == "DEBUG" else "WARNING")
