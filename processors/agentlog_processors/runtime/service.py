"""How the services of one process live together: each is owned, a failure surfaces, all stop in order."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Protocol

from agentlog_facts.errors import AgentlogError

log = logging.getLogger(__name__)


class Service(Protocol):
    """Something that runs as long as its process."""

    @property
    def name(self) -> str:
        """Return a constant dotted name for logs."""
        ...

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then return in order; an exception ends the process."""
        ...


class Endless:
    """A service out of a coroutine that runs until it is cancelled."""

    def __init__(self, name: str, live: Callable[[], Coroutine[object, object, None]]) -> None:
        self.name = name
        self._live = live

    async def run(self, stop: asyncio.Event) -> None:
        """Run until stopped; what the coroutine raises ends the process."""
        living = asyncio.create_task(self._live(), name=self.name)
        living.add_done_callback(lambda _: stopped.set())
        stopped = asyncio.Event()
        try:
            await first(None, stop, stopped)
        finally:
            living.cancel()
            await asyncio.wait({living})
        if not living.cancelled():
            living.result()


class StoppedEarly(AgentlogError):
    """A service returned although nobody asked it to."""

    code = "service_stopped"


async def supervise(services: Sequence[Service], stop: asyncio.Event, patience: timedelta) -> None:
    """Run services until `stop` is set or one fails, then stop them one by one, first to last; raise the failure.

    A later service serves the earlier ones, so it stops after them. `patience` bounds each stop: past it the service
    is cancelled.
    """
    stops = [asyncio.Event() for _ in services]
    tasks = [
        asyncio.create_task(_lived(service, event), name=service.name)
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


async def _lived(service: Service, stop: asyncio.Event) -> None:
    await service.run(stop)
    if not stop.is_set():
        raise StoppedEarly(f"{service.name}: expected to run until it is stopped, it returned")


async def _stop_in_order(
    tasks: Sequence["asyncio.Task[None]"], stops: Sequence[asyncio.Event], patience: timedelta
) -> BaseException | None:
    failed: BaseException | None = None
    for task, stop in zip(tasks, stops, strict=True):
        stop.set()
        await asyncio.wait([task], timeout=patience.total_seconds())
        if not task.done():
            log.error("service.would_not_stop", extra={"service": task.get_name()})
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
