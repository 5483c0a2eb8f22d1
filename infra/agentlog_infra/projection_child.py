"""Decides how the projection is asked how it is: by a child, since the room above owns the rows."""

from agentlog_facts.errors import Unavailable
from agentlog_infra.console import CommandFailed, Status
from agentlog_infra.processors_child import processors
from agentlog_infra.settings import Settings

_TOLD = (Status.OK, Status.DIFFERENCE, Status.NOT_FOUND)


async def ask(settings: Settings, *words: str) -> tuple[int, str]:
    """Run `python -m agentlog_processors projection WORDS`; return its exit status and what it printed on stdout.

    What it says on stderr is passed on. Raises: Unavailable, CommandFailed.
    """
    status, said = await processors(settings, "projection", *words)
    if status == Status.UNREACHABLE:
        raise Unavailable("the rows cannot be asked; the reason stands above")
    if status not in _TOLD:
        raise CommandFailed("the projection cannot be asked; the reason stands above")
    return status, said
