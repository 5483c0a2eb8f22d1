"""`agentlog rebuild` as a process that a test may pause, kill and cancel, and what lies in the database meanwhile."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import asyncpg
from tests.system.servers import RunningServer

from agentlog_infra.processes import child_environment

LONGEST_S = 60.0
SCHEMAS = """
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'ledger%' OR nspname LIKE 'read\\_v1%' ORDER BY nspname
"""


class Rebuild:
    """One `agentlog rebuild` with these flags."""

    def __init__(self, server: RunningServer, *flags: str) -> None:
        words = ["rebuild", "--data-dir", str(server.folder / "data"), *flags]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agentlog_infra.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment({"PATH": "/usr/bin:/bin"}),
        )

    @property
    def running(self) -> bool:
        """Tell whether it has not ended."""
        return self._process.poll() is None

    def tell(self, *signals: int) -> None:
        """Send signals."""
        for number in signals:
            os.kill(self._process.pid, number)

    async def paused_in_the_middle(self, uri: str) -> None:
        """Stop it once its own tables are there."""
        await until_schemas(uri, lambda found: "ledger_next" in found)
        self.tell(signal.SIGSTOP)
        assert self.running, "it was over before it could be stopped"

    async def ended(self) -> tuple[int, str, str]:
        """Wait for its end; return exit status, stdout and stderr."""
        said, told = await asyncio.to_thread(self._process.communicate, None, LONGEST_S)
        return self._process.returncode, said, told

    def kill(self) -> None:
        """End it, paused or not; leave nothing behind."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def rebuilding(server: RunningServer, *flags: str) -> Generator[Rebuild]:
    """Begin a rebuild; it does not outlive the block."""
    one = Rebuild(server, *flags)
    try:
        yield one
    finally:
        one.kill()


async def rebuilt(server: RunningServer, *flags: str) -> tuple[int, str, str]:
    """Do it whole."""
    with rebuilding(server, *flags) as one:
        return await one.ended()


async def schemas(uri: str) -> list[str]:
    """Return the schemas of rows, live or not."""
    connection = await asyncpg.connect(uri)
    try:
        return [row[0] for row in await connection.fetch(SCHEMAS)]
    finally:
        await connection.close()


async def until_schemas(uri: str, holds: Callable[[list[str]], bool]) -> None:
    """Look at the schemas until it holds."""
    connection = await asyncpg.connect(uri)
    try:
        async with asyncio.timeout(LONGEST_S):
            while not holds([row[0] for row in await connection.fetch(SCHEMAS)]):  # noqa: ASYNC110 - the database sends no event
                await asyncio.sleep(0.002)
    finally:
        await connection.close()
