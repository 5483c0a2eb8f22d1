"""`agentlog migrate`: migrations of the database schema, applied or checked."""

import asyncio
from pathlib import Path

import rich_click as click

from agentlog_infra.console import Status, put, put_json, say
from agentlog_infra.process.processors_jobs import pending_migrations, upgrade_schema
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined


@click.group()
def migrate() -> None:
    """Migrate the database to the schema of this version."""


@migrate.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory of the stack to change.")
def up(data_dir: Path | None) -> int:
    """Apply missing migrations in one transaction; create the database if it is missing."""
    asyncio.run(upgrade_schema(joined(Settings.load({"data_dir": data_dir}))))
    say("the schema is up to date")
    return Status.OK


@migrate.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory of the stack to check.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def check(data_dir: Path | None, as_json: bool) -> int:
    """Show missing migrations and change nothing; the exit status is 3 if there are any."""
    missing = asyncio.run(pending_migrations(joined(Settings.load({"data_dir": data_dir}))))
    if as_json:
        put_json(missing)
    elif missing:
        put("\n".join(missing))
    else:
        say("the schema is up to date")
    return Status.DIFFERENCE if missing else Status.OK
