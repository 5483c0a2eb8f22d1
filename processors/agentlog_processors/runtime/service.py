"""Supervised services of one process: each task has an owner, a failure ends the process, all stop in order."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Protocol

from agentlog_facts.errors import AgentlogError

log = logging.getLogger(__name__)


class Service(Protocol):
    """A part of a process that runs until the process stops."""

    @property
    def name(self) -> str:
        """Return a constant dotted name for logs."""
        ...

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then clean up and return; an exception ends the process."""
        ...


class Endless:
    """Adapts a coroutine that runs until it is cancelled to `Service`."""

    def __init__(self, name: str, make: Callable[[], Coroutine[object, object, None]]) -> None:
        self.name = name
        self._make = make

    async def run(self, stop: asyncio.Event) -> None:
        """Run until stopped; an exception of the coroutine ends the process."""
        running = asyncio.create_task(self._make(), name=self.name)
        running.add_done_callback(lambda _: stopped.set())
        stopped = asyncio.Event()
        try:
            await first(None, stop, stopped)
        finally:
            running.cancel()
            await asyncio.wait({running})
        if not running.cancelled():
            running.result()


class StoppedEarly(AgentlogError):
    """A service returned without a stop request."""

    code = "service_stopped"


async def supervise(services: Sequence[Service], stop: asyncio.Event, patience: timedelta) -> None:
    """Run services until `stop` is set or one fails, then stop them one by one, first to last; raise the failure.

    Later services serve earlier ones, so they stop after them. A service that has not stopped after `patience` is
    cancelled.
    """
    stops = [asyncio.Event() for _ in services]
    tasks = [
        asyncio.create_task(_run_service(service, event), name=service.name)
        for service, event in zip(services, stops, strict=True)
    ]
    stopping = asyncio.create_task(stop.wait(), name="service.stop")
    try:
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        failed = await _stop_in_order(tasks, stops, patience)
    if failed is not None:
        raise failed


async def _run_service(service: Service, stop: asyncio.Event) -> None:
    await service.run(stop)
    if not stop.is_set():
        raise StoppedEarly(f"{service.name}: expected to run until it is stopped, but it returned")


async def _stop_in_order(
    tasks: Sequence["asyncio.Task[None]"], stops: Sequence[asyncio.Event], patience: timedelta
) -> BaseException | None:
    failed: BaseException | None = None
    for task, stop in zip(tasks, stops, strict=True):
        stop.set()
        await asyncio.wait([task], timeout=patience.total_seconds())
        if not task.done():
            log.error("service.did_not_stop", extra={"service": task.get_name()})
            task.cancel()
            await asyncio.wait([task], timeout=patience.total_seconds())
        error = task.exception() if task.done() and not task.cancelled() else None
        if error is not None:
            log.error("service.failed", extra={"service": task.get_name()}, exc_info=error)
            failed = failed or error
    return failed


async def pause(stop: asyncio.Event, length_s: float, *wakers: asyncio.Event) -> None:
    """Return after `length_s` seconds, or at once when `stop` or a waker is set; wakers are cleared."""
    await first(length_s, stop, *wakers)
    for waker in wakers:
        waker.clear()


async def first(patience_s: float | None, *events: asyncio.Event) -> None:
    """Return when one of the events is set, or after `patience_s` seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
