"""Decides how the database's schema is brought up or checked: by a child, since the rooms above own the read models."""

import asyncio
import signal
import subprocess
import sys

from agentlog_facts.errors import Unavailable
from agentlog_infra.console import Status
from agentlog_infra.processes import child_environment, spawn, stop_child
from agentlog_infra.settings import Settings

_LIMIT_SECS = 600.0


async def migrate(settings: Settings, *words: str) -> tuple[int, str]:
    """Run `python -m agentlog_processors migrate WORDS`; return its exit status and what it printed on stdout.

    What it says on stderr is passed on. Raises: Unavailable when it takes longer than ten minutes.
    """
    process = await spawn(
        [sys.executable, "-m", "agentlog_processors", "migrate", *words],
        death_signal=signal.SIGKILL,  # one transaction: it happens whole or not at all
        env=child_environment() | settings.environment(),
        stdout=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_LIMIT_SECS):
            said, _ = await process.communicate()
    except TimeoutError as error:
        raise Unavailable(f"the migration did not end within {_LIMIT_SECS:.0f} s") from error
    finally:
        await stop_child(process, ())
    return process.returncode or 0, said.decode()


async def upgrade(settings: Settings) -> None:
    """Bring the schema up. Raises: Unavailable if that fails; the child has said why on stderr."""
    status, _ = await migrate(settings, "up")
    if status != Status.OK:
        raise Unavailable(f"the database's schema could not be brought up (status {status}); the reason stands above")


async def pending(settings: Settings) -> list[str]:
    """Return what the schema lacks. Raises: Unavailable."""
    status, said = await migrate(settings, "check")
    if status not in (Status.OK, Status.DIFFERENCE):
        raise Unavailable(f"the database's schema could not be checked (status {status})")
    return said.splitlines()
