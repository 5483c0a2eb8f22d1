"""Record of accepted settings of Kafka: once for each change, whatever is away and however many gateways start."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise

import pytest
from tests.fakes.memory_log import MemoryLog
from tests.gateway.web_env import NOWHERE, dependencies

from agentlog_facts.envelope import Actor, LogPosition, Recorded
from agentlog_facts.errors import Corrupt
from agentlog_facts.guard import Accepted
from agentlog_facts.system import KafkaSettingsAccepted
from agentlog_gateway.api.accepted_settings import record_accepted_settings
from agentlog_gateway.api.dependencies import Dependencies
from agentlog_gateway.reads.caught_up import CatchUpGate
from agentlog_postgres.connection import open_pool

ONE = ["agentlog.events retention.bytes=-1"]
TWO = ["agentlog.events retention.bytes=-1", "agentlog.blobs retention.bytes=-1"]


class States:
    """States of the partitions; they are present from the second question on."""

    def __init__(self) -> None:
        self.asked = 0

    async def caught_up(self) -> Mapping[int, bool]:
        self.asked += 1
        return {0: self.asked > 1}


@asynccontextmanager
async def gateway() -> AsyncGenerator[tuple[Dependencies, MemoryLog]]:
    log, pool = MemoryLog(), await open_pool(NOWHERE, 1)
    wired = dependencies(log, pool)
    yield replace(wired, caught_up=CatchUpGate(States(), log, wired.clock, 1)), log
    await pool.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlog_gateway.timeouts.START_COMMIT_FIRST_RETRY_S", 0.001)


def recorded(log: MemoryLog) -> list[KafkaSettingsAccepted]:
    """Return the accepted facts, after a check that nothing else is on the log."""
    facts = [(draft.facts[0], draft.cause.actor) for draft, verdict in log.rows if isinstance(verdict, Accepted)]
    assert {actor for _, actor in facts} <= {Actor("system", "operator")}
    return [fact for fact, _ in facts if isinstance(fact, KafkaSettingsAccepted)]


async def test_each_change_of_the_acceptance_is_recorded_once() -> None:
    async with gateway() as (wired, log):
        for settings in ([], ONE, ONE, list(reversed(TWO)), TWO, [], [], ONE):
            await record_accepted_settings(wired, settings, "host")
    assert [list(fact.settings) for fact in recorded(log)] == [ONE, sorted(TWO), [], ONE]
    assert len(log.records) == 4, "a start without a change appends nothing"


async def test_gateways_that_start_at_once_record_the_same_acceptance_once() -> None:
    async with gateway() as (wired, log):
        async with asyncio.timeout(10):
            await asyncio.gather(*(record_accepted_settings(wired, TWO, f"host-{number}") for number in range(5)))
            assert [list(fact.settings) for fact in recorded(log)] == [sorted(TWO)]
            await asyncio.gather(
                *(record_accepted_settings(wired, settings, "host") for settings in (ONE, [], TWO, ONE))
            )
    found = [list(fact.settings) for fact in recorded(log)]
    assert all(first != second for first, second in pairwise(found)), found


async def test_an_acceptance_is_recorded_once_log_and_rows_answer() -> None:
    async with gateway() as (wired, log):
        log.refuse, log.lose_acks = 3, 1
        async with asyncio.timeout(10):
            await record_accepted_settings(wired, ONE, "host")
    assert recorded(log) == [KafkaSettingsAccepted(tuple(ONE), "host")]


async def test_an_acceptance_that_cannot_be_read_ends_no_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restore of the log from an older copy, each gateway ended at its start until the rows were rebuilt."""
    faults = [Corrupt("agentlog.events-0: no record at offset 0")] * 2
    async with gateway() as (wired, log):
        await record_accepted_settings(wired, ONE, "host")
        read = log.read

        async def unreadable(place: LogPosition) -> Recorded:
            if faults:
                raise faults.pop()
            return await read(place)

        monkeypatch.setattr(log, "read", unreadable)
        async with asyncio.timeout(10):
            await record_accepted_settings(wired, TWO, "host")
    assert [list(fact.settings) for fact in recorded(log)] == [ONE, sorted(TWO)]
