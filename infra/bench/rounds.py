"""One round of a case on a server, and the warm-up before the first."""

import sys

import aiohttp

from agentlog_facts.errors import AgentlogError
from bench.client import Client, connect
from bench.figures import Figures
from bench.server import Server
from bench.works import Case, cases

WARM_UP = 20
EXPECTED = (RuntimeError, AgentlogError, aiohttp.ClientError, TimeoutError, KeyError, ValueError)
"""Errors of a case that the server cannot do; the other cases are still measured."""


async def measure(server: Server, case: Case, figures: Figures) -> None:
    """Do one round of a case, unless a round of it has failed."""
    if figures.failed is not None:
        return
    try:
        async with connect(server.url) as client:
            if case.prepare is not None:
                await case.prepare(client)
            before = server.cpu_s()
            seen = await case.work(client, case.clients, case.count)
            after = server.cpu_s()
    except EXPECTED as error:
        figures.failed = f"{type(error).__name__} {error}"[:300].replace("\n", " ")
        return
    figures.add(seen, None if before is None or after is None else after - before)


async def warm_up(server: Server) -> None:
    """Run every case briefly, so that every process has imported and compiled its code."""
    async with connect(server.url) as client:
        for case in cases(0.001):
            if case.name != "history, limit 200":
                await _warm_up_case(client, case)


async def _warm_up_case(client: Client, case: Case) -> None:
    try:
        await case.work(client, 2, max(2, WARM_UP // case.clients))
    except EXPECTED as error:  # its rounds report it in the table
        print(f"warm-up: {case.name}: {type(error).__name__} {error}", file=sys.stderr)
