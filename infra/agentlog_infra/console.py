"""Output of the command line: data to stdout, everything else to stderr, and the exit statuses."""

import json
import sys
from collections.abc import Iterable, Sequence
from enum import IntEnum

from agentlog_facts.errors import AgentlogError, Misconfigured, Unavailable


class Status(IntEnum):
    """Exit statuses; a contract with scripts."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DIFFERENCE = 3
    NOT_FOUND = 5
    UNREACHABLE = 6
    INTERRUPTED = 130


_FIXES = {
    "port_taken": "choose another port with --port, or stop that process",
    "data_dir_in_use": "stop that process, or choose another folder with --data-dir",
    "role_crashes": "its last log lines (service.failed, role.failed) give the reason; nothing acknowledged is lost",
    "unavailable": "`agentlog doctor` shows which dependency does not answer",
}


class CommandFailed(AgentlogError):
    """A command failed: the error, its reason, a fix, and the exit status."""

    def __init__(self, what: str, *, why: str = "", fix: str = "", status: Status = Status.FAILED) -> None:
        super().__init__(what)
        self.why, self.fix, self.exit_status = why, fix, status


def say(text: str = "") -> None:
    """Print a line for people on stderr."""
    print(text, file=sys.stderr, flush=True)


def put(text: str) -> None:
    """Print data on stdout."""
    print(text, flush=True)


def put_json(found: object) -> None:
    """Print one JSON document on stdout."""
    put(json.dumps(found, default=str, ensure_ascii=False))


def say_error(error: AgentlogError) -> Status:
    """Print error, reason and fix on stderr, and return the exit status."""
    what, _, why = str(error).partition("\n")
    fix = _FIXES.get(error.code, "")
    status = Status.FAILED
    if isinstance(error, CommandFailed):
        why, fix, status = error.why or why, error.fix or fix, error.exit_status
    elif isinstance(error, Unavailable):
        status = Status.UNREACHABLE
    elif isinstance(error, Misconfigured):
        status = Status.USAGE
    say(f"error: {what}")
    for line in why.splitlines():
        say(f"  {line}")
    if fix:
        say(f"  fix: {fix}")
    return status


def put_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on stdout; colour and lines only on a terminal, ASCII where the locale is not UTF-8."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    if not console.is_terminal:
        put_plain(columns, rows)
        return
    table = Table(*columns, box=box.SIMPLE_HEAD if console.encoding.startswith("utf") else box.ASCII2)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def put_plain(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns without decoration, for pipes."""
    table = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[at]) for row in table) for at in range(len(columns))]
    for row in table:
        put("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
