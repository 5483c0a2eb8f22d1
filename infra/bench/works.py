"""Works of the benchmark: each is one operation, done many times by some clients on new threads."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.client import STEPS, TRIVIAL, Client, JsonObject

TOKENS = 100
CHAT: JsonObject = {
    "assistant_id": "chat",
    "stream_mode": ["messages-tuple"],
    "input": {"messages": [{"role": "user", "content": f"count to {TOKENS}"}]},
}


@dataclass
class Round:
    """Result of one round of a work: seconds of each operation, seconds in all, and further figures.

    `count` is the number of operations if they are not timed one by one; `cpu_s` is the CPU time of processes that are
    not the server's.
    """

    took_s: list[float] = field(default_factory=list[float])
    all_s: float = 0.0
    count: int = 0
    cpu_s: float = 0.0
    first_s: list[float] = field(default_factory=list[float])
    notes: dict[str, float] = field(default_factory=dict[str, float])


async def repeat(operation: Callable[[], Awaitable[float | None]], clients: int, count: int) -> Round:
    """Do `count` operations with concurrent `clients`; an operation may return the seconds to its first event."""
    done, left = Round(), count
    started = time.perf_counter()

    async def one() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            begun = time.perf_counter()
            first = await operation()
            done.took_s.append(time.perf_counter() - begun)
            if first is not None:
                done.first_s.append(first)

    await asyncio.gather(*(one() for _ in range(clients)))
    done.all_s = time.perf_counter() - started
    return done


async def threads(client: Client, clients: int, count: int) -> Round:
    """POST /threads."""

    async def operation() -> None:
        await client.thread()

    return await repeat(operation, clients, count)


async def state(client: Client, clients: int, count: int) -> Round:
    """GET the state of a thread after a five-node run."""
    thread_id = await client.thread()
    await client.run(thread_id, STEPS)

    async def operation() -> None:
        await client.call("GET", f"/threads/{thread_id}/state")

    return await repeat(operation, clients, count)


def runs(body: JsonObject) -> "Work":
    """Return a work: a new thread and a run on it, with its end awaited."""

    async def work(client: Client, clients: int, count: int) -> Round:
        async def operation() -> None:
            await client.run(await client.thread(), body)

        return await repeat(operation, clients, count)

    return work


async def tokens(client: Client, clients: int, count: int) -> Round:
    """Stream TOKENS tokens of a scripted model."""
    seen: list[int] = []

    async def operation() -> float:
        first, got = await client.stream(f"/threads/{await client.thread()}/runs/stream", CHAT)
        seen.append(got)
        return first

    done = await repeat(operation, clients, count)
    done.notes["fewest message events"] = min(seen)
    return done


async def burst(client: Client, clients: int, count: int) -> Round:
    """Create many background runs as fast as possible, then wait for all of them; none may be lost."""
    ids = [await client.thread() for _ in range(count)]
    queue, created = iter(ids), list[tuple[str, str]]()

    async def operation() -> None:
        thread_id = next(queue)
        run = json.loads(await client.call("POST", f"/threads/{thread_id}/runs", TRIVIAL))
        created.append((thread_id, run["run_id"]))

    started = time.perf_counter()
    done = await repeat(operation, clients, count)
    await asyncio.gather(*(client.call("GET", f"/threads/{t}/runs/{r}/join") for t, r in created))
    finished_s = time.perf_counter() - started
    answers = await asyncio.gather(*(client.call("GET", f"/threads/{t}/runs/{r}") for t, r in created))
    lost = sum(json.loads(answer)["status"] != "success" for answer in answers)
    done.notes |= {"finished/s": count / finished_s, "lost": lost}
    return done


async def readers(client: Client, clients: int, count: int) -> Round:
    """`count` readers join one live run from its start; each must get every frame."""
    thread_id = await client.thread()
    body = {**CHAT, "stream_resumable": True}
    run = json.loads(await client.call("POST", f"/threads/{thread_id}/runs", body))
    path = f"/threads/{thread_id}/runs/{run['run_id']}/stream"
    started, done = time.perf_counter(), Round()

    async def one() -> int:
        begun = time.perf_counter()
        got = await client.replay(path)
        done.took_s.append(time.perf_counter() - begun)
        return got

    got = await asyncio.gather(*(one() for _ in range(count)))
    done.all_s = time.perf_counter() - started
    done.notes |= {"readers with every frame": sum(n == max(got) for n in got), "frames": max(got)}
    return done


async def history(client: Client, clients: int, count: int) -> Round:
    """POST history with limit 200 on a thread with as many checkpoints."""
    thread_id = await client.thread()
    for _ in range(29):  # seven checkpoints each
        await client.run(thread_id, STEPS)
    sizes: list[int] = []

    async def operation() -> None:
        found = await client.call("POST", f"/threads/{thread_id}/history", {"limit": 200})
        sizes.append(found.count(b'"parent_checkpoint_id"'))

    done = await repeat(operation, clients, count)
    done.notes["snapshots"] = min(sizes)
    return done


Work = Callable[[Client, int, int], Awaitable[Round]]


@dataclass(frozen=True, slots=True)
class Case:
    """A work with its number of clients and operations, and what it should reach.

    `at_the_end`: its rounds follow all rounds of the other cases, so that each reads the same log. `prepare` is called
    before each round and is not measured.
    """

    name: str
    work: Work
    clients: int
    count: int
    reach: str
    at_the_end: bool = False
    prepare: Callable[[Client], Awaitable[object]] | None = None


def cases(scale: float) -> list[Case]:
    """Return all cases; `scale` shortens them."""

    def times(count: int) -> int:
        return max(1, round(count * scale))

    return [
        Case("POST /threads", threads, 8, times(2000), ">= 600/s, p99 < 30 ms"),
        Case("POST /threads", threads, 32, times(4000), ">= 1200/s"),
        Case("GET state", state, 8, times(2000), ">= 600/s"),
        Case("trivial run, wait", runs(TRIVIAL), 1, times(100), "p50 < 30 ms"),
        Case("trivial run, wait", runs(TRIVIAL), 8, times(600), ">= 120/s"),
        Case("5-node run, wait", runs(STEPS), 8, times(400), ">= 90/s"),
        Case("100 tokens streamed", tokens, 1, times(30), "first event p50 < 30 ms"),
        Case("100 tokens streamed", tokens, 8, times(100), ">= 20/s"),
        Case("burst of background runs", burst, 32, times(500), "accepted >= 400/s, finished >= 100/s, 0 lost"),
        Case("readers of one live run", readers, 1, 50, "50 of 50 get every frame"),
        Case("history, limit 200", history, 2, times(40), ">= 20/s"),
    ]
