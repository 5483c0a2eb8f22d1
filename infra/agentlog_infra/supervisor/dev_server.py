"""Development server: starts the embedded servers, prepares topics and schema, starts all roles; stops in reverse."""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from agentlog_infra import timeouts
from agentlog_infra.console import Status
from agentlog_infra.langgraph.loading.config import graph_ids, unsupported_keys
from agentlog_infra.langgraph.loading.unsupported_keys import refuse
from agentlog_infra.process.ports import demand_free
from agentlog_infra.process.wait import first_to_end
from agentlog_infra.redis.dead_workers import announcer
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import at, url_of
from agentlog_infra.stack.data_dir import DataDir, Lock
from agentlog_infra.stack.stack import External, Stack
from agentlog_infra.supervisor.prepare import load_adapters, prepare
from agentlog_infra.supervisor.reload import snapshot, wait_for_change
from agentlog_infra.supervisor.supervisor import Supervisor, role_specs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DevServer:
    """A running server: settings with its real addresses, its servers and its roles."""

    settings: Settings
    stack: Stack
    supervisor: Supervisor
    url: str

    async def wait_failed(self) -> None:
        """Wait until a server or a role cannot be kept running, and raise its error."""
        await first_to_end(self.stack.wait_failed(), self.supervisor.wait_failed())

    async def reload_on_change(self) -> None:
        """Replace workers and gateway whenever a source file in the configuration's folder changes; never returns."""
        folder = self.settings.config.absolute().parent
        known = await asyncio.to_thread(snapshot, folder)
        while True:
            known = await wait_for_change(folder, known)
            log.info("dev.reloading", extra={"folder": str(folder)})
            await self.supervisor.reload()


def free_port(host: str) -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def dev_server(settings: Settings, *, grace_secs: float) -> AsyncGenerator[DevServer]:
    """Start everything; stop it in order at the end. Raises: the errors of its parts, after stopping all of them."""
    graph_ids(settings.config)
    refuse(settings.config, unsupported_keys(settings.config))
    demand_free(settings.host, settings.port)
    data_dir = DataDir.at(settings.data_dir)
    data_dir.make()
    with Lock(data_dir) as lock:
        supervisor = Supervisor(role_specs(settings.workers, grace_secs, settings.spare_workers), data_dir.run)
        async with AsyncExitStack() as parts:
            await parts.enter_async_context(_loaded())
            with _told("loading the code of the roles"):
                await parts.enter_async_context(supervisor)
            servers = Stack(data_dir.root, External.of(settings), lock, deletable=settings.embedded_deletion)
            with _told("starting the log, PostgreSQL and Valkey"):
                stack = await parts.enter_async_context(servers)
            here = at(settings, stack.addresses)
            with _told("preparing topics and tables"):
                await prepare(here)
            environment = here.environment() | _times(settings, grace_secs)
            with _told("starting gateway, worker and projector, and importing the graphs"):
                await supervisor.start(environment, announcer(here))
            stack.publish(url_of(here))
            try:
                yield DevServer(here, stack, supervisor, url_of(here))
            finally:
                await supervisor.stop()


@contextmanager
def _told(doing: str) -> Generator[None]:
    """Log a step of the start that takes longer than a second."""
    timer = asyncio.get_running_loop().call_later(timeouts.TOLD_AFTER_S, _tell, doing)
    try:
        yield
    finally:
        timer.cancel()


def _tell(doing: str) -> None:
    log.info("start.waiting", extra={"doing": doing})


def _times(settings: Settings, grace_secs: float) -> dict[str, str]:
    """Return the times of the roles of a development server, as variables."""
    times = {"BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": str(grace_secs)}
    if settings.spare_workers and settings.suspects_after_secs is None:
        times["AGENTLOG_SUSPECTS_AFTER_SECS"] = str(timeouts.DEV_SUSPECTS_AFTER_LEASES * settings.lease_ttl_secs)
    return times


@asynccontextmanager
async def _loaded() -> AsyncGenerator[None]:
    """Import slow adapters on a thread meanwhile; a later import waits for it if necessary."""
    loading = asyncio.create_task(asyncio.to_thread(load_adapters))
    try:
        yield
    finally:
        await asyncio.gather(loading, return_exceptions=True)


async def run_until_signal(main: Coroutine[object, object, int], kill: Callable[[], None]) -> int:
    """Run `main`; the first SIGTERM or SIGINT cancels it (it stops in order), a second one calls `kill`.

    Returns `main`'s status, 0 after one signal, 130 after more.
    """
    task = asyncio.create_task(main)
    loop = asyncio.get_running_loop()
    signals: list[float] = []

    def on_signal(number: signal.Signals) -> None:
        if signals and loop.time() - signals[0] < timeouts.SIGNAL_REPEAT_S:
            return
        signals.append(loop.time())
        log.info("signal.received", extra={"signal": number.name, "count": len(signals)})
        if len(signals) == 1:
            task.cancel()
        else:
            kill()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except asyncio.CancelledError:
        return Status.OK if len(signals) == 1 else Status.INTERRUPTED
