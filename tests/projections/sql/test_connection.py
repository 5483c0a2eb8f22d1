"""Queries to PostgreSQL: a cancelled caller does not wait for a server that hangs."""

import asyncio
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager

from tests.projections.projector_env import ProjectorEnv

from agentlog_postgres.connection import CONNECT_SECS, open_pool, reading


@contextmanager
def suspended(pid: int) -> Generator[None]:
    """Suspend one process of the server for the length of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_who_gives_up_a_question_does_not_wait_for_the_server_and_the_next_one_is_answered(
    env: ProjectorEnv,
) -> None:
    pool = await open_pool(env.uri, 1)
    async with reading(pool, "who") as connection:
        backend = int(await connection.fetchval("SELECT pg_backend_pid()"))
    with suspended(backend):
        began = time.monotonic()
        try:
            async with asyncio.timeout(0.1), reading(pool, "never") as connection:
                await connection.fetchval("SELECT 1")
            raise AssertionError("a suspended process has answered")
        except TimeoutError:
            assert time.monotonic() - began < CONNECT_SECS / 2
        async with asyncio.timeout(CONNECT_SECS / 2), reading(pool, "next") as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") != backend
    await pool.close()
