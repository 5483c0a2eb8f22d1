"""One-off jobs of `agentlog_processors`, run as child processes: that room owns the rows and is above this one."""

import asyncio
import signal
import subprocess
import sys

from agentlog_facts.errors import Unavailable
from agentlog_infra import timeouts
from agentlog_infra.console import CommandFailed, Status
from agentlog_infra.process.child import child_environment, spawn, stop_child
from agentlog_infra.settings import Settings

_ANSWERED = (Status.OK, Status.DIFFERENCE, Status.NOT_FOUND)


async def upgrade_schema(settings: Settings) -> None:
    """Migrate the schema. Raises: Unavailable if that fails; the child has printed the reason on stderr."""
    status, _ = await _run(settings, "migrate", "up")
    if status != Status.OK:
        raise Unavailable(f"the database's schema could not be migrated (status {status}); the reason is printed above")


async def pending_migrations(settings: Settings) -> list[str]:
    """Return the missing migrations. Raises: Unavailable."""
    status, printed = await _run(settings, "migrate", "check")
    if status not in (Status.OK, Status.DIFFERENCE):
        raise Unavailable(f"the database's schema could not be checked (status {status})")
    return printed.splitlines()


async def query_projection(settings: Settings, *words: str) -> tuple[int, str]:
    """Run `python -m agentlog_processors projection WORDS`; return its exit status and its standard output.

    Its standard error is passed on. Raises: Unavailable, CommandFailed.
    """
    status, printed = await _run(settings, "projection", *words)
    if status == Status.UNREACHABLE:
        raise Unavailable("the rows cannot be read; the reason is printed above")
    if status not in _ANSWERED:
        raise CommandFailed("the projection cannot be queried; the reason is printed above")
    return status, printed


async def _run(settings: Settings, *words: str) -> tuple[int, str]:
    """Run `python -m agentlog_processors WORDS`; return its exit status and its standard output.

    The child dies with this process, so a job must do one transaction at a time. Raises: Unavailable after ten minutes.
    """
    process = await spawn(
        [sys.executable, "-m", "agentlog_processors", *words],
        death_signal=signal.SIGKILL,
        env=child_environment() | settings.environment(),
        stdout=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeouts.JOB_S):
            printed, _ = await process.communicate()
    except TimeoutError as error:
        raise Unavailable(f"{' '.join(words)} did not finish within {timeouts.JOB_S:.0f} s") from error
    finally:
        await stop_child(process, ())
    return process.returncode or 0, printed.decode()
