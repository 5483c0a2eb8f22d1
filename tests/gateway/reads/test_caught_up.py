"""Cache of the gate of reads: it holds caught-up partitions for a moment, and never missing ones."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest
from httpx2 import ASGITransport, AsyncClient, Response
from tests.fakes.memory_log import MemoryLog
from tests.fakes.ports import TestClock
from tests.gateway.web_env import NOWHERE, dependencies

from agentlog_facts.errors import Unavailable
from agentlog_gateway import timeouts
from agentlog_gateway.application import build_app
from agentlog_gateway.http.cors import Cors
from agentlog_gateway.reads.caught_up import CatchUpGate
from agentlog_postgres.connection import open_pool
from agentlog_projections.queries.health import ProjectionHealth
from agentlog_projections.queries.run_health import RunHealth


class States:
    def __init__(self) -> None:
        self.present = False
        self.asked = 0

    async def caught_up(self) -> Mapping[int, bool]:
        self.asked += 1
        return {0: self.present}


class SlowAtFirst(States):
    """The first query returns the state at its start, once the test sets `goes_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.goes_on = asyncio.Event(), asyncio.Event()

    async def caught_up(self) -> Mapping[int, bool]:
        found = await super().caught_up()
        if self.asked == 1:
            self.began.set()
            await self.goes_on.wait()
        return found


async def test_a_partition_that_was_missing_is_asked_about_again_at_once() -> None:
    states = States()
    caught_up = CatchUpGate(states, MemoryLog(), TestClock(), 1)
    with pytest.raises(Unavailable, match="partition 0"):
        await caught_up.require("t1")
    states.present = True
    await caught_up.require("t1")
    await caught_up.require_all()


async def test_a_partition_that_is_there_is_asked_about_now_and_then() -> None:
    states, clock = States(), TestClock()
    caught_up = CatchUpGate(states, MemoryLog(), clock, 1)
    states.present = True
    for _ in range(3):
        await caught_up.require("t1")
    assert states.asked == 1
    clock.seconds += timeouts.CAUGHT_UP_CACHE_S + 0.01
    states.present = False
    with pytest.raises(Unavailable):
        await caught_up.require("t1")


async def test_an_answer_that_was_overtaken_does_not_bring_back_a_partition_that_stopped() -> None:
    states = SlowAtFirst()
    states.present = True
    caught_up = CatchUpGate(states, MemoryLog(), TestClock(), 1)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(caught_up.refresh())
        await states.began.wait()
        states.present = False
        await caught_up.refresh()
        states.goes_on.set()
        await first
    with pytest.raises(Unavailable):
        await caught_up.require("t1")


async def no_runs() -> RunHealth:
    return RunHealth(0, ())


async def test_nothing_is_written_to_a_partition_once_ready_has_told_that_it_is_stopped() -> None:
    """It stopped between the two queries of /ready, so a new thread there waited in vain for its verdict."""
    states, log, pool = States(), MemoryLog(), await open_pool(NOWHERE, 1)
    states.present = True

    async def health() -> ProjectionHealth:
        states.present = False
        return ProjectionHealth(0, (), {0: "unknown schema"}, {})

    caught_up = CatchUpGate(states, log, TestClock(), 1)
    wired = replace(dependencies(log, pool), caught_up=caught_up, checks={"database": caught_up.refresh}, health=health)
    wired = replace(wired, run_health=no_runs)
    app = build_app(lambda: wired, Cors())
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        ready = await client.get("/ready")
        answer = await client.post("/threads", json={})
    await pool.close()
    assert ready.json()["partitions"]["stopped"] == {"0": "unknown schema"}
    assert (answer.status_code, log.records) == (503, [])


async def test_a_partition_without_progress_ends_readiness_and_fails_the_health_check() -> None:
    """Both told that all was well while no write of any client succeeded."""
    states, log, pool = States(), MemoryLog(), await open_pool(NOWHERE, 1)
    states.present = True
    found = {
        "ready": ProjectionHealth(1, (), {}, {}),
        "not": ProjectionHealth(1, (), {}, {}, {0: 3}, {0: "no progress"}),
    }
    caught_up = CatchUpGate(states, log, TestClock(), 1)
    wired = replace(
        dependencies(log, pool), caught_up=caught_up, checks={"database": caught_up.refresh}, run_health=no_runs
    )
    wired.prepared.set()
    answers: list[tuple[Response, Response]] = []
    for one in found.values():

        async def health(one: ProjectionHealth = one) -> ProjectionHealth:
            return one

        app = build_app(lambda health=health: replace(wired, health=health), Cors())  # type: ignore[misc]  # bound now
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            answers.append((await client.get("/ready"), await client.get("/ok?check_db=1")))
    await pool.close()
    assert [(ready.status_code, ok.status_code) for ready, ok in answers] == [(200, 200), (503, 500)]
    ready, ok = answers[-1]
    assert ready.json()["partitions"] | {"present": 0} == {
        **{"present": 0, "building": [], "stopped": {}},
        **{"stalled": {"0": "no progress"}, "behind": 3},
    }
    assert "partition 0: no progress" in ok.text
