"""System tests of nodes that ignore a stop request: their runs end with the grace time, and threads continue."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.checker.fold import Judged, judge
from tests.system.checker.judgement import judged_well
from tests.system.checker.records import Json, read_topic
from tests.system.runs_env import Gate, done_of, run_status, thread_status
from tests.system.servers import RunningServer, running_server

from agentlog_facts.json_value import JsonObject

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
GRACE_S = 2.0
LOOK_S = 1.8
"""Shorter than the grace time, so that a request is seen before it is over; much longer than the delay of an end."""
STUCK_S = 3.0
LATE_S = 1.0
"""The longest delay of an end after the grace time: a check, two commits and the state of the last checkpoint."""
ENDED_S = 60.0
ALL_STEPS = ["one", "two", "three", "four", "five"]
SHORT = {
    "AGENTLOG_CANCEL_GRACE_SECS": str(GRACE_S),
    "AGENTLOG_STUCK_SECS": str(STUCK_S),
    "AGENTLOG_LEASE_TTL_SECS": str(3 * LOOK_S),
    "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "1",
    "N_JOBS_PER_WORKER": "12",
}
LIMIT_S = 2.0
OBEYING = ["waits_for_ever"]
WAYS = ["blocks_in_c", "never_returns", "blocks_the_loop", "swallows_cancellation"]


@dataclass
class StuckNodesEnv:
    """A server and its runs."""

    server: RunningServer
    api: Api

    async def stuck(self, how: str, thread_id: str, **more: str) -> str:
        """Start a run that gets stuck and return its id once it is stuck."""
        name = uuid4().hex
        run_id = await self.api.start_run(thread_id, "stubborn", {"how": how, "name": name}, {**more})
        await until(lambda: any(line["name"] == name for line in self.server.steps()))
        return run_id

    async def ended(self, thread_id: str, run_id: str, status: str) -> None:
        """Wait until a run has ended with this status; clients see it since the accepted request."""
        connection = await asyncpg.connect(self.server.postgres)
        try:
            await until(lambda: _is_over(connection, run_id), within_secs=ENDED_S)
        finally:
            await connection.close()
        assert await run_status(self.api, thread_id, run_id) == status

    async def check_continues(self, thread_id: str) -> None:
        """Run another run on the thread, to its end."""
        async with asyncio.timeout(60):
            body: JsonObject = {"assistant_id": "steps", "input": {}}
            values = await self.api.call("POST", f"/threads/{thread_id}/runs/wait", body)
        done = done_of(values)
        assert isinstance(done, list)
        assert done[-5:] == ALL_STEPS
        assert await thread_status(self.api, thread_id) == "idle"

    async def log(self) -> list[Judged]:
        """Return the judged log, which must be without violations and open runs."""
        judged, _ = await judged_well(self.server.kafka, self.server.postgres)
        return judged

    async def accepted(self, *runs: str) -> list[tuple[Judged, str, Json]]:
        """Return the accepted facts about runs, with the commit of each fact, oldest first."""
        judged = judge(await read_topic(self.server.kafka, "agentlog.events"))
        facts = [(one, kind, data) for one in judged if one.verdict == "accepted" for kind, data in one.facts]
        return [(one, kind, data) for one, kind, data in facts if data.get("run_id") in runs]

    async def releases(self, run_id: str) -> list[tuple[object, object]]:
        """Return the reasons for which a run was released, and whether each counts, oldest first."""
        mine = [data for _, kind, data in await self.accepted(run_id) if kind == "RunReleased"]
        return [(data["reason"], data.get("counts")) for data in mine]

    async def late_s(self, limited: Collection[str], runs: Collection[str]) -> dict[str, float]:
        """Return run -> seconds from its grace time to its end on the log; negative: before it.

        `limited`: those of the runs that end by their time limit.
        """
        due: dict[str, datetime] = {}
        ended_at: dict[str, datetime] = {}
        for one, kind, data in await self.accepted(*runs):
            run_id = str(data["run_id"])
            if kind == "RunClaimed" and run_id in limited:
                claimed_at = datetime.fromisoformat(str(one.record.value["occurred_at"]))
                due[run_id] = claimed_at + timedelta(seconds=LIMIT_S + GRACE_S)
            elif kind == "RunCancelRequested" and run_id not in limited:
                due.setdefault(run_id, datetime.fromisoformat(str(data["deadline"])))
            elif kind == "RunFinished":
                ended_at[run_id] = one.record.appended_at
        return {run_id: (ended_at[run_id] - due[run_id]).total_seconds() for run_id in runs}

    def worker(self) -> list[int]:
        """Return the processes that execute runs."""
        return self.server.pids("agentlog_processors", "worker")


async def _is_over(connection: "asyncpg.Connection[asyncpg.Record]", run_id: str) -> bool:
    """Return whether the row has the end of a run."""
    status = await connection.fetchval("SELECT status FROM read_v1.runs WHERE run_id = $1", run_id)
    return status not in (None, "pending", "running")


@asynccontextmanager
async def env(**more: str) -> AsyncGenerator[StuckNodesEnv]:
    """Yield an own server."""
    with running_server({**SHORT, **more}, GRAPHS) as server:
        try:
            yield StuckNodesEnv(server, Api(server.url))
        except BaseException:
            sys.stderr.write(server.log()[-20_000:])  # shown with the failure
            raise


@dataclass(frozen=True)
class Stuck:
    """A run that is stuck in this way, and its expected end."""

    how: str
    ask: str
    thread_id: str
    run_id: str

    @property
    def status(self) -> str:
        """Return the expected status."""
        return "timeout" if self.ask == "limit" else "interrupted"


async def request_stop(here: StuckNodesEnv, stuck: Stuck) -> None:
    """Request a stop of a run."""
    path = f"/threads/{stuck.thread_id}/runs"
    if stuck.ask == "cancel":
        assert (await here.api.raw("POST", f"{path}/{stuck.run_id}/cancel"))[0] == 202
    elif stuck.ask == "interrupt":
        body: JsonObject = {"assistant_id": "steps", "input": {}, "multitask_strategy": "interrupt"}
        await here.api.call("POST", path, body)


async def all_end_in_time(here: StuckNodesEnv, asked: Sequence[str], ways: Sequence[str]) -> list[Stuck]:
    """Start runs that get stuck in all these ways, request all stops, and check that each ends with the grace time."""
    cases = [(how, one, await here.api.thread()) for how in ways for one in asked]
    stuck = [Stuck(how, one, thread, await here.stuck(how, thread)) for how, one, thread in cases]
    await asyncio.gather(*(request_stop(here, one) for one in stuck))
    await asyncio.gather(*(here.ended(one.thread_id, one.run_id, one.status) for one in stuck))
    late_s = await here.late_s({one.run_id for one in stuck if one.ask == "limit"}, [one.run_id for one in stuck])
    told = [(one.how, one.ask, round(late_s[one.run_id], 3)) for one in stuck]
    print(f"seconds behind the grace time: {told}")
    assert not [one for one in told if one[2] > (0 if one[0] in OBEYING else LATE_S)], told
    return stuck


async def check_continues(
    here: StuckNodesEnv, stuck: Sequence[Stuck], worker: list[int], *, replaced: bool = True
) -> None:
    """Check that a new worker replaces the one with stuck code, and that every thread executes a next run."""
    if replaced:
        await until(lambda: bool(here.worker()) and here.worker() != worker, within_secs=60)
    await asyncio.gather(*(here.check_continues(one.thread_id) for one in stuck))
    for one in stuck:
        assert await run_status(here.api, one.thread_id, one.run_id) == one.status


@pytest.mark.timeout(240)
async def test_stuck_runs_that_are_stopped_end_in_time_and_cost_no_other_run() -> None:
    async with env() as here:
        worker, gate, neighbour = here.worker(), Gate(here.server), await here.api.thread()
        obeys = await all_end_in_time(here, ["cancel", "interrupt"], OBEYING)
        await check_continues(here, obeys, worker, replaced=False)
        assert here.worker() == worker, "a node that only waits costs no worker"
        beside = await here.api.start_run(neighbour, "steps", gate.held())
        await until(lambda: gate.began(here.server))
        stuck = await all_end_in_time(here, ["cancel", "interrupt"], WAYS)
        await check_continues(here, stuck, worker)
        assert (await here.releases(beside))[:1] == [("drain", False)], "the worker was replaced without a drain"

        worker = here.worker()
        frozen = await all_end_in_time(here, ["cancel"], ["holds_the_lock"])
        await check_continues(here, frozen, worker)
        gate.open()
        assert done_of(await here.api.join(neighbour, beside)) == ALL_STEPS
        assert await run_status(here.api, neighbour, beside) == "success"
        await here.log()


@pytest.mark.full
@pytest.mark.timeout(180)
@pytest.mark.parametrize("asked", ["cancel", "interrupt"])
@pytest.mark.parametrize("how", WAYS)
async def test_each_way_of_being_stuck_costs_its_worker(how: str, asked: str) -> None:
    async with env() as here:
        worker = here.worker()
        stuck = await all_end_in_time(here, [asked], [how])
        await check_continues(here, stuck, worker)
        await here.log()


@pytest.mark.timeout(180)
async def test_stuck_runs_over_their_time_end_in_time() -> None:
    async with env(BG_JOB_TIMEOUT_SECS=str(LIMIT_S)) as here:
        worker = here.worker()
        stuck = await all_end_in_time(here, ["limit"], WAYS)
        await check_continues(here, stuck, worker)
        await here.log()


@pytest.mark.full
@pytest.mark.timeout(180)
@pytest.mark.parametrize("asked", ["interrupt", "limit"])
async def test_a_node_that_stops_its_whole_worker_ends_in_time_and_the_worker_comes_back(asked: str) -> None:
    # The worker dies later than the time of its run is over: a run that dies before has another try, and its time
    over = {"BG_JOB_TIMEOUT_SECS": str(LIMIT_S), "AGENTLOG_STUCK_SECS": str(LIMIT_S + 2 * STUCK_S)}
    more = over if asked == "limit" else {}
    async with env(**more) as here:
        worker = here.worker()
        stuck = await all_end_in_time(here, [asked], ["holds_the_lock"])
        await check_continues(here, stuck, worker)
        await here.log()
