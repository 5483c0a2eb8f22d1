"""Words of the command line of the roles."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

ROLES = ("worker", "spare", "housekeeper", "projector")
"""`spare` is a worker for suspects only."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """Words of the command line."""

    roles: list[str]
    ready_fd: int | None
    leave_when_idle: bool


def arguments_of(words: Sequence[str]) -> Arguments:
    """Return the words, checked; ends the process with status 2 for words that it does not know."""
    parser = argparse.ArgumentParser(prog="agentlog_processors", description="Run roles of agentlog.")
    parser.add_argument("roles", metavar="ROLE[,ROLE...]", help=f"one or more of {', '.join(ROLES)}")
    parser.add_argument("--ready-fd", type=int, help="file descriptor for one line of JSON when ready")
    parser.add_argument("--leave-when-idle", action="store_true", help="end a spare worker that finds no suspect")
    found = parser.parse_args(words)
    roles = str(found.roles).split(",")
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        parser.error(f"unknown role {', '.join(unknown)}; expected {', '.join(ROLES)}")
    return Arguments(roles, found.ready_fd, found.leave_when_idle)
