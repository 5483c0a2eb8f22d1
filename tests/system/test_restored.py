"""System tests of a log or rows restored from an older copy under 20 runs in flight: each run on the log ends once."""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from tests.system.checker.rows import read_ledger
from tests.system.cluster import Cluster, running_cluster
from tests.system.faults_env import END_S, RUNS, SIZES, FaultsEnv, claimed_and_queued, held_at, lasting, pace, until

FEW = 6
WRITERS = 40
KEPT, MOVED, LOST = 6, 6, 8
"""Groups of the runs in flight at the restore: unchanged since the copy, continued since, and started since."""


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster]:
    """Yield one server for both tests."""
    with running_cluster(SIZES) as running:
        yield running


@pytest.fixture(scope="module")
def env(cluster: Cluster) -> FaultsEnv:
    """Return the recorded answers of the server."""
    return FaultsEnv(cluster)


async def finish(env: FaultsEnv, *, alone: bool = True) -> dict[str, str]:
    """Run a few runs to their ends and return them; `alone`: no others are in flight."""
    await env.begin(FEW, sleep_ms=0)
    await env.ends()
    await env.judged(ended=alone)
    return dict(env.batch)


@pytest.mark.timeout(240)
async def test_a_database_restored_from_an_older_copy_does_nothing_twice(env: FaultsEnv) -> None:
    cluster = env.cluster
    await finish(env)
    await asyncio.to_thread(cluster.stop_server, "postgres")
    cluster.copy("postgres", "older-rows")
    await asyncio.to_thread(cluster.bring_back, "postgres")
    known = await finish(env)  # runs that ended after the copy
    gate = env.gate("restored")
    await env.in_flight(RUNS, gate)  # and runs in flight
    assert await claimed_and_queued(cluster, env.batch) == (RUNS, 0)
    began = time.monotonic()
    await asyncio.to_thread(cluster.stop_server, "postgres")
    gate.touch()
    cluster.restore("postgres", "older-rows")
    await asyncio.to_thread(cluster.bring_back, "postgres")
    await env.ends()
    print(f"database restored under {RUNS} runs: all ended {time.monotonic() - began:.1f} s after it stopped")
    env.batch |= known
    found = await env.judged()
    assert {found.attempts[run] for run in known} == {1}


@dataclass(frozen=True)
class Around:
    """Runs around a copy of the log, run -> thread, and the gate of those in flight.

    `before` ended before it; `kept` are unchanged since it, `moved` have continued since; `lost` are not in it.
    """

    before: dict[str, str]
    kept: dict[str, str]
    moved: dict[str, str]
    lost: dict[str, str]
    gate: Path

    @property
    def there(self) -> dict[str, str]:
        """Return the runs in the copy."""
        return {**self.before, **self.kept, **self.moved}


async def around_a_copy(env: FaultsEnv) -> Around:
    """Copy the log under runs in flight and let the server continue; RUNS are in flight then."""
    cluster, early, late = env.cluster, env.gate("early"), env.gate("late")
    before = await finish(env)
    kept = await env.in_flight(KEPT, late)
    moved = await env.in_flight(MOVED, early, late)
    await asyncio.to_thread(cluster.stop_server, "broker")
    cluster.copy("broker", "older-log")
    await asyncio.to_thread(cluster.bring_back, "broker")
    early.touch()
    await until(lambda: held_at(cluster, "four", moved) == MOVED, END_S, "runs that the copy has have gone on")
    ended = await finish(env, alone=False)
    lost = await env.in_flight(LOST, late)
    assert await claimed_and_queued(cluster, {**kept, **moved, **lost}) == (RUNS, 0)
    return Around(before, kept, moved, ended | lost, late)


@pytest.mark.timeout(240)
async def test_a_broker_restored_from_an_older_copy_is_noticed_and_what_it_holds_ends_once(env: FaultsEnv) -> None:
    cluster, runs = env.cluster, await around_a_copy(env)
    await asyncio.to_thread(cluster.stop_server, "broker")
    rows = await read_ledger(cluster.addresses["postgres"])
    runs.gate.touch()
    cluster.restore("broker", "older-log")
    began = time.monotonic()
    stop = asyncio.Event()
    writing = asyncio.create_task(write_until(stop, env))
    await lasting(1.0)
    await asyncio.to_thread(cluster.bring_back, "broker")
    await until(lambda: "log diverged" in cluster.output("projector"), END_S, "the projector says that it diverged")
    told = time.monotonic()
    stop.set()
    statuses = await writing
    assert await refused_writes(env, runs.lost) == {503}, "a write was taken although its verdict can never come"
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
    env.forget_notes()  # acknowledged writes on the lost log are lost with it; the remaining log must be complete
    await what_is_there_ends_once(env, runs)
    await env.begin(FEW, sleep_ms=0)
    await env.ends()
    await env.judged(gone=runs.lost)


async def what_is_there_ends_once(env: FaultsEnv, runs: Around) -> None:
    """Wait for the runs in the restored log, and check the results of those in flight."""
    env.batch = dict(runs.there)
    began = time.monotonic()
    await asyncio.to_thread(env.cluster.wait_ok)
    await env.ends()
    ended = time.monotonic()
    found = await env.judged(stream_every=1, gone=runs.lost)
    kept, moved = (Counter(found.attempts[run] for run in some) for some in (runs.kept, runs.moved))
    print(
        f"in flight while the log was exchanged: all ended {ended - began:.1f} s after the rebuild;"
        f" attempts: runs kept {dict(kept)}, moved {dict(moved)}; voids {dict(found.voids)}"
    )
    assert not found.runs.keys() & runs.lost, "a run is there of which the log has no beginning"
    assert {found.attempts[run] for run in runs.before} == {1}
    assert min(moved) >= 2, "an attempt ended on steps that the log has lost"


async def write_until(stop: asyncio.Event, env: FaultsEnv) -> dict[str, int]:
    """Create threads in several writers, one after the other; return the statuses."""
    statuses: dict[str, int] = {}

    async def write() -> None:
        while not stop.is_set():
            name = str(uuid4())
            statuses[name] = await env.ana.try_once("POST", "/threads", {"thread_id": name})
            await pace(stop)

    await asyncio.gather(*(write() for _ in range(WRITERS)))
    return statuses


async def keys_folded_since(cluster: Cluster, rows: Collection[tuple[int, int]]) -> set[str]:
    """Return the keys that were folded since these rows; there must be none on a partition that diverged."""
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


async def refused_writes(env: FaultsEnv, lost: Mapping[str, str]) -> set[int]:
    """Write on threads of runs that the log lost; return the statuses."""
    found: set[int] = set()
    for thread in lost.values():
        found.add(await env.ana.try_once("PATCH", f"/threads/{thread}", {"metadata": {"late": True}}))
    return found
