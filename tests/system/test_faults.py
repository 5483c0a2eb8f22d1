"""Faults, one by one, with 20 five-node runs in flight: 0 lost, 0 doubled, 0 stuck, every answer as the log demands."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Generator, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis
from tests.system.checker.fold import Judged, judge
from tests.system.checker.invariants import Verdicts
from tests.system.checker.judgement import judged_well
from tests.system.checker.notes import Notes
from tests.system.checker.records import read_topic
from tests.system.checker.rows import read_ledger, read_queue, ready_runs, wrong_queue
from tests.system.checker.views import folded
from tests.system.cluster import Cluster, running_cluster
from tests.system.noted import Client, effects

from agentlog_facts.json_value import Json, JsonObject

RUNS = 20
FEW = 6
STEP_MS = 150
END_S = 60.0
PAUSE_S = 3.5
"""How long what is paused stands still: longer than a lease here."""
LOOK_EVERY_S = 0.05
SIZES = {"N_JOBS_PER_WORKER": "10", "AGENTLOG_REQUEST_DEADLINE_SECS": "8"}
SMALL_ABSENCE_S, FULL_ABSENCE_S = 4.0, 20.0


class Scene:
    """A cluster, what was noted beside it since it began, and the batch of runs that is in flight."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.notes = Notes()
        self.ana = Client(cluster.url, "ana", self.notes)
        self.batch: dict[str, str] = {}

    def forget_notes(self) -> None:
        """Note anew from here on."""
        self.notes = self.ana.notes = Notes(all_threads=False)

    async def begin(self, runs: int = RUNS, **data: Json) -> None:
        """Start a batch of runs on threads of their own, all at once."""
        asking = [Client(self.cluster.url, f"starter-{number}", self.notes) for number in range(8)]
        self.batch = {}

        async def one(number: int) -> None:
            client = asking[number % len(asking)]
            thread = await client.thread()
            work: JsonObject = {"sleep_ms": STEP_MS, "name": str(number), **data}
            self.batch[await client.start(thread, work, {"stream_resumable": True})] = thread

        await asyncio.gather(*(one(number) for number in range(runs)))

    async def set_off(self, runs: int = RUNS, **data: Json) -> None:
        """Start a batch and let it go once all of it is in flight: in the second of five steps."""
        await until(self.cluster.settled, END_S, "all roles are back from the fault before")
        gate = f"gate-{time.monotonic_ns()}"
        await self.begin(runs, hold={"two": gate}, **data)
        await until(lambda: held_at(self.cluster, "two", self.batch) == runs, END_S, "all runs are in flight")
        (self.cluster.gates / gate).touch()

    @asynccontextmanager
    async def busy(self) -> AsyncGenerator[None]:
        """Have a client write and another read all the while."""
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

    async def ends(self) -> None:
        """Wait until all runs of the batch have ended; show what is left."""
        left = dict(self.batch)
        async with asyncio.timeout(END_S):
            while left:
                for run, thread in list(left.items()):
                    if await self.ana.look(thread, run) in ("success", "error", "interrupted", "timeout"):
                        del left[run]
                if left:
                    await asyncio.sleep(LOOK_EVERY_S)
        self.notes.shown = [await self.ana.show(thread) for thread in self.batch.values()]

    async def judged(self, stream_every: int = 4, gone: Collection[str] = ()) -> Verdicts:
        """Let the checker judge the whole log and all notes; every run has to be a success.

        `gone`: runs that were taken off the log by hand.
        """
        cluster, notes = self.cluster, self.notes
        notes.effects = [one for one in effects(cluster.steps()) if one.run_id not in gone]
        for run, thread in list(self.batch.items())[::stream_every]:
            notes.streams[run] = await self.ana.stream(thread, run)
        notes.queued = await read_queue(cluster.addresses["valkey"])
        _, found = await judged_well(cluster.addresses["broker"], cluster.addresses["postgres"], notes)
        assert {run: found.runs[run] for run in self.batch} == dict.fromkeys(self.batch, "success")
        return found


