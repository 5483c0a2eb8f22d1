"""Command line of the benchmark: three rounds of every case, median and range, as a table or as JSON."""

import argparse
import json
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

import uvloop

from bench import comparison, memory
from bench.figures import HEAD, Figures
from bench.log_works import log_cases
from bench.rounds import measure, warm_up
from bench.server import Server, own_server
from bench.works import Case, cases


@asynccontextmanager
async def target(arguments: argparse.Namespace) -> AsyncGenerator[Server]:
    """Yield the server under load: the one at --url, or one of our own."""
    if arguments.url is not None:
        yield Server(arguments.url, arguments.pid)
        return
    async with own_server(comparison.CONFIG) as server:
        yield server


def choose(server: Server, arguments: argparse.Namespace) -> list[Case]:
    """Return the cases to measure; those that read the log need a server of our own."""
    if arguments.growth:
        return comparison.growth(arguments.scale, arguments.only)
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
    words.add_argument(
        "--beside-official",
        action="store_true",
        help="the cases of the API, with longer threads, on `langgraph dev` too, and the ratios of the rates",
    )
    words.add_argument("--growth", action="store_true", help="cost of long threads: 100 checkpoints against 5,000")
    words.add_argument("--memory", action="store_true", help="memory of each process over 20,000 runs")
    words.add_argument("--only", help="cases whose name contains this")
    words.add_argument("--json", action="store_true", help="all figures as one JSON document")
    words.add_argument("--cpu", action="store_true", help="also the CPU seconds of each process")
    return words


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; exit with status 2 for options that would have no effect."""
    command_line = parser()
    arguments = command_line.parse_args(words)
    if arguments.beside_official:
        given = {"--url": arguments.url, "--pid": arguments.pid, "--growth": arguments.growth, "--cpu": arguments.cpu}
        if without_effect := [name for name, value in given.items() if value]:
            command_line.error(f"--beside-official starts both servers, and goes without {', '.join(without_effect)}")
    if arguments.pid and arguments.url is None:
        command_line.error("--pid needs --url: the processes of a server of our own are known")
    return arguments


def beside_official(arguments: argparse.Namespace) -> int:
    """Compare with the official server and print the ratios. Return 1 if a case failed on either."""
    pairs = uvloop.run(comparison.compare(arguments.rounds, arguments.scale, arguments.only))
    if arguments.json:
        print(json.dumps([[asdict(figures) for figures in pair] for pair in pairs], indent=1))
    else:
        print("\n".join([comparison.HEAD, *(comparison.row(*pair) for pair in pairs)]))
    return int(comparison.failures(pairs))


def main() -> int:
    """Read the command line, measure, print. Exit status 1: a case failed; its line has the reason."""
    arguments = parsed()
    if arguments.beside_official:
        return beside_official(arguments)
    if arguments.memory:
        print(memory.report(uvloop.run(memory.memory_of_runs(arguments.scale)), arguments.json))
        return 0
    table = uvloop.run(bench(arguments))
    if arguments.json:
        print(json.dumps([asdict(figures) for figures in table], indent=1))
    else:
        print("\n".join([HEAD, *(figures.row() for figures in table)]))
    return int(any(figures.failed is not None for figures in table))


if __name__ == "__main__":
    sys.exit(main())
