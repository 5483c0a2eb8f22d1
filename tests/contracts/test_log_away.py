"""Errors of `EventLog` and `EventTail` during an outage of their server, and recovery after it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from tests.contracts import event_envs
from tests.contracts.conftest import APACHE, Server, connection_to, own_server_of
from tests.contracts.event_envs import EventsEnv
from tests.contracts.test_event_log import draft
from tests.stack_fixtures import RunningStack

from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import OutcomeUnknown, Unavailable
from agentlog_facts.ports import RawRecord

T = TypeVar("T")
BACK_S = 60.0


@pytest.fixture(params=["agentlog_broker", APACHE])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Yield a server that the test may kill; after a restart it has the same port and records."""
    with own_server_of(str(request.param), tmp_path / "data") as started:
        yield started


@pytest.fixture
async def env(server: Server, stack: RunningStack, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[EventsEnv]:
    """Yield its event log, whose producer is given up soon."""
    monkeypatch.setattr("agentlog_infra.timeouts.PRODUCER_SILENCE_S", 1.0)
    async with event_envs.kafka(server.bootstrap, connection_to(server.bootstrap), stack.postgres) as made:
        yield made


async def eventually(ask: Callable[[], Awaitable[T]]) -> T:
    """Retry until the log is available again."""
    end = time.monotonic() + BACK_S
    while True:
        try:
            return await ask()
        except Unavailable:
            assert time.monotonic() < end, "the log is not found again"
            await asyncio.sleep(0.05)


async def polled(env: EventsEnv, place: LogPosition) -> RawRecord:
    """Return the record at a position, read by the tail."""
    env.tail.seek(place.partition, place.offset)
    found = await env.tail.poll(1, timedelta(seconds=10))
    assert found, "nothing came"
    return found[0]


async def test_a_log_that_is_away_is_unavailable_and_its_adapters_find_it_again(server: Server, env: EventsEnv) -> None:
    before = await env.log.append(draft(0))
    assert (await eventually(lambda: polled(env, before))).place == before
    server.kill()
    with pytest.raises(OutcomeUnknown):  # the producer had accepted it before the outage was noticed
        await env.log.append(draft(1))
    with pytest.raises(Unavailable) as refused:
        await env.log.append(draft(2))
    assert not isinstance(refused.value, OutcomeUnknown), "nothing was handed over: the producer is being replaced"
    with pytest.raises(Unavailable):
        await env.log.read(before)
    with pytest.raises(Unavailable):
        await env.tail.ends()
    await asyncio.to_thread(server.start)
    after = await eventually(lambda: env.log.append(draft(3)))
    assert (await eventually(lambda: env.log.read(after))).draft.facts == draft(3).facts
    assert (await eventually(lambda: env.log.read(before))).draft.facts == draft(0).facts
    assert (await eventually(lambda: polled(env, after))).place == after
