"""System tests of workers that are paused for longer than their leases: their later writes are void and never shown.

Writes to the store are not fenced; they carry the id of their attempt.
"""

import asyncio
import json
import signal
import time
from collections.abc import Mapping, Sequence
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from tests.system.checker.fold import Judged, judge
from tests.system.checker.frames import releases, streams, unfenced_releases
from tests.system.checker.items import items
from tests.system.checker.judgement import judged_well
from tests.system.checker.records import Record, client_options, read_topic
from tests.system.cluster import running_cluster
from tests.system.faults_env import END_S, FaultsEnv, held_at, taken_over, until

from agentlog_infra.examples.example_steps import STEPS

FEW, MANY = 20, 200
STEP_MS = 400
ALONE_S = 3.0
"""Longest time of a run of five steps that is executed alone, as each lost run is."""
LATE = frozenset({"stale_epoch", "version_conflict", "no_such_run", "gone"})
"""Reasons for which the guard refuses a zombie: its claim or run has ended, or another attempt has written."""
LATE_FRAMES = b'{"spec":1,"frames":[{"event":"values","data":{"done":["zombie"]},"ns":""}]}'


@pytest.mark.timeout(1200)
async def test_a_worker_that_wakes_up_after_its_lease_writes_in_vain(full: bool) -> None:
    runs = MANY if full else FEW
    with running_cluster({"N_JOBS_PER_WORKER": str(runs)}, workers=1) as cluster:
        env = FaultsEnv(cluster)
        await env.set_off(runs, sleep_ms=STEP_MS, remember="zombies")
        await until(lambda: held_at(cluster, "three", env.batch) >= FEW // 2, END_S, "many are about to put an item")
        zombie = cluster.living("worker")[0]
        cluster.signal_pids([zombie], signal.SIGSTOP)
        stopped = time.monotonic()
        cluster.start_roles(["worker-2"])
        bootstrap = cluster.kafka
        await all_released(bootstrap, runs)
        await until(lambda: taken_over(env, zombie) > 1, 2 * END_S, "another one executes its runs, one at a time")
        cluster.signal_pids([zombie], signal.SIGCONT)
        woken = time.monotonic()
        forged = await send_late_flushes(bootstrap, await overtaken(bootstrap))
        commits = await send_late_commits(bootstrap, await overtaken(bootstrap))
        await env.ends(END_S + runs * ALONE_S)
        await env.judged(stream_every=1)
        events, found = await judged_well(bootstrap, cluster.addresses["postgres"])
        outputs = await read_topic(bootstrap, "agentlog.outputs")
        late_flushes = sum(told.late for told in streams(events, outputs).values())
        assert len(env.notes.streams) == runs
    void = [one for one in events if one.verdict in LATE and one.epoch is not None]
    written = items(events)
    late = [item for item in written if item.late]
    in_time = {(item.run_id, item.key) for item in written if not item.late}
    print(
        f"zombies: {runs} runs, asleep {woken - stopped:.1f} s, {len(void)} void writes of {len(runs_of(void))} runs "
        f"({dict(found.voids)}), {late_flushes} flushes never shown, "
        f"{len(late)} of {len(written)} items put late"
    )
    stale = [one for one in void if one.verdict == "stale_epoch"]
    assert len(stale) >= len(commits) > 0, "no commit came late: the test does not bite"
    assert min(found.attempts.values()) >= 2, "a run of the zombie was not taken over"
    assert unfenced_releases(events, outputs) == []
    assert late_flushes >= len(forged) > 0, "no flush came late: the test does not bite"
    assert late, "the zombie put no item: the test does not bite"
    first = {run_id: epoch for run_id, epoch in reversed(list(claims(events)))}
    assert {item.epoch - first[item.run_id] for item in late} == {0}, "an item that came late names another attempt"
    assert in_time == {(run_id, step) for run_id in env.batch for step in STEPS}


@pytest.mark.timeout(1200)
async def test_a_worker_alone_that_wakes_before_anybody_else_has_spoken_is_not_heard(full: bool) -> None:
    runs = MANY if full else FEW
    with running_cluster({"N_JOBS_PER_WORKER": str(runs)}, workers=1) as cluster:
        env = FaultsEnv(cluster)
        await env.set_off(runs, sleep_ms=STEP_MS)
        zombie = cluster.living("worker")
        cluster.signal_pids(zombie, signal.SIGSTOP)
        live = {run: asyncio.ensure_future(env.ana.stream(thread, run)) for run, thread in env.batch.items()}
        bootstrap = cluster.kafka
        await all_released(bootstrap, runs)
        forged = await send_late_flushes(bootstrap, ended_epochs(judge(await read_topic(bootstrap, "agentlog.events"))))
        cluster.signal_pids(zombie, signal.SIGCONT)
        await env.ends(END_S + runs * ALONE_S)
        found = await env.judged(stream_every=1)
        events = judge(await read_topic(bootstrap, "agentlog.events"))
        outputs = await read_topic(bootstrap, "agentlog.outputs")
        heard = {run: await told for run, told in live.items()}
    late = early_flushes(events, outputs)
    print(f"a worker alone: {runs} runs, {late} flushes before anybody else spoke, {dict(found.voids)} void")
    assert heard == env.notes.streams, "who was there saw something else than who came later"
    assert unfenced_releases(events, outputs) == []
    assert min(found.attempts.values()) >= 2
    assert late >= len(forged) == runs, "no flush came early: the test does not bite"


async def all_released(bootstrap: str, runs: int) -> None:
    """Wait until the log has this number of releases."""
    async with asyncio.timeout(END_S):
        while len(releases(judge(await read_topic(bootstrap, "agentlog.events")))) < runs:
            await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.05)


