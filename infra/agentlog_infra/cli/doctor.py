"""`agentlog doctor`: every dependency and setting, with a remedy for each problem."""

import asyncio
import sys
from pathlib import Path

import rich_click as click

from agentlog_infra.cli.diagnosis import Report, examine
from agentlog_infra.console import Status, put, put_json, put_table
from agentlog_infra.settings import Settings

_MARKS = {"ok": "✔", "warning": "!", "failed": "✘"}
_ASCII_MARKS = {"ok": "ok", "warning": "!", "failed": "X"}


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory of the stack to check.")
@click.option("--config", type=click.Path(path_type=Path), help="The langgraph.json that names the graphs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def doctor(data_dir: Path | None, config: Path | None, as_json: bool) -> int:
    """Check every dependency, and show every setting with its origin; secrets are masked.

    The exit status is 1 if a check failed.
    """
    flags = {name: value for name, value in {"data_dir": data_dir, "config": config}.items() if value is not None}
    report = asyncio.run(examine(Settings.load(flags), list(flags)))
    if as_json:
        put_json(report.as_json())
    else:
        _show(report)
    return Status.OK if report.healthy else Status.FAILED


def _show(report: Report) -> None:
    marks = _MARKS if (sys.stdout.encoding or "").lower().startswith("utf") else _ASCII_MARKS
    put_table(("", "what", "found", "remedy"), [(marks[f.state], f.name, f.found, f.remedy) for f in report.findings])
    put("")
    put_table(
        ("setting", "value", "from", "meaning"), [(s.name, s.value, s.origin, s.meaning) for s in report.settings]
    )
