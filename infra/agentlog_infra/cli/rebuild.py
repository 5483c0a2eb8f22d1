"""`agentlog rebuild`: all rows folded again from the log."""

import os
import sys
from pathlib import Path

import rich_click as click

from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined

_ONE_OF = "use only one of --check, --accept-differences, --in-place and --cancel"


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory of the stack to rebuild.")
@click.option("--check", is_flag=True, help="Fold and compare only; the exit status is 3 if any row differs.")
@click.option("--accept-differences", is_flag=True, help="Switch even if rows differ, because the live rows are wrong.")
@click.option(
    "--in-place",
    is_flag=True,
    help="Drop the live rows first: needs less space, but requests get 503 until it is done.",
)
@click.option("--cancel", is_flag=True, help="End a running rebuild, and remove the leftovers of an interrupted one.")
def rebuild(data_dir: Path | None, check: bool, accept_differences: bool, in_place: bool, cancel: bool) -> None:
    """Fold all rows again from the log into shadow tables, compare both, and switch in one transaction.

    The server keeps running. If rows differ, nothing is switched and the exit status is 3, unless you give
    --accept-differences. Ctrl-C and --cancel leave the live rows as they are.

    With --in-place, or if there are no live rows, the rebuild folds into the live tables; if it is ended, a projector
    continues it. --check never changes anything.
    """
    flags = {"check": check, "accept-differences": accept_differences, "in-place": in_place, "cancel": cancel}
    given = [flag for flag, is_set in flags.items() if is_set] or ["switch"]
    if len(given) > 1:
        raise click.UsageError(_ONE_OF)
    os.environ.update(joined(Settings.load({"data_dir": data_dir})).environment())
    os.execv(sys.executable, [sys.executable, "-m", "agentlog_processors", "rebuild", given[0]])
