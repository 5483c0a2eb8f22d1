"""Decides how the database's schema is brought up or checked: by a child, since the rooms above own the read models."""

from agentlog_facts.errors import Unavailable
from agentlog_infra.console import Status
from agentlog_infra.processors_child import processors
from agentlog_infra.settings import Settings


async def upgrade(settings: Settings) -> None:
    """Bring the schema up. Raises: Unavailable if that fails; the child has said why on stderr."""
    status, _ = await processors(settings, "migrate", "up")
    if status != Status.OK:
        raise Unavailable(f"the database's schema could not be brought up (status {status}); the reason stands above")


async def pending(settings: Settings) -> list[str]:
    """Return what the schema lacks. Raises: Unavailable."""
    status, said = await processors(settings, "migrate", "check")
    if status not in (Status.OK, Status.DIFFERENCE):
        raise Unavailable(f"the database's schema could not be checked (status {status})")
    return said.splitlines()
