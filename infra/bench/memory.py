"""Memory of each process of a server, sampled while it executes many runs on new threads."""

import json
from collections.abc import Sequence

from bench.client import TRIVIAL, connect
from bench.comparison import CONFIG
from bench.server import own_server
from bench.works import runs

CLIENTS = 8
SAMPLES = 8
RUNS = 20_000


async def memory_of_runs(scale: float) -> list[tuple[int, dict[str, float]]]:
    """Execute RUNS * scale trivial runs on a fresh server; return the MB of each process by name, eight times.

    The sizes are proportional set sizes: pages that processes share are divided among them. Each sample comes with the
    number of runs before it, the first after an eighth of all, when every cache has been used.
    """
    part = max(CLIENTS, round(RUNS * scale / SAMPLES))
    found: list[tuple[int, dict[str, float]]] = []
    async with own_server(CONFIG) as server:
        for number in range(1, SAMPLES + 1):
            async with connect(server.url) as client:
                await runs(TRIVIAL)(client, CLIENTS, part)
            found.append((number * part, server.memory_by_process()))
    return found


def table(samples: Sequence[tuple[int, dict[str, float]]]) -> str:
    """Return the samples as a table, a line for each process and one for all."""
    counts = [f"{count:,}" for count, _ in samples]
    lines = ["| MB after runs | " + " | ".join(counts) + " |", "|---" * (len(counts) + 1) + "|"]
    names = sorted({name for _, sample in samples for name in sample})
    for name in names:
        lines.append(f"| {name} | " + " | ".join(f"{sample.get(name, 0.0):.0f}" for _, sample in samples) + " |")
    lines.append("| all | " + " | ".join(f"{sum(sample.values()):.0f}" for _, sample in samples) + " |")
    return "\n".join(lines)


def report(samples: Sequence[tuple[int, dict[str, float]]], as_json: bool) -> str:
    """Return the samples as JSON or as a table."""
    return json.dumps(samples, indent=1) if as_json else table(samples)
