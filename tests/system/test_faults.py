"""System tests of single faults with 20 five-node runs in flight: none lost, doubled or stuck, and correct answers."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Generator

import pytest
from redis.asyncio import Redis
from tests.system.checker.fold import judge
from tests.system.checker.records import read_topic
from tests.system.checker.rows import read_queue, ready_runs, wrong_queue
from tests.system.cluster import Cluster, running_cluster
from tests.system.faults_env import END_S, SIZES, FaultsEnv, claimed_and_queued, held_at, lasting, until

PAUSE_S = 3.5
"""The length of a pause: longer than a lease here."""
LOOK_EVERY_S = 0.05
SMALL_ABSENCE_S, FULL_ABSENCE_S = 4.0, 20.0


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster]:
    """Yield one server for all faults, one after the other."""
    with running_cluster(SIZES) as running:
        yield running


@pytest.fixture(scope="module")
def env(cluster: Cluster) -> FaultsEnv:
    """Return the recorded answers of all faults."""
    return FaultsEnv(cluster)


Fault = Callable[[Cluster, float], Awaitable[None]]


def killed(*names: str) -> Fault:
    async def fault(cluster: Cluster, absence_s: float) -> None:
        for name in names:
            cluster.signal_role(name, signal.SIGKILL)

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


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", FAULTS)
async def test_after_a_fault_every_run_ends_once_and_every_answer_is_the_logs(
    name: str, env: FaultsEnv, full: bool
) -> None:
    began = time.monotonic()
    await env.set_off()
    struck = time.monotonic()
    async with env.busy():
        await FAULTS[name](env.cluster, FULL_ABSENCE_S if full else SMALL_ABSENCE_S)
        healed = time.monotonic()
        await asyncio.to_thread(env.cluster.wait_ok)
        await lasting(0.5)
    await env.ends()
    ended = time.monotonic()
    found = await env.judged()
    attempts = max(found.attempts[run] for run in env.batch)
    assert attempts >= 2 or name not in TAKES_RUNS_AWAY, "the fault hit no run"
    ended_themselves = {role: [status for status in ends if status != -9] for role, ends in env.cluster.ends().items()}
    assert not any(ended_themselves.values()), f"roles ended by themselves: {ended_themselves}"
    print(
        f"fault {name}: started {struck - began:.1f} s, fault {healed - struck:.1f} s, all ended {ended - healed:.1f} s"
        f" later, judged {time.monotonic() - ended:.1f} s; attempts {attempts}, voids {dict(found.voids)}"
        f" exits {env.cluster.ends()}"
    )


FLUSHED, AT_ONCE = 60, 20


@pytest.mark.timeout(240)
async def test_a_flushed_redis_under_running_and_pending_runs_loses_none(env: FaultsEnv) -> None:
    cluster, gate = env.cluster, env.gate("flushed")
    await env.begin(FLUSHED, sleep_ms=0, hold={"two": gate.name})
    await until(lambda: held_at(cluster, "two", env.batch) == AT_ONCE, END_S, "as many run as may")
    flushed = time.monotonic()
    async with Redis.from_url(cluster.addresses["valkey"]) as client:
        await client.flushall()
    running, pending = await claimed_and_queued(cluster, env.batch)
    assert running >= 10
    assert pending >= 40
    await queue_is_whole(cluster)
    queued = time.monotonic()
    gate.touch()
    await env.ends()
    print(f"flushed under {running} running, {pending} pending: queue whole after {queued - flushed:.1f} s")
    found = await env.judged()
    assert {found.attempts[run] for run in env.batch} == {1}, "a run was executed again although no worker was away"


async def queue_is_whole(cluster: Cluster) -> None:
    """Wait until the queue holds exactly the claimable runs, while no worker has a free slot."""
    end = time.monotonic() + END_S
    while True:
        events = judge(await read_topic(cluster.kafka, "agentlog.events"))
        ready = ready_runs(events)
        wrong = wrong_queue(events, await read_queue(cluster.addresses["valkey"]))
        if ready and not wrong:
            return
        assert time.monotonic() < end, f"{len(ready)} runs are ready, and {wrong}"
        await asyncio.sleep(LOOK_EVERY_S)
