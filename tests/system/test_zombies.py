"""Workers stopped for longer than their leases, then continued: what they still write is void and never shown."""

import signal
import time

import pytest
from tests.broker.servers import producer
from tests.system.checker.fold import Judged, judge
from tests.system.checker.frames import streams
from tests.system.checker.judgement import judged_well
from tests.system.checker.records import Record, read_topic
from tests.system.cluster import running_cluster
from tests.system.test_faults import END_S, Scene, until

FEW, MANY = 20, 200
STEP_MS = 400
LATE = frozenset({"stale_epoch", "version_conflict", "no_such_run", "gone"})
"""Why the guard refuses a zombie: its claim is over, or another attempt has written, or the run has ended."""
LATE_FRAMES = b'{"spec":1,"frames":[{"event":"values","data":{"done":["zombie"]},"ns":""}]}'


@pytest.mark.timeout(400)
async def test_a_worker_that_wakes_up_after_its_lease_writes_in_vain(full: bool) -> None:
    runs = MANY if full else FEW
    with running_cluster({"N_JOBS_PER_WORKER": str(runs)}, workers=1) as cluster:
        scene = Scene(cluster)
        await scene.set_off(runs, sleep_ms=STEP_MS)
        zombie = cluster.pids("worker")[0]
        cluster.signal_pids([zombie], signal.SIGSTOP)
        stopped = time.monotonic()
        cluster.start_roles(["worker-2"])
        await until(lambda: taken_over(scene, zombie) >= runs // 2, END_S, "others execute its runs")
        cluster.signal_pids([zombie], signal.SIGCONT)
        woken = time.monotonic()
        forged = await send_late_flushes(cluster.addresses["broker"])
        await scene.ends()
        await scene.judged(stream_every=1)
        events, found = await judged_well(cluster.addresses["broker"], cluster.addresses["postgres"])
        outputs = await read_topic(cluster.addresses["broker"], "agentlog.outputs")
        late_flushes = sum(told.late for told in streams(events, outputs).values())
        assert len(scene.notes.streams) == runs
    void = [one for one in events if one.verdict in LATE and one.epoch is not None]
    print(
        f"zombies: {runs} runs, asleep {woken - stopped:.1f} s, {len(void)} void writes of {len(runs_of(void))} runs "
        f"({dict(found.voids)}), {late_flushes} flushes never shown"
    )
    assert any(one.verdict == "stale_epoch" for one in void), "the zombie wrote nothing: the test does not bite"
    assert max(found.attempts.values()) >= 2
    assert late_flushes >= len(forged) > 0, "no flush came late: the test does not bite"


async def send_late_flushes(bootstrap: str) -> list[str]:
    """Deliver, for every run whose next attempt has spoken, a flush of the attempt before, as a slow network does."""
    epochs: dict[str, list[int]] = {}
    for one in judge(await read_topic(bootstrap, "agentlog.events")):
        for kind, data in one.facts if one.verdict == "accepted" else ():
            if kind == "RunClaimed":
                epochs.setdefault(str(data["run_id"]), []).append(one.version)
    late: dict[str, Record] = {}
    for flush in await read_topic(bootstrap, "agentlog.outputs"):
        run_id = flush.headers.get("run_id", "")
        if len(epochs.get(run_id, ())) > 1 and flush.headers.get("epoch") == str(epochs[run_id][-1]):
            late[run_id] = flush
    async with producer(bootstrap) as client:
        for run_id, flush in late.items():
            headers = [("run_id", run_id), ("epoch", str(epochs[run_id][0])), ("n", "999")]
            await client.send_and_wait(
                "agentlog.outputs",
                LATE_FRAMES,
                flush.key.encode(),
                partition=flush.partition,
                headers=[(name, text.encode()) for name, text in headers],
            )
    return sorted(late)


def taken_over(scene: Scene, zombie: int) -> int:
    """Return how many runs another process executes."""
    return len({line["run_id"] for line in scene.cluster.steps() if str(line["pid"]) != str(zombie)})


def runs_of(judged: list[Judged]) -> set[str]:
    """Return the runs that commits under an epoch are about."""
    return {str(data["run_id"]) for one in judged for _, data in one.facts if data.get("run_id")}