def ended_epochs(judged: Sequence[Judged]) -> dict[str, int]:
    """Return run -> its first epoch that was released."""
    return {run_id: epoch for run_id, epoch in reversed(list(releases(judged).values()))}


def early_flushes(judged: Sequence[Judged], outputs: Sequence[Record]) -> int:
    """Count flushes of released epochs before the first flush of the next attempt of their run."""
    over, fenced, count = ended_epochs(judged), set[str](), 0
    for flush in outputs:
        run_id, epoch = flush.headers.get("run_id", ""), flush.headers.get("epoch")
        if epoch == str(over.get(run_id)):
            count += run_id in fenced and "release" not in flush.headers
            fenced |= {run_id} if "release" in flush.headers else set()
        elif "of" not in flush.headers:
            over.pop(run_id, None)
    return count


def claims(judged: Sequence[Judged]) -> list[tuple[str, int]]:
    """Return (run, epoch) of every claim, in log order."""
    return [
        (str(data["run_id"]), one.version)
        for one in judged
        for kind, data in (one.facts if one.verdict == "accepted" else ())
        if kind == "RunClaimed"
    ]


async def overtaken(bootstrap: str) -> dict[str, int]:
    """Return run -> its first epoch, for every run whose last attempt is another one and has written already."""
    epochs: dict[str, list[int]] = {}
    for run_id, epoch in claims(judge(await read_topic(bootstrap, "agentlog.events"))):
        epochs.setdefault(run_id, []).append(epoch)
    spoken = {
        (f.headers.get("run_id"), f.headers.get("epoch")) for f in await read_topic(bootstrap, "agentlog.outputs")
    }
    return {run: found[0] for run, found in epochs.items() if len(found) > 1 and (run, str(found[-1])) in spoken}


async def send_late_flushes(bootstrap: str, epochs: Mapping[str, int]) -> list[str]:
    """Append a late flush of each run's epoch, as a slow network does."""
    late = {flush.headers.get("run_id", ""): flush for flush in await read_topic(bootstrap, "agentlog.outputs")}
    async with AIOKafkaProducer(**client_options(bootstrap)) as client:
        for run_id, epoch in epochs.items():
            headers = [("run_id", run_id), ("epoch", str(epoch)), ("n", "999")]
            await client.send_and_wait(
                "agentlog.outputs",
                LATE_FRAMES,
                late[run_id].key.encode(),
                partition=late[run_id].partition,
                headers=[(name, text.encode()) for name, text in headers],
            )
    return sorted(epochs)


async def send_late_commits(bootstrap: str, epochs: Mapping[str, int]) -> list[str]:
    """Append a late commit of each run's epoch, a copy of one that was in time, and return their event ids."""
    saved: dict[str, Record] = {}
    for one in judge(await read_topic(bootstrap, "agentlog.events")):
        if one.verdict == "accepted" and one.stream.startswith("run-"):
            saved.setdefault(one.stream.removeprefix("run-"), one.record)
    sent: list[str] = []
    async with AIOKafkaProducer(**client_options(bootstrap)) as client:
        for run_id, epoch in epochs.items():
            record = saved[run_id]
            assert record.value["epoch"] == epoch
            sent.append(str(uuid4()))
            value = {**record.value, "event_id": sent[-1], "append_id": str(uuid4()), "demands": {}}
            await client.send_and_wait(
                "agentlog.events",
                json.dumps(value).encode(),
                record.key.encode(),
                partition=record.partition,
                headers=[(name, text.encode()) for name, text in record.headers.items()],
            )
    return sent


def runs_of(judged: list[Judged]) -> set[str]:
    """Return the runs of the commits under an epoch."""
    return {str(data["run_id"]) for one in judged for _, data in one.facts if data.get("run_id")}
