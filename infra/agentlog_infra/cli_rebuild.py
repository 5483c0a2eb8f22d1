"""Decides `agentlog rebuild`: all rows folded anew from the log, by the room that owns them."""

import os
import sys
from pathlib import Path

import rich_click as click

from agentlog_infra.addresses import joined
from agentlog_infra.settings import Settings


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory whose rows are rebuilt.")
def rebuild(data_dir: Path | None) -> None:
    """Fold all rows anew from the log, beside the present ones, and switch when they have caught up."""
    os.environ.update(joined(Settings.load({"data_dir": data_dir})).environment())
    os.execv(sys.executable, [sys.executable, "-m", "agentlog_processors", "rebuild"])
