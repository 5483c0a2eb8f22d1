"""Tests of suspects: a worker executes one only alone, a spare worker nothing else, and the claim sends others away."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from unittest.mock import AsyncMock

import pytest
from tests.processors.worker.test_attempt import WORK, Execution, Hanging, worker
from tests.processors.worker.test_claims import a_queued_run

from agentlog_commands.claims import DEATHS
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId
from agentlog_processors.runs.dependencies import SuspectsOnly, WorkerDependencies
from agentlog_processors.runtime.user_loops import JobLoops
from agentlog_processors.worker import execute_runs
from agentlog_processors.worker.attempt import Attempt
from agentlog_processors.worker.attempt_lifecycle import claim
from agentlog_processors.worker.execute_runs import ExecuteRuns
from agentlog_projections.queries.worker import ExecutableRun
from agentlog_projections.sql.claimable import ReadyRun, suspects_of

ORDINARY, SUSPECTS = WORK.graph_id, suspects_of(WORK.graph_id)
SHORT = timedelta(milliseconds=20)
LIMIT_S = 10.0


class Queues:
    """Run queues in memory; `away`: Redis does not answer."""

    def __init__(self) -> None:
        self.lists: defaultdict[str, list[RunId]] = defaultdict(list)
        self.away, self.pops = False, 0

    async def push(self, queue: str, run_ids: Sequence[RunId]) -> None:
        self.lists[queue] += run_ids

    async def pop(self, queues: Sequence[str], patience: timedelta) -> RunId | None:
        self.pops += 1
        for queue in queues:
            if self.lists[queue]:
                return self.lists[queue].pop(0)
        await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=patience.total_seconds())
        if self.away:
            raise Unavailable("Redis is away")
        return None

    async def queued(self, queue: str) -> frozenset[RunId]:
        if self.away:
            raise Unavailable("Redis is away")
        return frozenset(self.lists[queue])


class Working:
    """A worker whose runs end when they are let go; `seen` holds each start: (run, alone, runs beside it)."""

    def __init__(self, loops: JobLoops, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queues, self.stop, self.left = Queues(), asyncio.Event(), asyncio.Event()
        self.seen: list[tuple[str, bool, tuple[str, ...]]] = []
        self.going: dict[str, asyncio.Event] = {}
        self.alone: dict[str, bool] = {}
        dependencies = worker(loops, Hanging(), Execution(asyncio.get_running_loop()))
        dependencies.queue.pop = self.queues.pop  # type: ignore[method-assign]  # a mock with the port's shape
        dependencies.queue.push = self.queues.push  # type: ignore[method-assign]  # a mock with the port's shape
        dependencies.queue.queued = self.queues.queued  # type: ignore[method-assign]  # a mock with the port's shape
        self.rows: dict[str, ExecutableRun] = {"suspect": replace(WORK, ready=True, deaths=1)}
        dependencies.queries.work = self._work  # type: ignore[method-assign]  # a mock with the port's shape
        quick = replace(dependencies.timeouts, pop=SHORT, suspects_after=SHORT, spare_idle=3 * SHORT, jobs=4)
        self.dependencies = replace(dependencies, timeouts=quick)
        monkeypatch.setattr(execute_runs, "claim", self._claim)
        monkeypatch.setattr(execute_runs, "carry_out", self._carry_out)

    async def _work(self, run_id: RunId) -> ExecutableRun | None:
        return self.rows.get(run_id)

    async def _claim(self, _: WorkerDependencies, run_id: RunId, *, alone: bool) -> Attempt:
        self.alone[run_id] = alone
        return Attempt(replace(WORK, run_id=run_id), 1, "e1")

    async def _carry_out(self, _: WorkerDependencies, attempt: Attempt) -> None:
        run_id = attempt.work.run_id
        self.seen.append((run_id, self.alone[run_id], tuple(self.going)))
        self.going[run_id] = asyncio.Event()
        await self.going[run_id].wait()
        del self.going[run_id]

    def start(self, spare: SuspectsOnly | None = None) -> "asyncio.Task[None]":
        dependencies = replace(self.dependencies, spare=spare)
        return asyncio.create_task(ExecuteRuns(dependencies, {}).run(self.stop))

    async def until(self, *runs: str) -> None:
        """Wait until exactly these runs are executed."""
        async with asyncio.timeout(LIMIT_S):
            while set(self.going) != set(runs):
                await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.005)

    async def end(self, running: "asyncio.Task[None]") -> None:
        for going in self.going.values():
            going.set()
        self.stop.set()
        async with asyncio.timeout(LIMIT_S):
            await running


@pytest.fixture
async def working(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Working]:
    loops = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop)
    yield Working(loops, monkeypatch)
    loops.close()


async def test_a_worker_finishes_its_runs_before_it_executes_a_suspect_and_takes_none_beside_it(
    working: Working,
) -> None:
    working.queues.lists[ORDINARY] = [RunId("one"), RunId("two")]
    running = working.start()
    await working.until("one", "two")
    working.queues.lists[SUSPECTS] = [RunId("suspect")]
    working.queues.lists[ORDINARY] = []
    async with asyncio.timeout(LIMIT_S):
        while working.queues.lists[SUSPECTS]:  # the worker takes it, as no other worker has
            await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.005)
    working.queues.lists[ORDINARY] = [RunId("later")]
    for run_id in ("one", "two"):
        working.going[run_id].set()
    await working.until("suspect")
    assert working.seen[2:] == [("suspect", True, ())]
    working.going["suspect"].set()
    await working.until("later")
    assert working.seen[3:] == [("later", False, ())]
    await working.end(running)


async def test_a_worker_whose_runs_last_takes_runs_again_and_leaves_the_suspect_to_others(working: Working) -> None:
    working.queues.lists[ORDINARY] = [RunId("long")]
    running = working.start()
    await working.until("long")
    working.queues.lists[SUSPECTS] = [RunId("suspect")]
    async with asyncio.timeout(LIMIT_S):
        while working.queues.lists[SUSPECTS]:  # the worker takes it, as no other worker has
            await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.005)
    working.queues.lists[ORDINARY] = [RunId("short")]
    await working.until("long", "short")
    assert working.queues.lists[SUSPECTS] == ["suspect"]
    for run_id in ("long", "short"):
        working.going[run_id].set()
    await working.until("suspect")
    assert working.seen[-1] == ("suspect", True, ())
    await working.end(running)


@pytest.mark.parametrize("row", [None, replace(WORK, ready=False, deaths=1)], ids=["ended", "executed"])
async def test_an_old_entry_of_a_suspect_stops_nobody(working: Working, row: ExecutableRun | None) -> None:
    working.rows = {} if row is None else {"suspect": row}
    working.queues.lists[ORDINARY] = [RunId("long")]
    running = working.start()
    await working.until("long")
    working.queues.lists[SUSPECTS] = [RunId("suspect")]
    async with asyncio.timeout(LIMIT_S):
        while working.queues.lists[SUSPECTS]:
            await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.005)
    working.queues.lists[ORDINARY] = [RunId("short")]
    await working.until("long", "short")
    assert working.queues.lists[SUSPECTS] == []
    await working.end(running)


async def test_a_suspect_that_another_worker_takes_in_time_stops_nobody(working: Working) -> None:
    working.dependencies = replace(
        working.dependencies, timeouts=replace(working.dependencies.timeouts, suspects_after=timedelta(hours=1))
    )
    working.queues.lists[SUSPECTS] = [RunId("suspect")]
    working.queues.lists[ORDINARY] = [RunId("one")]
    running = working.start()
    await working.until("one")
    working.queues.lists[ORDINARY] = [RunId("two")]
    await working.until("one", "two")
    assert working.queues.lists[SUSPECTS] == ["suspect"]
    await working.end(running)


async def test_a_spare_worker_executes_suspects_one_at_a_time_and_leaves_when_there_are_none(working: Working) -> None:
    working.queues.lists[SUSPECTS] = [RunId("one"), RunId("two")]
    working.queues.lists[ORDINARY] = [RunId("not mine")]
    running = working.start(SuspectsOnly(working.left.set))
    await working.until("one")
    working.going["one"].set()
    await working.until("two")
    assert not working.left.is_set()
    working.going["two"].set()
    async with asyncio.timeout(LIMIT_S):
        await working.left.wait()
    assert working.seen == [("one", True, ()), ("two", True, ())]
    assert working.queues.lists[ORDINARY] == ["not mine"]
    await working.end(running)


async def test_a_spare_worker_that_may_not_leave_goes_on_when_there_are_no_suspects(working: Working) -> None:
    running = working.start(SuspectsOnly())
    async with asyncio.timeout(LIMIT_S):
        while working.queues.pops <= 2 * (working.dependencies.timeouts.spare_idle / SHORT):
            await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.005)
    working.queues.lists[SUSPECTS] = [RunId("suspect")]
    await working.until("suspect")
    await working.end(running)


@pytest.mark.parametrize("spare", [False, True])
async def test_without_redis_suspects_come_from_the_rows(working: Working, spare: bool) -> None:
    working.queues.away = True
    rows = [ReadyRun(RunId("suspect"), ORDINARY, suspect=True), ReadyRun(RunId("foreign"), "other graph")]
    working.dependencies.queries.ready = AsyncMock(return_value=rows)  # type: ignore[method-assign]  # mocks
    running = working.start(SuspectsOnly() if spare else None)
    await working.until("suspect")
    assert working.seen == [("suspect", True, ())]
    working.dependencies.queries.ready = AsyncMock(return_value=[])  # type: ignore[method-assign]  # mocks
    await working.end(running)


async def test_a_suspect_is_claimed_only_by_a_worker_that_executes_it_alone() -> None:
    suspect = replace(WORK, deaths=1, version=1)
    claiming = await a_queued_run(suspect, suspect)
    dependencies = claiming.dependencies()
    assert await claim(dependencies, WORK.run_id) is None
    dependencies.queue.push.assert_awaited_once_with(SUSPECTS, [WORK.run_id])  # type: ignore[attr-defined]  # a mock
    assert await claim(dependencies, WORK.run_id, alone=True) is not None


async def test_a_run_that_is_named_is_not_claimed_again() -> None:
    named = replace(WORK, deaths=DEATHS + 1, version=1)
    claiming = await a_queued_run(named)
    assert await claim(claiming.dependencies(), WORK.run_id, alone=True) is None
