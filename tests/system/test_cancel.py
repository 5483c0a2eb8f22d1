"""System tests of an accepted cancel whose run has not stopped yet: every client sees the run as ended."""

import asyncio
import signal
from collections.abc import Generator

import pytest
from aiohttp import ClientSession
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.checker.judgement import judged_well
from tests.system.cluster import Cluster, running_cluster
from tests.system.runs_env import Gate, done_of, refused, run_status, thread_status

from agentlog_facts.json_value import JsonObject, as_object, dump

ALL_STEPS = ["one", "two", "three", "four", "five"]


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster]:
    """Yield a cluster with one worker, which has long leases: a paused worker is not lost."""
    with running_cluster({"AGENTLOG_LEASE_TTL_SECS": "60"}, workers=1) as running:
        yield running


async def paused(cluster: Cluster, api: Api, action: str) -> tuple[str, str, Gate]:
    """Cancel a run whose worker is paused, so that it cannot stop; return thread, run and its gate."""
    thread_id, gate = await api.thread(), Gate(cluster)
    run_id = await api.start_run(thread_id, "steps", gate.held())
    await until(lambda: gate.began(cluster))
    cluster.signal_role("worker", signal.SIGSTOP)
    status, content = await api.raw("POST", f"/threads/{thread_id}/runs/{run_id}/cancel?action={action}")
    assert (status, content) == (202, b"")
    return thread_id, run_id, gate


async def test_an_interrupted_run_shows_its_end_from_the_answer_on(cluster: Cluster) -> None:
    api = Api(cluster.url)
    thread_id, run_id, _ = await paused(cluster, api, "interrupt")
    path = f"/threads/{thread_id}"
    try:
        assert await run_status(api, thread_id, run_id) == "interrupted"
        assert await thread_status(api, thread_id) == "interrupted"
        again = await refused(api, "POST", f"{path}/runs/{run_id}/cancel")
        assert (again[0], again[1].startswith("No matching runs to cancel.")) == (404, True)
        writing = asyncio.create_task(api.raw("POST", f"{path}/state", dump({"values": {"name": "edited"}})))
        done, _ = await asyncio.wait({writing}, timeout=0.3)
        assert not done, "an update of the state waits for the end"
    finally:
        cluster.signal_role("worker", signal.SIGCONT)
    assert (await writing)[0] == 200
    state = await api.get(f"{path}/state")
    assert (as_object(state["values"])["name"], done_of(state["values"])) == ("edited", ["one"])
    history = await api.call("GET", f"{path}/history?limit=100")
    assert "CancelledError" not in dump(history).decode()
    await judged_well(cluster.kafka, cluster.postgres)


async def test_a_cancel_without_an_id_leaves_the_queue_alone_while_the_cancelled_run_stops(cluster: Cluster) -> None:
    api = Api(cluster.url)
    thread_id, run_id, gate = await paused(cluster, api, "interrupt")
    try:
        queued = await api.start_run(thread_id, "steps", {"name": "queued"})
        url = f"{cluster.url}/threads/{thread_id}/runs/cancel"
        for _ in range(2):
            async with ClientSession() as session, session.post(url) as told:
                assert (told.status, await told.read()) == (202, b"")
                assert told.headers["Content-Location"] == f"/threads/{thread_id}/runs/{run_id}"
    finally:
        cluster.signal_role("worker", signal.SIGCONT)
    gate.open()  # the state of the thread still has it
    await api.join(thread_id, queued)
    assert await run_status(api, thread_id, queued) == "success"
    await judged_well(cluster.kafka, cluster.postgres)


async def test_a_run_that_rejects_others_is_accepted_behind_a_cancel_and_waits_for_its_end(cluster: Cluster) -> None:
    api = Api(cluster.url)
    thread_id, run_id, gate = await paused(cluster, api, "interrupt")
    body: JsonObject = {"assistant_id": "steps", "input": {}, "multitask_strategy": "reject"}
    try:
        next_id = str(as_object(await api.call("POST", f"/threads/{thread_id}/runs", body))["run_id"])
        assert await thread_status(api, thread_id) == "busy"
        gate.open()  # the state names it, so the next run would wait there too
    finally:
        cluster.signal_role("worker", signal.SIGCONT)
    done = done_of(await api.join(thread_id, next_id))
    assert isinstance(done, list)
    assert done[-5:] == ALL_STEPS
    assert await run_status(api, thread_id, run_id) == "interrupted"


async def test_a_run_to_be_rolled_back_is_gone_from_the_answer_on(cluster: Cluster) -> None:
    api = Api(cluster.url)
    thread_id, run_id, _ = await paused(cluster, api, "rollback")
    path = f"/threads/{thread_id}/runs"
    try:
        assert await refused(api, "GET", f"{path}/{run_id}") == (404, "Not Found")
        assert await api.call("GET", path) == []
        assert await thread_status(api, thread_id) == "idle"
        joining = asyncio.create_task(api.join(thread_id, run_id))
        done, _ = await asyncio.wait({joining}, timeout=0.3)
        assert not done, "a joining client waits for the real end"
    finally:
        cluster.signal_role("worker", signal.SIGCONT)
    assert await joining == {}
    assert (await api.get(f"/threads/{thread_id}"))["values"] in (None, {})
