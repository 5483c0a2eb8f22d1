"""Comparison with the official development server: the same cases on both, by turns, and the ratio of their rates.

The cases of states and histories ask for the same answer again and again. With AGENTLOG_GATEWAY_CACHE_BYTES=0 in the
environment they measure our server without the memory of its gateway.
"""

import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.client import Client, JsonObject
from bench.figures import Figures, spread
from bench.official import official_server
from bench.rounds import measure, warm_up
from bench.server import Server, own_server
from bench.works import Case, Round, Work, cases, repeat

CONFIG = Path(__file__).with_name("graphs") / "langgraph.json"
RUN_CHECKPOINTS = 7
"""Checkpoints of a run of five nodes."""
SHORT, LONG = 100, 5_000
"""Checkpoints of the two threads whose costs are compared."""
HEAD = """\
| case (clients) | ours per s | official per s | ratio | ours, server CPU ms | official | to reach |
|---|---|---|---|---|---|---|"""


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the two servers: how to start it, and its figures by case."""

    start: Callable[[Path], AbstractAsyncContextManager[Server]]
    figures: list[Figures] = field(default_factory=list[Figures])

    async def round(self, scale: float, only: str | None) -> None:
        """Do one round of all cases on a fresh server."""
        async with self.start(CONFIG) as server:
            await warm_up(server)
            for number, case in enumerate(compared(scale, only)):
                if len(self.figures) == number:
                    self.figures.append(Figures.of(case))
                await measure(server, case, self.figures[number])


async def compare(rounds: int, scale: float, only: str | None) -> list[tuple[Figures, Figures]]:
    """Return the figures of each case, ours and the official server's; which one begins changes with each round."""
    ours, official = Arm(own_server), Arm(official_server)
    for number in range(rounds):
        for arm in (ours, official) if number % 2 == 0 else (official, ours):
            await arm.round(scale, only)
    return list(zip(ours.figures, official.figures, strict=True))


def compared(scale: float, only: str | None) -> list[Case]:
    """Return the cases; those of long threads share the threads of their server."""
    threads = LongThreads()

    def times(count: int) -> int:
        return max(2, round(count * scale))

    found = [case for case in cases(scale) if not case.name.startswith("history")]
    found += [
        Case(
            "GET state, 1,000 checkpoints",
            state_of(threads, 1_000),
            4,
            times(200),
            "1",
            prepare=partial(threads.get, checkpoints=1_000),
        ),
        *(
            Case(
                f"history, limit {limit}",
                history_of(threads, limit),
                4,
                times(count),
                reach,
                prepare=partial(threads.get, checkpoints=200),
            )
            for limit, count, reach in ((1, 400, "2"), (10, 200, "5"), (50, 100, "5"), (200, 40, "5"))
        ),
    ]
    return [case for case in found if not only or only in case.name]


def growth(scale: float, only: str | None) -> list[Case]:
    """Return the cases whose cost must not grow with a thread's length, each for a short and a long thread."""
    threads = LongThreads()
    works = (("GET state", state_of, 100), ("5-node run", run_on, 10))  # ten runs: the short thread must stay short
    found = [
        Case(
            f"{name}, {length:,} checkpoints",
            work(threads, length),
            1,
            max(2, round(count * scale)),
            reach,
            prepare=partial(threads.get, checkpoints=length),
        )
        for name, work, count in works
        for length, reach in ((SHORT, ""), (LONG, f"<= 3 x {SHORT}"))
    ]
    return [case for case in found if not only or only in case.name]


def row(ours: Figures, official: Figures) -> str:
    """Return a line of the table; the ratio is that of the medians."""
    cells = [f"{ours.name} ({ours.clients})", spread(ours.per_s), spread(official.per_s), ratio(ours, official)]
    cells += [spread(ours.cpu_ms), spread(official.cpu_ms), ours.reach]
    failed = [figures.failed for figures in (ours, official) if figures.failed is not None]
    return "| " + " | ".join([*cells, *(f"FAILED: {reason}" for reason in failed)]) + " |"


def ratio(ours: Figures, official: Figures) -> str:
    """Return our rate in units of the official server's."""
    if not ours.per_s or not official.per_s:
        return "-"
    return f"{statistics.median(ours.per_s) / statistics.median(official.per_s):.2f}"


def failures(pairs: Sequence[tuple[Figures, Figures]]) -> bool:
    """Tell whether a case failed on either server."""
    return any(figures.failed is not None for pair in pairs for figures in pair)


def conversation(number: int) -> JsonObject:
    """Return the body of a run that adds one question and one answer."""
    content = f"question {number}, with as many words as people usually need to ask for something"
    return {"assistant_id": "conversation", "input": {"messages": [{"role": "user", "content": content}]}}


class LongThreads:
    """Threads of one server by their number of checkpoints; each is made when a case first needs it."""

    def __init__(self) -> None:
        self._threads: dict[int, str] = {}

    async def get(self, client: Client, checkpoints: int) -> str:
        """Return a thread with at least so many checkpoints."""
        if checkpoints not in self._threads:
            thread_id = await client.thread()
            for number in range(-(-checkpoints // RUN_CHECKPOINTS)):
                await client.run(thread_id, conversation(number))
            self._threads[checkpoints] = thread_id
        return self._threads[checkpoints]


def state_of(threads: LongThreads, checkpoints: int) -> Work:
    """Return a work: GET the state of a long thread."""

    async def work(client: Client, clients: int, count: int) -> Round:
        thread_id = await threads.get(client, checkpoints)

        async def operation() -> None:
            await client.call("GET", f"/threads/{thread_id}/state")

        return await repeat(operation, clients, count)

    return work


def history_of(threads: LongThreads, limit: int) -> Work:
    """Return a work: POST the history of a thread of 200 checkpoints. Raises: RuntimeError if it is shorter."""

    async def work(client: Client, clients: int, count: int) -> Round:
        path = f"/threads/{await threads.get(client, 200)}/history"
        found = len(json.loads(await client.call("POST", path, {"limit": limit})))
        if found != limit:
            raise RuntimeError(f"{path}: expected {limit} checkpoints, found {found}")

        async def operation() -> None:
            await client.call("POST", path, {"limit": limit})

        return await repeat(operation, clients, count)

    return work


def run_on(threads: LongThreads, checkpoints: int) -> Work:
    """Return a work: runs of five nodes on a long thread, one after the other."""

    async def work(client: Client, clients: int, count: int) -> Round:
        thread_id = await threads.get(client, checkpoints)

        async def operation() -> None:
            await client.run(thread_id, conversation(0))

        return await repeat(operation, clients, count)

    return work
