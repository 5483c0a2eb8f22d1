"""Tests of supervised services: a failure ends the process, and services stop in order."""

import asyncio
from datetime import timedelta

import pytest

from agentlog_processors.runtime.service import StoppedEarly, supervise

PATIENCE = timedelta(seconds=5)


class Recorder:
    """A service that records when it stopped."""

    def __init__(self, name: str, stopped: list[str]) -> None:
        self.name = name
        self._stopped = stopped

    async def run(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stopped.append(self.name)


class Failing:
    """A service that raises."""

    name = "failing"

    async def run(self, stop: asyncio.Event) -> None:
        raise ValueError("a defect")


class Returning:
    """A service that returns early."""

    name = "returning"

    async def run(self, stop: asyncio.Event) -> None:
        return


class Deaf:
    """A service that ignores the stop request."""

    name = "deaf"

    async def run(self, stop: asyncio.Event) -> None:
        await asyncio.Event().wait()


async def test_services_stop_first_to_last() -> None:
    stopped: list[str] = []
    stop = asyncio.Event()
    stop.set()
    await supervise([Recorder("a", stopped), Recorder("b", stopped), Recorder("c", stopped)], stop, PATIENCE)
    assert stopped == ["a", "b", "c"]


async def test_a_failure_stops_the_others_and_is_raised() -> None:
    stopped: list[str] = []
    with pytest.raises(ValueError, match="a defect"):
        await supervise([Recorder("a", stopped), Failing()], asyncio.Event(), PATIENCE)
    assert stopped == ["a"]


async def test_a_service_that_returns_unasked_is_a_failure() -> None:
    with pytest.raises(StoppedEarly, match="returning"):
        await supervise([Returning()], asyncio.Event(), PATIENCE)


async def test_a_service_that_does_not_stop_is_cancelled() -> None:
    stop = asyncio.Event()
    stop.set()
    await asyncio.wait_for(supervise([Deaf()], stop, timedelta(milliseconds=20)), 5)
