"""Decides `agentlog rebuild`: all rows folded anew from the log, by the room that owns them."""

import os
import sys
from pathlib import Path

import rich_click as click

from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined

_ONE_OF = "--check, --accept-differences, --in-place and --cancel exclude each other"


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory whose rows are rebuilt.")
@click.option("--check", is_flag=True, help="ProjectorSession and compare only; exit status 3 if any row differs.")
@click.option("--accept-differences", is_flag=True, help="Switch although rows differ: the live ones are wrong.")
@click.option("--in-place", is_flag=True, help="Drop the live rows first: less room, but 503 until it is done.")
@click.option("--cancel", is_flag=True, help="End a rebuild that runs, and remove what an interrupted one left.")
def rebuild(data_dir: Path | None, check: bool, accept_differences: bool, in_place: bool, cancel: bool) -> None:
    """Fold all rows anew from the log, beside the live ones, compare both, and switch in one transaction.

    The server goes on all the time. Where rows differ, nothing is switched and the exit status is 3, unless
    --accept-differences says that the live rows are the wrong ones. Ctrl-C and --cancel leave the live rows as they
    are, unless these are being folded in place: then a projector goes on with them. Only where there are no live rows,
    and with --in-place, the fold goes into the tables themselves; --check never changes anything.
    """
    wishes = {"check": check, "accept-differences": accept_differences, "in-place": in_place, "cancel": cancel}
    asked = [word for word, said in wishes.items() if said] or ["switch"]
    if len(asked) > 1:
        raise click.UsageError(_ONE_OF)
    os.environ.update(joined(Settings.load({"data_dir": data_dir})).environment())
    os.execv(sys.executable, [sys.executable, "-m", "agentlog_processors", "rebuild", asked[0]])
