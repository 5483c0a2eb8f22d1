"""What a worker does for its claims while Redis is away: it tells the log, and only of runs that it still executes."""

import asyncio
from dataclasses import replace
from unittest.mock import create_autospec

import pytest
from tests.fakes.ports import TestClock
from tests.processors.test_claims import WORK, Claiming

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId
from agentlog_facts.ports import RunQueue
from agentlog_facts.thread import RunAlive
from agentlog_processors.attempt import Attempt
from agentlog_processors.keep_leases import KeepLeases


@pytest.mark.parametrize(("ends_meanwhile", "told"), [(False, 1), (True, 0)])
async def test_a_worker_without_redis_tells_the_log_of_runs_that_have_not_ended_meanwhile(
    ends_meanwhile: bool, told: int
) -> None:
    claiming, stop, queue = Claiming(), asyncio.Event(), create_autospec(RunQueue, instance=True)
    active = {RunId(WORK.run_id): Attempt(WORK, 2, "e")}

    async def away(*_: object) -> None:
        stop.set()
        if ends_meanwhile:
            active.clear()
        raise Unavailable("Redis does not answer")

    queue.renew_lease.side_effect = away
    tools = claiming.tools()
    tools = replace(tools, queue=queue, writing=replace(tools.writing, clock=TestClock(step_s=1)))
    async with asyncio.timeout(10):
        await KeepLeases(tools, active).run(stop)
    said = [fact for draft, _ in claiming.log.rows for fact in draft.facts]
    assert said == [RunAlive(WORK.run_id)] * told
