"""System tests of a paused worker with the default times of leases and checks; all other tests shorten them."""

import signal
from collections.abc import Sequence
from datetime import datetime

import pytest
from tests.system.checker.fold import Judged
from tests.system.checker.judgement import judged_well
from tests.system.cluster import running_cluster
from tests.system.faults_env import FaultsEnv, lasting, taken_over, until

from agentlog_infra.settings import Settings

RUNS = 10
SLOW_S = 5.0
"""The longest delay of a check on a busy machine."""
CLOCK_S = 0.5
"""The longest time between the making of a commit and its append."""


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_a_worker_may_stand_still_for_less_than_a_lease_and_is_replaced_when_it_does_for_longer() -> None:
    settings = Settings.model_construct()
    lease, lost, look = settings.lease_ttl_secs, settings.lost_after_secs, settings.look_secs
    longest = max(lost, lease) + 2 * look + SLOW_S
    with running_cluster({"N_JOBS_PER_WORKER": str(RUNS)}, workers=1, times={}) as cluster:
        env = FaultsEnv(cluster)
        await env.set_off(RUNS)
        [worker] = cluster.pids("worker")
        cluster.signal_pids([worker], signal.SIGSTOP)
        await lasting(lease / 2)
        cluster.signal_pids([worker], signal.SIGCONT)
        await env.ends()
        found = await env.judged()
        assert set(found.attempts.values()) == {1}, "a run was taken from a worker that had its lease"
        await env.set_off(RUNS)
        cluster.signal_pids([worker], signal.SIGSTOP)
        cluster.start_roles(["worker-2"])
        await until(lambda: taken_over(env, worker) == RUNS, 2 * longest, "all taken over")
        cluster.signal_pids([worker], signal.SIGCONT)
        await env.ends()
        await env.judged()
        judged, _ = await judged_well(cluster.kafka, cluster.addresses["postgres"])
    silences = silent_before_release(judged)
    print(f"default times: runs were released {min(silences):.1f} to {max(silences):.1f} s after their last commit")
    assert len(silences) == RUNS
    assert lost - CLOCK_S <= min(silences)
    assert max(silences) <= longest


def silent_before_release(judged: Sequence[Judged]) -> list[float]:
    """Return for each released claim the seconds since the worker's last commit."""
    last: dict[tuple[str, int], datetime] = {}
    found: list[float] = []
    for one in judged:
        for kind, data in one.facts if one.verdict == "accepted" else ():
            run_id, epoch = str(data.get("run_id")), one.epoch
            if kind == "RunClaimed":
                last[run_id, one.version] = one.record.appended_at
            elif kind == "RunReleased" and isinstance(data["epoch"], int):
                found.append((one.record.appended_at - last[run_id, data["epoch"]]).total_seconds())
            elif epoch is not None:
                last[run_id, epoch] = one.record.appended_at
    return found