async def pace(stop: asyncio.Event, seconds: float = LOOK_EVERY_S) -> None:
    """Let the server breathe between two requests."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition, at most so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster]:
    """Give one server for all faults, one after the other."""
    with running_cluster(SIZES) as running:
        yield running


@pytest.fixture(scope="module")
def scene(cluster: Cluster) -> Scene:
    """Give the notes of all faults."""
    return Scene(cluster)


async def lasting(seconds: float) -> None:
    """Let a fault last."""
    await pace(asyncio.Event(), seconds)


Fault = Callable[[Cluster, float], Awaitable[None]]


def killed(*names: str) -> Fault:
    async def fault(cluster: Cluster, absence_s: float) -> None:
        for name in names:
            cluster.strike(name, signal.SIGKILL)

    return fault


def paused(*names: str) -> Fault:
    async def fault(cluster: Cluster, absence_s: float) -> None:
        pids = [pid for name in names for pid in cluster.living(name)]
        cluster.signal_pids(pids, signal.SIGSTOP)
        await lasting(PAUSE_S)
        cluster.signal_pids(pids, signal.SIGCONT)

    return fault


def absent(name: str) -> Fault:
    async def fault(cluster: Cluster, absence_s: float) -> None:
        await asyncio.to_thread(cluster.hold, name)
        await lasting(absence_s)
        await asyncio.to_thread(cluster.bring_back, name)

    return fault


async def all_killed(cluster: Cluster, absence_s: float) -> None:
    await asyncio.to_thread(cluster.kill_everything)
    await asyncio.to_thread(cluster.start_again)


async def all_paused(cluster: Cluster, absence_s: float) -> None:
    cluster.signal_all(signal.SIGSTOP)
    await lasting(PAUSE_S)
    cluster.signal_all(signal.SIGCONT)


PARTS = ("worker", "projector", "gateway", "housekeeper", "broker", "postgres", "valkey")
FAULTS: dict[str, Fault] = {
    **{f"kill {name}": killed(name) for name in PARTS},
    **{f"pause {name}": paused(name) for name in PARTS},
    "kill all roles": killed("worker", "projector", "gateway", "housekeeper"),
    "kill all": all_killed,
    "pause all": all_paused,
    **{f"absent {name}": absent(name) for name in ("broker", "postgres", "valkey")},
}
TAKES_RUNS_AWAY = {"kill worker", "pause worker", "kill all roles", "kill all"}
SMALL = {"kill worker", "kill broker", "kill all", "pause postgres", "absent valkey"}
"""The rest runs with --full; the zombies' test pauses a worker in both sizes."""


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SMALL else [pytest.mark.full]) for name in FAULTS]
)
async def test_after_a_fault_every_run_ends_once_and_every_answer_is_the_logs(
    name: str, scene: Scene, full: bool
) -> None:
    began = time.monotonic()
    await scene.set_off()
    struck = time.monotonic()
    async with scene.busy():
        await FAULTS[name](scene.cluster, FULL_ABSENCE_S if full else SMALL_ABSENCE_S)
        healed = time.monotonic()
        await asyncio.to_thread(scene.cluster.wait_ok)
        await lasting(0.5)
    await scene.ends()
    ended = time.monotonic()
    found = await scene.judged()
    attempts = max(found.attempts[run] for run in scene.batch)
    assert attempts >= 2 or name not in TAKES_RUNS_AWAY, "the fault hit no run"
    ended_themselves = {
        role: [status for status in ends if status != -9] for role, ends in scene.cluster.ends().items()
    }
    assert not any(ended_themselves.values()), f"roles ended by themselves: {ended_themselves}"
    print(
        f"fault {name}: started {struck - began:.1f} s, fault {healed - struck:.1f} s, all ended {ended - healed:.1f} s"
        f" later, judged {time.monotonic() - ended:.1f} s; attempts {attempts}, voids {dict(found.voids)}"
        f" exits {scene.cluster.ends()}"
    )


FLUSHED, AT_ONCE = 60, 20
WRITERS = 40


@pytest.mark.timeout(240)
async def test_a_flushed_redis_under_running_and_pending_runs_loses_none(scene: Scene) -> None:
    cluster, gate = scene.cluster, f"gate-{time.monotonic_ns()}"
    await scene.begin(FLUSHED, sleep_ms=0, hold={"two": gate})
    await until(lambda: held_at(cluster, "two", scene.batch) == AT_ONCE, END_S, "as many run as may")
    flushed = time.monotonic()
    async with Redis.from_url(cluster.addresses["valkey"]) as client:
        await client.flushall()
    running, pending = standing(judge(await read_topic(cluster.addresses["broker"], "agentlog.events")), scene.batch)
    assert running >= 10
    assert pending >= 40
    await queue_is_whole(cluster)
    queued = time.monotonic()
    (cluster.gates / gate).touch()
    await scene.ends()
    print(f"flushed under {running} running, {pending} pending: queue whole after {queued - flushed:.1f} s")
    found = await scene.judged()
    assert {found.attempts[run] for run in scene.batch} == {1}, "a run was executed again although no worker was away"


def held_at(cluster: Cluster, step: str, runs: Collection[str]) -> int:
    """Return how many of the runs began a step."""
    return len({line["run_id"] for line in cluster.steps() if line["step"] == step} & set(runs))


def standing(judged: Sequence[Judged], runs: Collection[str]) -> tuple[int, int]:
    """Return how many of the runs are claimed and how many wait, as the log has it."""
    statuses = Counter(
        status for thread in folded(judged).values() for run, status in thread.runs.items() if run in runs
    )
    return statuses["running"], statuses["pending"]


async def queue_is_whole(cluster: Cluster) -> None:
    """Wait until the queue holds exactly the runs that may be claimed, while no worker has room for one."""
    async with asyncio.timeout(END_S):
        while True:
            events = judge(await read_topic(cluster.addresses["broker"], "agentlog.events"))
            wrong = wrong_queue(events, await read_queue(cluster.addresses["valkey"]))
            if ready_runs(events) and not wrong:
                return
            await asyncio.sleep(LOOK_EVERY_S)


