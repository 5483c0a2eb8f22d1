"""Recorder of refused requests, for aggregates of each kind."""

from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from starlette.requests import Request
from tests.fakes.memory_log import MemoryLog
from tests.fakes.ports import TestClock
from tests.gateway.web_env import NOWHERE, dependencies

from agentlog_commands.command import Decision, Refused
from agentlog_facts.assistant import AssistantCreated
from agentlog_facts.envelope import ANONYMOUS, Cause, Draft
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import AssistantId, Category, Key, ThreadId, stream
from agentlog_facts.keyed_digest import subject_of
from agentlog_facts.store import StoreItemPut, store_key
from agentlog_facts.system import CommandRefused
from agentlog_facts.thread import ThreadCreated, ThreadDeleted
from agentlog_gateway.api.dependencies import Dependencies
from agentlog_gateway.api.refusal_recorder import note_refusal
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.errors import Problem
from agentlog_postgres.connection import open_pool

T1, A1 = ThreadId("t-1"), AssistantId("a-1")
NAMESPACE = ("users", "ana")
SCOPE: dict[str, object] = {
    "type": "http",
    "method": "POST",
    "path": "/",
    "headers": [],
    "query_string": b"a=1",
    "path_params": {"thread_id": "t-1", "run_id": "019AB000-0000-7000-8000-000000000002"},
}

ASSISTANT = (AssistantCreated(A1, "steps", {}, {}, {}, "steps", None),)
ITEM = (StoreItemPut(NAMESPACE, "name", {"text": "Ana"}),)
DELETED_THREAD = (ThreadCreated(T1, {}), ThreadDeleted(T1))


@pytest.fixture
async def wired() -> AsyncGenerator[Dependencies]:
    """Yield a gateway over a log in memory, without a database."""
    pool = await open_pool(NOWHERE, 1)
    yield dependencies(MemoryLog(), pool)
    await pool.close()


def log_of(wired: Dependencies) -> MemoryLog:
    assert isinstance(wired.log, MemoryLog)
    return wired.log


def draft(
    category: Category, key: Key, *facts: AssistantCreated | StoreItemPut | ThreadCreated | ThreadDeleted
) -> Draft:
    cause = Cause(ANONYMOUS, "request-1")
    return Draft(key, stream(category, key), "event-1", "append-1", "body", facts, TestClock().now(), cause)


async def refused(wired: Dependencies, key: Key, command: str, status: int = 409) -> list[CommandRefused]:
    """Refuse a command on an aggregate; return the facts on the aggregate's stream of refusals."""
    context = RequestContext(wired, Request(SCOPE), "/")

    async def decide() -> Decision:
        return Refused("run_active")

    assert await context.submit(command, key, decide) == Refused("run_active")
    await note_refusal(context, Problem(status, "not now"))
    notes = [one for one, _ in log_of(wired).rows if one.stream == stream("refusals", key)]
    return [fact for one in notes for fact in one.facts if isinstance(fact, CommandRefused)]


async def test_a_refused_change_of_an_assistant_is_recorded(wired: Dependencies) -> None:
    await log_of(wired).append(draft("assistant", Key(A1), *ASSISTANT))
    (fact,) = await refused(wired, Key(A1), "ReviseAssistant")
    assert (fact.command, fact.reason, fact.count) == ("ReviseAssistant", "run_active", 1)


async def test_a_refused_change_of_store_items_is_recorded(wired: Dependencies) -> None:
    key = store_key(NAMESPACE)
    await log_of(wired).append(draft("store", key, *ITEM))
    (fact,) = await refused(wired, key, "PutItem")
    assert (fact.command, fact.reason, fact.count) == ("PutItem", "run_active", 1)


async def test_a_refused_change_of_a_thread_that_was_there_is_recorded(wired: Dependencies) -> None:
    await log_of(wired).append(draft("thread", Key(T1), *DELETED_THREAD))
    (fact,) = await refused(wired, Key(T1), "CreateRun", 404)
    assert (fact.command, fact.reason, fact.count) == ("CreateRun", "run_active", 1)
    assert fact.target == {"thread_id": "t-1", "run_id": "019ab000-0000-7000-8000-000000000002"}
    assert fact.body_digest == wired.salts.digest(b"a=1\n", subject_of(None, "anonymous"))


@pytest.mark.parametrize("key", [Key(T1), Key(A1), store_key(NAMESPACE)])
async def test_a_refused_change_of_an_aggregate_that_never_was_is_not_recorded(wired: Dependencies, key: Key) -> None:
    assert await refused(wired, key, "AnyCommand", 404) == []


async def test_a_request_that_is_wrong_in_itself_is_not_recorded(wired: Dependencies) -> None:
    await log_of(wired).append(draft("assistant", Key(A1), *ASSISTANT))
    assert await refused(wired, Key(A1), "ReviseAssistant", 422) == []


class LedgerAway(MemoryLog):
    """A log whose ledger does not answer."""

    async def knows(self, key: Key) -> bool:
        raise Unavailable("the ledger is away")


async def test_a_ledger_that_is_away_costs_the_record_and_not_the_answer(
    wired: Dependencies, caplog: pytest.LogCaptureFixture
) -> None:
    away = replace(wired, ledger=LedgerAway())
    await log_of(wired).append(draft("assistant", Key(A1), *ASSISTANT))
    assert await refused(away, Key(A1), "ReviseAssistant") == []
    assert [record.getMessage() for record in caplog.records] == ["refusal.not_recorded"]
