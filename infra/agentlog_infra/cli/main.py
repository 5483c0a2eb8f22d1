"""The `agentlog` command; a subcommand is imported only when it is called."""

import os
import sys
import traceback
from importlib import import_module
from typing import ClassVar

import rich_click as click
from click.exceptions import Exit

from agentlog_facts.errors import AgentlogError
from agentlog_facts.version import VERSION
from agentlog_infra.console import Status, say, say_error

_COMMANDS = {
    "dev": ("agentlog_infra.cli.dev:dev", "Run the complete server on this machine, with reload."),
    "serve": ("agentlog_infra.cli.serve:serve", "Run one role, or the embedded servers alone."),
    "demo": ("agentlog_infra.cli.demo:demo", "Run one complete example through the official SDK."),
    "events": ("agentlog_infra.cli.events:events", "Show the facts on the log, with their verdicts."),
    "doctor": ("agentlog_infra.cli.doctor:doctor", "Check every dependency and show every setting."),
    "topics": ("agentlog_infra.cli.topics:topics", "Compare the topics of the log with the required settings."),
    "migrate": ("agentlog_infra.cli.migrate:migrate", "Migrate the database to the schema of this version."),
    "projection": (
        "agentlog_infra.cli.projection:projection",
        "Show partitions without progress and quarantined aggregates; park or retry them.",
    ),
    "rebuild": ("agentlog_infra.cli.rebuild:rebuild", "Fold all rows again from the log."),
}
_LISTING = "agentlog.listing"


class LazyGroup(click.RichGroup):
    """A group whose commands are imported when they are called; help needs only their names and one line each."""

    commands_at: ClassVar[dict[str, tuple[str, str]]] = _COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of the table."""
        return list(self.commands_at)

    def get_help(self, ctx: click.Context) -> str:
        """Return the help of the group itself."""
        ctx.meta[_LISTING] = True
        return super().get_help(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; for a list of commands, one without its options, because that needs no import."""
        if cmd_name not in self.commands_at:
            return None
        place, short = self.commands_at[cmd_name]
        if ctx.meta.get(_LISTING):
            return click.Command(cmd_name, help=short)
        module, _, name = place.partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="agentlog")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="When to use colour.")
def agentlog(debug: bool, color: str) -> None:
    """A LangGraph-compatible agent server whose only source of truth is an event log."""
    if color == "never":
        os.environ["NO_COLOR"] = "1"
    elif color == "always":
        os.environ["FORCE_COLOR"] = "1"


def main() -> None:
    """Run the command and leave with its exit status; show the traceback of an error only with --debug."""
    debug = "--debug" in sys.argv
    try:
        status = agentlog.main(prog_name="agentlog", standalone_mode=False)
    except Exit as end:
        status = end.exit_code
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        status = Status.INTERRUPTED
    except AgentlogError as error:
        if debug:
            traceback.print_exc()
        status = say_error(error)
    except Exception as error:  # noqa: BLE001  the outermost loop: a traceback only with --debug
        if debug:
            traceback.print_exc()
        say(f"error: {type(error).__name__}: {error}\n  fix: run `agentlog --debug ...` for the traceback")
        status = Status.FAILED
    sys.exit(status if isinstance(status, int) else Status.OK)


if __name__ == "__main__":
    main()
