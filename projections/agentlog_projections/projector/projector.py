"""Projector: session after session, each on a connection of its own, until it is stopped."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg

from agentlog_facts.back_off import back_off
from agentlog_facts.errors import Diverged, Unavailable
from agentlog_postgres.connection import TRANSIENT, close, connect_projector
from agentlog_projections.models.runs import RunsModel
from agentlog_projections.projector.heartbeat import heartbeat
from agentlog_projections.projector.ownership import Fenced
from agentlog_projections.projector.repeated_faults import RepeatedFaults
from agentlog_projections.projector.session import FoldPorts, FoldSettings, ProjectorSession
from agentlog_projections.sql.read_model import ReadModel

log = logging.getLogger(__name__)


class Projector:
    """Folds until cancelled. Transient faults are retried with growing pauses and no time limit: the log waits."""

    def __init__(self, settings: FoldSettings, ports: FoldPorts, models: Sequence[ReadModel], runs: RunsModel) -> None:
        self._settings = settings
        self._ports = ports
        self._models = models
        self._runs = runs
        self._ready = asyncio.Event()
        self._faults = RepeatedFaults()

    async def wait_ready(self) -> None:
        """Wait until this projector has taken its share of partitions for the first time; it may be empty."""
        await self._ready.wait()

    async def run(self) -> None:
        """Fold until cancelled. Raises only errors in our own code or data."""
        pauses = self._pauses()
        while True:
            try:
                async with self.session() as fold:
                    self._ready.set()
                    while True:
                        await fold.cycle()
                        if not self._faults:
                            pauses = self._pauses()
            except Fenced as error:
                log.warning("projector.fenced", extra={"reason": str(error)})
                await asyncio.sleep(self._settings.first_pause.total_seconds())
            except (Unavailable, Diverged, asyncpg.PostgresError, *TRANSIENT) as error:
                text = f"{type(error).__name__}: {error}"
                pause_s = next(pauses)
                log.warning("projector.interrupted", extra={"reason": text, "again_in_secs": pause_s})
                await asyncio.sleep(pause_s)

    def _pauses(self) -> Iterator[float]:
        return back_off(self._settings.first_pause.total_seconds(), self._settings.longest_pause.total_seconds())

    def session(self) -> "AbstractAsyncContextManager[ProjectorSession]":
        """Reach the log, join the group, take partitions and read on there. Raises: Unavailable, TRANSIENT."""
        return self._session()

    @asynccontextmanager
    async def _session(self) -> "AsyncGenerator[ProjectorSession]":
        settings = self._settings
        await self._ports.tail.ends()  # without the log it must not join: the others would give partitions up
        async with heartbeat(settings.database_uri, settings.owner, settings.look_every) as member:
            connection = await connect_projector(settings.database_uri, durable=False)
            try:
                fold = ProjectorSession(
                    connection, settings, self._ports, self._models, self._runs, member, self._faults
                )
                try:
                    await fold.begin()
                    yield fold
                finally:
                    await fold.end()
            finally:
                await close(connection)  # before the partitions are released: then its transactions are over
