"""Command line of the benchmark: three rounds of every case, median and range, as a table or as JSON."""

import argparse
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict

import aiohttp
import uvloop

from agentlog_facts.errors import AgentlogError
from bench.client import Client, connect
from bench.figures import HEAD, Figures
from bench.log_works import log_cases
from bench.server import Server, own_server
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


@asynccontextmanager
async def target(arguments: argparse.Namespace) -> AsyncGenerator[Server]:
    """Yield the server under load: the one at --url, or one of our own."""
    if arguments.url is not None:
        yield Server(arguments.url, arguments.pid)
        return
    async with own_server() as server:
        yield server


def choose(server: Server, arguments: argparse.Namespace) -> list[Case]:
    """Return the cases to measure; those that read the log need a server of our own."""
    found = cases(arguments.scale)
    if server.data_dir is not None:
        found += log_cases(server.data_dir, arguments.scale)
    return [case for case in found if not arguments.only or arguments.only in case.name]


async def bench(arguments: argparse.Namespace) -> list[Figures]:
    """Measure all chosen cases, the rounds one after the other, those of cases `at_the_end` last."""
    async with target(arguments) as server:
        lines = [(case, Figures.of(case)) for case in choose(server, arguments)]
        await warm_up(server)
        for at_the_end in (False, True):
            for number in range(arguments.rounds):
                for case, figures in lines:
                    if case.at_the_end == at_the_end:
                        started = time.perf_counter()
                        await measure(server, case, figures)
                        took = time.perf_counter() - started
                        print(f"round {number + 1}: {case.name} ({case.clients}) {took:.1f} s", file=sys.stderr)
        if arguments.cpu:
            print(json.dumps(server.cpu_by_process(), indent=1), file=sys.stderr)
    return [figures for _, figures in lines]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    words = argparse.ArgumentParser(prog="infra/bench", description=__doc__)
    words.add_argument("--url", help="a running server instead of one of our own")
    words.add_argument(
        "--pid", type=int, action="append", default=[], help="with --url: root of its processes, for CPU figures"
    )
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--scale", type=float, default=1.0, help="share of the operations of each case")
    words.add_argument("--only", help="cases whose name contains this")
    words.add_argument("--json", action="store_true", help="all figures as one JSON document")
    words.add_argument("--cpu", action="store_true", help="also the CPU seconds of each process")
    return words


def main() -> int:
    """Read the command line, measure, print. Exit status 1: a case failed; its line has the reason."""
    arguments = parser().parse_args()
    table = uvloop.run(bench(arguments))
    if arguments.json:
        print(json.dumps([asdict(figures) for figures in table], indent=1))
    else:
        print("\n".join([HEAD, *(figures.row() for figures in table)]))
    return int(any(figures.failed is not None for figures in table))


if __name__ == "__main__":
    sys.exit(main())
