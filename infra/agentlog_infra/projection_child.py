"""Decides how the projection is asked how it is: by a child, since the room above owns the rows."""

import asyncio
import signal
import subprocess
import sys

from agentlog_facts.errors import Unavailable
from agentlog_infra.console import CommandFailed, Status
from agentlog_infra.processes import child_environment, spawn, stop_child
from agentlog_infra.settings import Settings

LIMIT_SECS = 600.0
_TOLD = (Status.OK, Status.DIFFERENCE, Status.NOT_FOUND)


async def ask(settings: Settings, *words: str) -> tuple[int, str]:
    """Run `python -m agentlog_processors projection WORDS`; return its exit status and what it printed on stdout.

    What it says on stderr is passed on. Raises: Unavailable, CommandFailed.
    """
    process = await spawn(
        [sys.executable, "-m", "agentlog_processors", "projection", *words],
        death_signal=signal.SIGKILL,  # each retry is one transaction
        env=child_environment() | settings.environment(),
        stdout=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT_SECS):
            said, _ = await process.communicate()
    except TimeoutError as error:
        raise Unavailable(f"the projection did not answer within {LIMIT_SECS:.0f} s") from error
    finally:
        await stop_child(process, ())
    status = process.returncode or 0
    if status == Status.UNREACHABLE:
        raise Unavailable("the rows cannot be asked; the reason stands above")
    if status not in _TOLD:
        raise CommandFailed("the projection cannot be asked; the reason stands above")
    return status, said.decode()
