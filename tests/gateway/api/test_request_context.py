"""Deadline of a request."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from starlette.requests import Request
from tests.fakes.memory_log import MemoryLog
from tests.fakes.ports import CountedIds, TestClock
from tests.gateway.web_env import NOWHERE, dependencies

from agentlog_commands.command import Decision, Refused
from agentlog_commands.submit import Intent, Outcome, Submitter, Voided
from agentlog_facts.guard import Void
from agentlog_gateway.api.request_context import RequestContext
from agentlog_postgres.connection import open_pool


class Losing(Submitter):
    """Records the deadlines that it gets, and voids every command."""

    def __init__(self, log: MemoryLog, clock: TestClock) -> None:
        super().__init__(log, log, log, clock, CountedIds())
        self.deadlines: list[float] = []

    async def submit(self, intent: Intent, decide: Callable[[], Awaitable[Decision]], deadline: float) -> Outcome:
        self.deadlines.append(deadline)
        return Voided(Void("gone"))


async def test_a_request_that_submits_again_does_not_get_more_time() -> None:
    log, clock = MemoryLog(), TestClock(step_s=1.0)
    losing = Losing(log, clock)
    pool = await open_pool(NOWHERE, 1)
    wired = replace(dependencies(log, pool), clock=clock, submitter=losing)
    scope: dict[str, object] = {
        "type": "http",
        "method": "POST",
        "path": "/threads",
        "headers": [],
        "query_string": b"",
    }
    context = RequestContext(wired, Request(scope), "/threads")

    async def decide() -> Decision:
        return Refused("thread_exists")

    for _ in range(3):
        await context.submit("CreateThread", "t1", decide)
    assert losing.deadlines == [losing.deadlines[0]] * 3
    await pool.close()
