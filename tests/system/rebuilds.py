"""`agentlog rebuild` as a process that a test may pause, kill and cancel, and its traces in the database."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from tempfile import TemporaryFile
from typing import Literal, TypeAlias

import asyncpg
from tests.system.servers import RunningServer

from agentlog_infra.process.child import child_environment

LONGEST_S = 180.0
TRIES = 10
LIVE = ["ledger", "read_v1"]
SCHEMAS = """
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'ledger%' OR nspname LIKE 'read\\_v1%' ORDER BY nspname
"""
Moment: TypeAlias = Literal["made", "folding", "comparing", "switching", "switched", "in place"]
LOOKS: dict[Moment, str] = {
    "made": "SELECT to_regclass('ledger_next.positions') IS NOT NULL",
    "folding": "SELECT EXISTS (SELECT FROM ledger_next.positions WHERE next_offset > 0)",
    "comparing": """
        SELECT EXISTS (SELECT FROM pg_stat_activity
                        WHERE application_name = 'agentlog rebuild' AND query LIKE '%hashtextextended%')
    """,
    "switching": """
        SELECT EXISTS (SELECT FROM pg_locks WHERE relation = to_regclass('ledger.positions')
                          AND mode = 'ShareRowExclusiveLock' AND granted)
    """,
    "switched": "SELECT to_regclass('ledger_old.positions') IS NOT NULL",
    "in place": """
        SELECT EXISTS (SELECT FROM ledger.positions WHERE owner LIKE 'rebuild-%' AND next_offset > 0 AND NOT present)
    """,
}
"""Queries that detect a stage of a rebuild in the database."""


class Rebuild:
    """One `agentlog rebuild` with these flags."""

    def __init__(self, server: RunningServer, *flags: str) -> None:
        words = ["rebuild", "--data-dir", str(server.folder / "data"), *flags]
        self._said, self._told = TemporaryFile("w+"), TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agentlog_infra.cli.main", *words],
            stdout=self._said,
            stderr=self._told,
            env=child_environment({"PATH": "/usr/bin:/bin"}),
        )

    @property
    def running(self) -> bool:
        """Return whether it has not ended."""
        return self._process.poll() is None

    def signal(self, *signals: int) -> None:
        """Send a signal."""
        for number in signals:
            os.kill(self._process.pid, number)

    async def pause_at(self, uri: str, moment: Moment) -> bool:
        """Pause it at a stage; return whether it is at that stage and not after it."""
        connection = await asyncpg.connect(uri)
        try:
            async with asyncio.timeout(LONGEST_S):
                while self.running and not await is_at(connection, moment):  # noqa: ASYNC110 - the database sends no event
                    await asyncio.sleep(0.001)
            if self.running:
                self.signal(signal.SIGSTOP)
            return self.running and await is_at(connection, moment)
        finally:
            await connection.close()

    async def ended(self) -> tuple[int, str, str]:
        """Wait for its end; return exit status, stdout and stderr."""
        status = await asyncio.to_thread(self._process.wait, LONGEST_S)
        for file in (self._said, self._told):
            file.seek(0)
        return status, self._said.read(), self._told.read()

    def kill(self) -> None:
        """Kill it, paused or not."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill it and close its pipes."""
        self.kill()
        self._said.close()
        self._told.close()


async def is_at(connection: "asyncpg.Connection[asyncpg.Record]", moment: Moment) -> bool:
    """Return whether a rebuild is at a stage now."""
    try:
        return bool(await connection.fetchval(LOOKS[moment]))
    except asyncpg.UndefinedTableError:
        return False


@contextmanager
def rebuilding(server: RunningServer, *flags: str) -> Generator[Rebuild]:
    """Start a rebuild; kill it at the end of the block."""
    one = Rebuild(server, *flags)
    try:
        yield one
    finally:
        one.close()


@asynccontextmanager
async def paused(server: RunningServer, moment: Moment, *flags: str) -> AsyncGenerator[Rebuild]:
    """Start a rebuild and pause it at a stage; start another one if it went past. Kill it at the end of the block."""
    for _ in range(TRIES):
        with rebuilding(server, *flags) as one:
            if await one.pause_at(server.postgres, moment):
                yield one
                return
            if one.running:
                one.signal(signal.SIGCONT)
            assert (await one.ended())[0] == 0
    raise AssertionError(f"{TRIES} rebuilds went past {moment!r}")


async def rebuilt(server: RunningServer, *flags: str) -> tuple[int, str, str]:
    """Run a complete rebuild."""
    with rebuilding(server, *flags) as one:
        return await one.ended()


async def schemas(uri: str) -> list[str]:
    """Return the schemas of rows, live or not."""
    connection = await asyncpg.connect(uri)
    try:
        return [row[0] for row in await connection.fetch(SCHEMAS)]
    finally:
        await connection.close()


async def ask(uri: str, sql: str) -> object:
    """Execute one statement; return the first value of its result."""
    connection = await asyncpg.connect(uri)
    try:
        found: object = await connection.fetchval(sql)
        return found
    finally:
        await connection.close()
