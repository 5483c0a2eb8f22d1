"""Deadline of a request, and what it tells of its client."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

import pytest
from starlette.requests import Request
from tests.fakes.memory_log import MemoryLog
from tests.fakes.ports import CountedIds, TestClock
from tests.gateway.web_env import NOWHERE, dependencies

from agentlog_commands.command import Decision, Refused
from agentlog_commands.submit import Intent, Outcome, Submitter, Voided
from agentlog_facts.envelope import Cause
from agentlog_facts.errors import Unavailable
from agentlog_facts.guard import Void
from agentlog_facts.keyed_digest import KeyedDigest, Salts
from agentlog_gateway.api.request_context import RequestContext
from agentlog_infra.subject_salts import SubjectSalts
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


class NoSalts:
    """Implements `keyed_digest.Salts` without a key."""

    def digest(self, value: bytes, subject: str) -> KeyedDigest:
        raise Unavailable("no key")

    def ip_hash(self, address: str) -> str:
        raise Unavailable("no key")


async def cause(headers: dict[str, str], salts: Salts | None = None) -> tuple[Cause, str]:
    """Return the cause of a request with these headers, and its id in the response."""
    pool = await open_pool(NOWHERE, 1)
    wired = dependencies(MemoryLog(), pool)
    given = [(name.encode(), text.encode("latin-1")) for name, text in headers.items()]
    scope: dict[str, object] = {
        "type": "http",
        "method": "POST",
        "path": "/threads",
        "headers": given,
        "query_string": b"",
        "client": ("10.0.0.7", 4711),
    }
    context = RequestContext(wired if salts is None else replace(wired, salts=salts), Request(scope), "/threads")
    await pool.close()
    return context.cause, context.request_id


async def test_the_request_id_of_the_client_stands_apart_from_the_correlation_id() -> None:
    found, shown = await cause({"x-request-id": "order-7"})
    assert found.request is not None
    assert (found.request.id, shown) == ("order-7", "order-7")
    assert UUID(found.correlation_id).version == 7


@pytest.mark.parametrize("given", [None, "", "x" * 129, "a\x01b"])
async def test_without_a_request_id_that_fits_the_correlation_id_stands_for_it(given: str | None) -> None:
    found, shown = await cause({} if given is None else {"x-request-id": given})
    assert found.request is not None
    assert found.request.id == found.correlation_id == shown


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("langgraph-sdk-py/0.3.1", "langgraph-sdk-py/0.3.1"),
        ("x" * 5000, "x" * 200),
        ("a\x00\x1bb", "a\ufffd\ufffdb"),
        ("", None),
    ],
)
async def test_the_name_of_the_client_is_bounded_and_printable(given: str, told: str | None) -> None:
    found, _ = await cause({"user-agent": given})
    assert found.request is not None
    assert found.request.client == told


async def test_the_address_of_the_client_is_told_as_a_keyed_hash() -> None:
    found, _ = await cause({})
    assert found.actor.ip_hash == SubjectSalts(lambda: b"0123456789abcdef").ip_hash("10.0.0.7")
    assert "10.0.0.7" not in str(found)


async def test_without_a_key_there_is_no_hash_and_the_request_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    found, _ = await cause({}, NoSalts())
    assert found.actor.ip_hash is None
    assert [record.getMessage() for record in caplog.records] == ["request.without_ip_hash"]
