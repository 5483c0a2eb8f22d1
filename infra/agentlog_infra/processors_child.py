"""Runs a command of the room above as a child, since that room owns the rows."""

import asyncio
import signal
import subprocess
import sys

from agentlog_facts.errors import Unavailable
from agentlog_infra.processes import child_environment, spawn, stop_child
from agentlog_infra.settings import Settings

LIMIT_SECS = 600.0


async def processors(settings: Settings, *words: str) -> tuple[int, str]:
    """Run `python -m agentlog_processors WORDS`; return its exit status and what it printed on stdout.

    What it says on stderr is passed on. It is killed with us: only for what is one transaction at a time. Raises:
    Unavailable when it takes longer than ten minutes.
    """
    process = await spawn(
        [sys.executable, "-m", "agentlog_processors", *words],
        death_signal=signal.SIGKILL,
        env=child_environment() | settings.environment(),
        stdout=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT_SECS):
            said, _ = await process.communicate()
    except TimeoutError as error:
        raise Unavailable(f"{' '.join(words)} did not end within {LIMIT_SECS:.0f} s") from error
    finally:
        await stop_child(process, ())
    return process.returncode or 0, said.decode()
