"""Heartbeat of a projector in PostgreSQL, on a connection of its own.

Only the speed of a takeover depends on it: a live projector that is taken for dead finds its transactions void. The
connection of a killed projector ends with it; one that hangs, or whose machine is gone, has an overdue heartbeat.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg

from agentlog_postgres.connection import TRANSIENT, Connection, close, connect_projector
from agentlog_projections import timeouts

log = logging.getLogger(__name__)

CHANNEL = "agentlog_projectors"
"""Notified when a projector comes, goes or gives partitions up, so that the others look at once."""

_BEAT = """
INSERT INTO ledger.projectors (owner, seen_at, backend, backend_start)
SELECT $1, clock_timestamp(), pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()
ON CONFLICT (owner) DO UPDATE
   SET seen_at = excluded.seen_at, backend = excluded.backend, backend_start = excluded.backend_start
"""
_FORGET = "DELETE FROM ledger.projectors WHERE seen_at < clock_timestamp() - $1::interval"
_LEAVE = """
WITH gone AS (DELETE FROM ledger.projectors WHERE owner = $1)
UPDATE ledger.positions SET owner = NULL WHERE owner = $1
"""
NOTIFY = f"SELECT pg_notify('{CHANNEL}', $1)"


class ProjectorHeartbeat:
    """One projector among those that share the partitions; enter it by `heartbeat`."""

    def __init__(self, connection: Connection, owner: str, beat: timedelta) -> None:
        self._connection = connection
        self._owner = owner
        self._beat_s = beat.total_seconds()
        self._error: Exception | None = None
        self.changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def join(self) -> None:
        """Be seen, and hear from now on. Raises: TRANSIENT."""
        await self._connection.add_listener(CHANNEL, self._hear)
        await self._connection.execute(_FORGET, timedelta(seconds=timeouts.PROJECTOR_FORGOTTEN_S))
        await self._connection.execute(_BEAT, self._owner)
        await self._connection.execute(NOTIFY, self._owner)

    async def run(self) -> None:
        """Stay seen until cancelled; a fault is raised by the next `changed_since`."""
        try:
            while True:
                await asyncio.sleep(self._beat_s)
                await self._connection.execute(_BEAT, self._owner)
        except (asyncpg.PostgresError, *TRANSIENT) as error:
            self._error = error
            self._ring()

    def changed_since(self) -> bool:
        """Tell whether something has changed since the last call. Raises: TRANSIENT, or what else ended `run`."""
        if self._error is not None:
            raise self._error
        if not self.changed.done():
            return False
        self.changed = asyncio.get_running_loop().create_future()
        return True

    async def leave(self) -> None:
        """Give all partitions up, so that the others take them at once."""
        try:
            async with asyncio.timeout(timeouts.PROJECTOR_LEAVE_S):
                await self._connection.execute(_LEAVE, self._owner)
                await self._connection.execute(NOTIFY, self._owner)
        except TRANSIENT as error:
            log.info("projector.left_unsaid", extra={"reason": f"{type(error).__name__}: {error}"})

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload != self._owner:
            self._ring()

    def _ring(self) -> None:
        if not self.changed.done():
            self.changed.set_result(None)


@asynccontextmanager
async def heartbeat(database_uri: str, owner: str, beat: timedelta) -> AsyncGenerator[ProjectorHeartbeat]:
    """Be one of the projectors for the length of the block. Raises: Unavailable, TRANSIENT."""
    connection = await connect_projector(database_uri, "agentlog projector heartbeat")
    try:
        member = ProjectorHeartbeat(connection, owner, beat)
        await member.join()
        keeping = asyncio.create_task(member.run(), name="heartbeat")
        try:
            yield member
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await member.leave()
    finally:
        await close(connection)
