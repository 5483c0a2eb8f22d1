"""Tests of lease renewal: with slow rows, with Redis away, and stops that rows and hints demand."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from unittest.mock import Mock, create_autospec

import pytest
from tests.fakes.ports import TestClock
from tests.processors.housekeeper.reaping import until
from tests.processors.worker.test_claims import ACTOR, WORK, Claiming

from agentlog_commands.claims import CancelRequest
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId
from agentlog_facts.notification import Hint
from agentlog_facts.ports import RunQueue
from agentlog_facts.thread import RunAlive
from agentlog_infra.system_ports import SystemClock
from agentlog_processors.worker.attempt import Attempt
from agentlog_processors.worker.watch_claims import WatchClaims
from agentlog_projections.queries.worker import ClaimStatus

WORKER = ACTOR.sub


@pytest.mark.parametrize(("ends_meanwhile", "times"), [(False, 1), (True, 0)])
async def test_a_worker_without_redis_tells_the_log_of_runs_that_have_not_ended_meanwhile(
    ends_meanwhile: bool, times: int
) -> None:
    claiming, stop, queue = Claiming(), asyncio.Event(), create_autospec(RunQueue, instance=True)
    active = {RunId(WORK.run_id): Attempt(WORK, 2, "e")}

    async def away(*_: object) -> None:
        stop.set()
        if ends_meanwhile:
            active.clear()
        raise Unavailable("Redis does not answer")

    queue.renew_lease.side_effect = away
    dependencies = claiming.dependencies()
    dependencies = replace(dependencies, queue=queue, writer=replace(dependencies.writer, clock=TestClock(step_s=1)))
    async with asyncio.timeout(10):
        await WatchClaims(dependencies, active).run(stop)
    appended = [fact for draft, _ in claiming.log.rows for fact in draft.facts]
    assert appended == [RunAlive(WORK.run_id)] * times


@dataclass
class Keeping:
    """A worker with one claim, on the real clock; `marks` are the answers of its rows."""

    renew_every: timedelta
    marks: Callable[[], Coroutine[object, object, Mapping[RunId, ClaimStatus]]]
    queue: Mock = field(default_factory=lambda: create_autospec(RunQueue, instance=True))
    active: dict[RunId, Attempt] = field(default_factory=dict[RunId, Attempt])
    keep: WatchClaims = field(init=False)

    def __post_init__(self) -> None:
        dependencies = Claiming().dependencies()
        dependencies.queries.marks = lambda _: self.marks()  # type: ignore[method-assign,assignment]  # told by the test
        timeouts = replace(dependencies.timeouts, lease_renew=self.renew_every)
        dependencies = replace(
            dependencies, queue=self.queue, timeouts=timeouts, writer=replace(dependencies.writer, clock=SystemClock())
        )
        self.keep = WatchClaims(dependencies, self.active)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Renew leases for the length of the block."""
        stop = asyncio.Event()
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(self.keep.run(stop))
            yield
            stop.set()


async def test_leases_are_renewed_although_the_rows_do_not_answer() -> None:
    queries = 0

    async def silent() -> Mapping[RunId, ClaimStatus]:
        nonlocal queries
        queries += 1
        never: asyncio.Future[Mapping[RunId, ClaimStatus]] = asyncio.get_running_loop().create_future()
        return await never

    keeping = Keeping(timedelta(seconds=0.05), silent)
    keeping.active[WORK.run_id] = Attempt(WORK, 2, "e")
    async with keeping.running():
        await until(lambda: queries >= 2 and keeping.queue.renew_lease.call_count >= 3)


async def test_a_cancel_that_is_heard_of_before_the_claim_is_known_is_noticed_at_once() -> None:
    request = CancelRequest("interrupt", datetime(2026, 1, 2, tzinfo=UTC), {"error": "UserInterrupt"})

    async def cancelled() -> Mapping[RunId, ClaimStatus]:
        return {WORK.run_id: ClaimStatus(2, WORKER, request, 3)}

    keeping, attempt = Keeping(timedelta(hours=1), cancelled), Attempt(WORK, 2, "e")
    async with keeping.running():
        keeping.keep.on_hint(Hint(0, 3, 4, cancelled=(WORK.run_id,)))
        keeping.active[WORK.run_id] = attempt
        await until(lambda: attempt.stop_reason == "cancel")
    assert attempt.cancel == request


@pytest.mark.parametrize(("version", "stop_reason"), [(1, None), (2, "stale")])
async def test_rows_older_than_a_claim_say_nothing_about_it(version: int, stop_reason: str | None) -> None:
    looks = 0

    async def unclaimed() -> Mapping[RunId, ClaimStatus]:
        nonlocal looks
        looks += 1
        return {WORK.run_id: ClaimStatus(None, None, None, version)}

    keeping, attempt = Keeping(timedelta(seconds=0.01), unclaimed), Attempt(WORK, 2, "e")
    keeping.active[WORK.run_id] = attempt
    async with keeping.running():
        await until(lambda: looks >= 3)
    assert attempt.stop_reason == stop_reason


@pytest.mark.parametrize(("worker", "stop_reason"), [(WORKER, None), ("another", "stale")])
async def test_a_claim_of_the_same_epoch_on_a_restored_log_is_not_ours(worker: str, stop_reason: str | None) -> None:
    looks = 0

    async def claimed() -> Mapping[RunId, ClaimStatus]:
        nonlocal looks
        looks += 1
        return {WORK.run_id: ClaimStatus(2, worker, None, 2)}

    keeping, attempt = Keeping(timedelta(seconds=0.01), claimed), Attempt(WORK, 2, "e")
    keeping.active[WORK.run_id] = attempt
    async with keeping.running():
        await until(lambda: looks >= 3)
    assert attempt.stop_reason == stop_reason