async def finish(scene: Scene) -> Verdicts:
    """Let a few runs come to their ends undisturbed."""
    await scene.begin(FEW, sleep_ms=0)
    await scene.ends()
    return await scene.judged()


@pytest.mark.timeout(240)
async def test_a_database_restored_from_an_older_copy_does_nothing_twice(scene: Scene) -> None:
    cluster = scene.cluster
    await finish(scene)
    await asyncio.to_thread(cluster.stop_server, "postgres")
    cluster.copy("postgres", "older-rows")
    await asyncio.to_thread(cluster.bring_back, "postgres")
    await finish(scene)  # what the copy does not know: runs that ended
    known = dict(scene.batch)
    await scene.set_off()  # and runs in flight
    began = time.monotonic()
    await asyncio.to_thread(cluster.stop_server, "postgres")
    cluster.restore("postgres", "older-rows")
    await asyncio.to_thread(cluster.bring_back, "postgres")
    await scene.ends()
    print(f"database restored: all ended {time.monotonic() - began:.1f} s after it stopped")
    scene.batch |= known
    found = await scene.judged()
    assert {found.attempts[run] for run in known} == {1}


@pytest.mark.timeout(240)
async def test_a_broker_restored_from_an_older_copy_stops_the_projector_which_says_so(scene: Scene) -> None:
    cluster = scene.cluster
    await finish(scene)
    before = dict(scene.batch)
    await asyncio.to_thread(cluster.stop_server, "broker")
    cluster.copy("broker", "older-log")
    await asyncio.to_thread(cluster.bring_back, "broker")
    await finish(scene)
    lost = set(scene.batch)
    rows = await read_ledger(cluster.addresses["postgres"])
    await asyncio.to_thread(cluster.stop_server, "broker")
    cluster.restore("broker", "older-log")
    began = time.monotonic()
    stop = asyncio.Event()
    writing = asyncio.create_task(write_until(stop, scene))
    await lasting(1.0)
    await asyncio.to_thread(cluster.bring_back, "broker")
    await until(lambda: "log diverged" in cluster.said("projector"), END_S, "the projector says that it diverged")
    told = time.monotonic()
    stop.set()
    statuses = await writing
    assert await refused_writes(scene) == {503}, "a write was taken although its verdict can never come"
    folded_since = await keys_folded_since(cluster, rows)
    answered = {thread for thread, status in statuses.items() if status < 300}
    assert answered <= folded_since, "a write was answered with the verdict over a record that is on the log no more"
    assert set(statuses.values()) <= {200, 503, 504}
    done = await asyncio.to_thread(cluster.run, "rebuild", "--accept-differences")
    assert done.returncode == 0, done.stdout + done.stderr
    print(
        f"log diverged: said {told - began:.1f} s after the start, rebuilt {time.monotonic() - told:.1f} s later;"
        f" writes meanwhile: {dict(Counter(statuses.values()))}"
    )
    scene.forget_notes()  # what was promised on the lost log is gone with it; what is there has to be whole
    scene.batch = before
    await asyncio.to_thread(cluster.wait_ok)
    await scene.ends()
    await scene.judged(gone=lost)
    await scene.begin(FEW, sleep_ms=0)
    await scene.ends()
    await scene.judged(gone=lost)


async def write_until(stop: asyncio.Event, scene: Scene) -> dict[str, int]:
    """Create threads, one after the other by each writer; return the status of each."""
    statuses: dict[str, int] = {}

    async def write() -> None:
        while not stop.is_set():
            name = str(uuid4())
            statuses[name] = await scene.ana.try_once("POST", "/threads", {"thread_id": name})
            await pace(stop)

    await asyncio.gather(*(write() for _ in range(WRITERS)))
    return statuses


async def keys_folded_since(cluster: Cluster, rows: Collection[tuple[int, int]]) -> set[str]:
    """Return the keys of what was folded besides these rows; on a partition that diverged that has to be nothing."""
    connection = await asyncpg.connect(cluster.addresses["postgres"])
    try:
        index = await connection.fetch('SELECT partition, "offset", key FROM ledger.log_index')
        stopped = await connection.fetch("SELECT partition FROM ledger.positions WHERE stopped IS NOT NULL")
    finally:
        await connection.close()
    assert stopped
    new = [row for row in index if (row["partition"], row["offset"]) not in rows]
    assert len(index) == len(rows) + len(new), "rows are gone"
    assert not {row["partition"] for row in new} & {row["partition"] for row in stopped}, (
        "folded on a log that diverged"
    )
    return {row["key"] for row in new}


async def refused_writes(scene: Scene) -> set[int]:
    """Write on threads of which the log lost commits; return the statuses."""
    found: set[int] = set()
    for thread in scene.batch.values():
        found.add(await scene.ana.try_once("PATCH", f"/threads/{thread}", {"metadata": {"late": True}}))
    return found
