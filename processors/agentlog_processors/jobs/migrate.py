"""Composition root of `migrate up|check`: the ledger's revisions from infra, the tables from the read models.

It imports as little as possible, because every start of a server waits for it.
"""

import asyncio
import sys
from collections.abc import Sequence

from agentlog_facts.errors import AgentlogError, Misconfigured, Unavailable
from agentlog_infra.postgres.migrate import Tables, pending, upgrade
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined
from agentlog_projections.models.registry import TYPES

OK, FAILED, USAGE, DIFFERENCE, UNREACHABLE = 0, 1, 2, 3, 6
"""Exit statuses, the same as those of the command line."""


def tables() -> list[Tables]:
    """Return the tables of the read models."""
    return [Tables(model.name, model.version, model.ddl) for model in TYPES]


def main(words: Sequence[str]) -> None:
    """Run `up` or `check` and exit. `check` prints missing steps on stdout and exits with 3 if there are any."""
    if list(words) not in (["up"], ["check"]):
        sys.stderr.write("usage: python -m agentlog_processors migrate up|check\n")
        sys.exit(USAGE)
    try:
        uri = joined(Settings.load()).database_uri or ""
        sys.exit(_up(uri) if words[0] == "up" else _check(uri))
    except AgentlogError as error:
        sys.exit(failed(error))


def failed(error: AgentlogError) -> int:
    """Print the error on stderr and return its exit status."""
    sys.stderr.write(f"error: {error}\n")
    match error:
        case Misconfigured():
            return USAGE
        case Unavailable():
            return UNREACHABLE
        case _:
            return FAILED


def _up(uri: str) -> int:
    for line in asyncio.run(upgrade(uri, tables())):
        sys.stderr.write(f"done: {line}\n")
    return OK


def _check(uri: str) -> int:
    missing = asyncio.run(pending(uri, tables()))
    sys.stdout.writelines(f"{line}\n" for line in missing)
    return DIFFERENCE if missing else OK
