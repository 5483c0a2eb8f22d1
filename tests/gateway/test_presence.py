"""What the gateway remembers of partitions: that one is there, for a moment; never that one is missing."""

import asyncio
from collections.abc import Mapping

import pytest
from tests.fakes.memory_log import MemoryLog
from tests.fakes.ports import TestClock

from agentlog_facts.errors import Unavailable
from agentlog_gateway.presence import FRESH_S, Presence


class States:
    def __init__(self) -> None:
        self.present = False
        self.asked = 0

    async def presence(self) -> Mapping[int, bool]:
        self.asked += 1
        return {0: self.present}


class SlowAtFirst(States):
    """The first answer is what was so when it was asked for; it arrives when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.goes_on = asyncio.Event(), asyncio.Event()

    async def presence(self) -> Mapping[int, bool]:
        found = await super().presence()
        if self.asked == 1:
            self.began.set()
            await self.goes_on.wait()
        return found


async def test_a_partition_that_was_missing_is_asked_about_again_at_once() -> None:
    states = States()
    presence = Presence(states, MemoryLog(), TestClock(), 1)
    with pytest.raises(Unavailable, match="partition 0"):
        await presence.require("t1")
    states.present = True
    await presence.require("t1")
    await presence.require_all()


async def test_a_partition_that_is_there_is_asked_about_now_and_then() -> None:
    states, clock = States(), TestClock()
    presence = Presence(states, MemoryLog(), clock, 1)
    states.present = True
    for _ in range(3):
        await presence.require("t1")
    assert states.asked == 1
    clock.seconds += FRESH_S + 0.01
    states.present = False
    with pytest.raises(Unavailable):
        await presence.require("t1")


async def test_an_answer_that_was_overtaken_does_not_bring_back_a_partition_that_stopped() -> None:
    states = SlowAtFirst()
    states.present = True
    presence = Presence(states, MemoryLog(), TestClock(), 1)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(presence.ask())
        await states.began.wait()
        states.present = False
        await presence.ask()
        states.goes_on.set()
        await first
    with pytest.raises(Unavailable):
        await presence.require("t1")
