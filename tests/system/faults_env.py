"""Fixture environment of faults: a cluster, a batch of runs in flight, recorded answers, and the checker's verdict."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from tests.system.checker.fold import judge
from tests.system.checker.invariants import Verdicts
from tests.system.checker.judgement import judged_well, read_settled_queue
from tests.system.checker.notes import Notes
from tests.system.checker.records import read_topic
from tests.system.checker.views import folded
from tests.system.cluster import Cluster
from tests.system.noted import Client, effects

from agentlog_facts.json_value import Json, JsonObject

RUNS = 20
STEP_MS = 150
END_S = 60.0
LOOK_EVERY_S = 0.05
SIZES = {"N_JOBS_PER_WORKER": "10", "AGENTLOG_REQUEST_DEADLINE_SECS": "8"}


class FaultsEnv:
    """A cluster, the answers recorded since its start, and the batch of runs in flight."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.notes = Notes()
        self.ana = Client(cluster.url, "ana", self.notes)
        self.batch: dict[str, str] = {}

    def forget_notes(self) -> None:
        """Discard the recorded answers."""
        self.notes = self.ana.notes = Notes(all_threads=False)

    async def begin(self, runs: int = RUNS, **data: Json) -> None:
        """Start a batch of runs on own threads, in parallel."""
        asking = [Client(self.cluster.url, f"starter-{number}", self.notes) for number in range(8)]
        self.batch = {}

        async def one(number: int) -> None:
            client = asking[number % len(asking)]
            thread = await client.thread()
            work: JsonObject = {"sleep_ms": STEP_MS, "name": str(number), **data}
            self.batch[await client.start(thread, work, {"stream_resumable": True})] = thread

        await asyncio.gather(*(one(number) for number in range(runs)))

    async def set_off(self, runs: int = RUNS, **data: Json) -> None:
        """Start a batch, and let it continue once all runs are in the second of five steps."""
        await until(self.cluster.settled, END_S, "all roles are back from the fault before")
        gate = self.gate("go")
        await self.in_flight(runs, gate, **data)
        gate.touch()

    def gate(self, name: str) -> Path:
        """Return a gate that is closed."""
        return self.cluster.gates / f"{name}-{time.monotonic_ns()}"

    async def in_flight(self, runs: int, gate: Path, later: Path | None = None, /, **data: Json) -> dict[str, str]:
        """Start a batch, wait until all runs hold at the gate in the second of five steps, and return it.

        `later`: the gate of the fourth step.
        """
        hold: JsonObject = {"two": gate.name, **({"four": later.name} if later else {})}
        await self.begin(runs, hold=hold, **data)
        end = time.monotonic() + END_S
        while missing := self.batch.keys() - held(self.cluster, "two") - await self.lost():
            assert time.monotonic() < end, f"after {END_S:g} s not in flight: {sorted(missing)}"
            await asyncio.sleep(LOOK_EVERY_S)
        return dict(self.batch)

    async def lost(self) -> set[str]:
        """Return the runs that were lost on a busy machine; each is executed alone, perhaps after all others."""
        connection = await asyncpg.connect(self.cluster.addresses["postgres"])
        try:
            rows = await connection.fetch("SELECT run_id FROM read_v1.runs WHERE deaths > 0")
        finally:
            await connection.close()
        return {str(row["run_id"]) for row in rows}

    @asynccontextmanager
    async def busy(self) -> AsyncGenerator[None]:
        """Run one writing and one reading client for the length of the block."""
        stop = asyncio.Event()
        reading = asyncio.create_task(self._read(stop))
        writing = asyncio.create_task(self._write(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(reading, writing)

    async def _write(self, stop: asyncio.Event) -> None:
        client = Client(self.cluster.url, f"writer-{time.monotonic_ns()}", self.notes)
        while not stop.is_set():
            thread = await client.thread()
            run = await client.start(thread, {"name": "during"}, {"stream_resumable": True})
            self.batch[run] = thread
            await client.look(thread, run, with_token=True)
            await pace(stop)

    async def _read(self, stop: asyncio.Event) -> None:
        client = Client(self.cluster.url, f"reader-{time.monotonic_ns()}", self.notes)
        while not stop.is_set():
            for run, thread in list(self.batch.items())[::5]:
                await client.look(thread, run)
                await pace(stop)

    async def ends(self, within_s: float = END_S) -> None:
        """Wait until all runs of the batch have ended."""
        left = dict(self.batch)
        async with asyncio.timeout(within_s):
            while left:
                for run, thread in list(left.items()):
                    if await self.ana.look(thread, run) in ("success", "error", "interrupted", "timeout"):
                        del left[run]
                if left:
                    await asyncio.sleep(LOOK_EVERY_S)
        self.notes.shown = [await self.ana.show(thread) for thread in self.batch.values()]

    async def judged(self, stream_every: int = 4, gone: Collection[str] = (), *, ended: bool = True) -> Verdicts:
        """Run the checker over the whole log and all recorded answers; every run of the batch must succeed.

        `gone`: runs that were removed from the log. `ended`: all other runs must have ended too.
        """
        cluster, notes = self.cluster, self.notes
        notes.effects = [one for one in effects(cluster.steps()) if one.run_id not in gone]
        for run, thread in list(self.batch.items())[::stream_every]:
            notes.streams[run] = await self.ana.stream(thread, run)
        notes.queued = await read_settled_queue(cluster.kafka, cluster.addresses["valkey"])
        _, found = await judged_well(cluster.kafka, cluster.addresses["postgres"], notes, ended=ended)
        assert {run: found.runs[run] for run in self.batch} == dict.fromkeys(self.batch, "success")
        return found


async def pace(stop: asyncio.Event, seconds: float = LOOK_EVERY_S) -> None:
    """Pause between two requests."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition, at most this number of seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)


async def lasting(seconds: float) -> None:
    """Wait while a fault lasts."""
    await pace(asyncio.Event(), seconds)


def held(cluster: Cluster, step: str) -> set[str]:
    """Return the runs that have started a step."""
    return {line["run_id"] for line in cluster.steps() if line["step"] == step}


def held_at(cluster: Cluster, step: str, runs: Collection[str]) -> int:
    """Return how many of the runs have started a step."""
    return len(held(cluster, step) & set(runs))


def taken_over(env: FaultsEnv, worker: int) -> int:
    """Return how many runs of the batch are now executed by another process than this one."""
    others = {line["run_id"] for line in env.cluster.steps() if str(line["pid"]) != str(worker)}
    return len(others & env.batch.keys())


async def claimed_and_queued(cluster: Cluster, runs: Collection[str]) -> tuple[int, int]:
    """Return the numbers of claimed and of queued runs, from the log."""
    judged = judge(await read_topic(cluster.kafka, "agentlog.events"))
    statuses = Counter(
        status for thread in folded(judged).values() for run, status in thread.runs.items() if run in runs
    )
    return statuses["running"], statuses["pending"]
