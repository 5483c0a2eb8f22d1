"""`infra/bench`: three rounds of every case, median and spread, as a table and on demand as JSON."""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field

from bench.client import connect
from bench.server import Server, own_server
from bench.works import Case, Round, cases

WARM_UP = 20


@dataclass
class Figures:
    """One case over all rounds: each list has one figure a round."""

    name: str
    clients: int
    reach: str
    per_s: list[float] = field(default_factory=list[float])
    p50_ms: list[float] = field(default_factory=list[float])
    p95_ms: list[float] = field(default_factory=list[float])
    p99_ms: list[float] = field(default_factory=list[float])
    first_p50_ms: list[float] = field(default_factory=list[float])
    cpu_ms: list[float] = field(default_factory=list[float])
    notes: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, seen: Round, cpu_s: float) -> None:
        """Take in one round."""
        count = len(seen.took_s)
        self.per_s.append(count / seen.all_s)
        for name, share in (("p50_ms", 0.50), ("p95_ms", 0.95), ("p99_ms", 0.99)):
            getattr(self, name).append(1000 * quantile(seen.took_s, share))
        if seen.first_s:
            self.first_p50_ms.append(1000 * quantile(seen.first_s, 0.5))
        self.cpu_ms.append(1000 * cpu_s / count)
        for name, value in seen.notes.items():
            self.notes.setdefault(name, []).append(value)

    def row(self) -> str:
        """Return a line of the table."""
        cells = [f"{self.name} ({self.clients})", spread(self.per_s), spread(self.p50_ms), spread(self.p95_ms)]
        cells += [spread(self.p99_ms), spread(self.cpu_ms)]
        notes = {"first p50 ms": self.first_p50_ms, **self.notes} if self.first_p50_ms else self.notes
        cells.append("; ".join(f"{name} {spread(values)}" for name, values in notes.items()))
        return "| " + " | ".join([*cells, self.reach]) + " |"


def quantile(values: list[float], share: float) -> float:
    """Return the value below which `share` of all values lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def spread(values: list[float]) -> str:
    """Return median and range."""
    if len(values) == 1:
        return f"{values[0]:.4g}"
    return f"{statistics.median(values):.4g} ({min(values):.4g}-{max(values):.4g})"


async def measure(server: Server, case: Case, figures: Figures) -> None:
    """Do one round of a case."""
    async with connect(server.url) as client:
        before = server.cpu_s()
        seen = await case.work(client, case.clients, case.count)
        figures.add(seen, server.cpu_s() - before)


async def warm_up(server: Server) -> None:
    """Let every process import and compile what it needs."""
    async with connect(server.url) as client:
        for case in cases(0.001):
            if case.name != "history, limit 200":
                await case.work(client, 2, max(2, WARM_UP // case.clients))


@asynccontextmanager
async def target(url: str | None) -> AsyncGenerator[Server]:
    """Give the server under load: the one at `url`, or one of our own."""
    if url is not None:
        yield Server(url, None)
        return
    async with own_server() as server:
        yield server


async def bench(arguments: argparse.Namespace) -> list[Figures]:
    """Measure all chosen cases, the rounds one after the other."""
    chosen = [case for case in cases(arguments.scale) if not arguments.only or arguments.only in case.name]
    table = [Figures(case.name, case.clients, case.reach) for case in chosen]
    async with target(arguments.url) as server:
        await warm_up(server)
        for number in range(arguments.rounds):
            for case, figures in zip(chosen, table, strict=True):
                started = time.perf_counter()
                await measure(server, case, figures)
                took = time.perf_counter() - started
                print(f"round {number + 1}: {case.name} ({case.clients}) {took:.1f} s", file=sys.stderr)
        if arguments.cpu:
            print(json.dumps(server.cpu_by_process(), indent=1), file=sys.stderr)
    return table


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="infra/bench", description=__doc__)
    parser.add_argument("--url", help="a running server instead of one of our own (then without CPU figures)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the operations of each case")
    parser.add_argument("--only", help="cases whose name contains this")
    parser.add_argument("--json", action="store_true", help="all figures as one JSON document")
    parser.add_argument("--cpu", action="store_true", help="also the CPU seconds of each process")
    arguments = parser.parse_args()
    table = asyncio.run(bench(arguments))
    if arguments.json:
        print(json.dumps([asdict(figures) for figures in table], indent=1))
        return 0
    print("| case (clients) | per s | p50 ms | p95 ms | p99 ms | server CPU ms each | more | to reach |")
    print("|---|---|---|---|---|---|---|---|")
    for figures in table:
        print(figures.row())
    return 0


if __name__ == "__main__":
    sys.exit(main())
