"""Heartbeat of a projector in PostgreSQL, on a connection of its own.

Only the speed of a takeover depends on it: the transactions of a live projector that is taken for dead fail. The
connection of a killed projector ends with it; a hung projector, or one whose machine is lost, has an overdue heartbeat.
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
"""Notified when a projector joins, leaves or gives partitions up, so that the others rebalance at once."""

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
    """Membership of a projector in the group that shares the partitions; `heartbeat` creates it."""

    def __init__(self, connection: Connection, owner: str, beat: timedelta) -> None:
        self._connection = connection
        self._owner = owner
        self._beat_s = beat.total_seconds()
        self._error: Exception | None = None
        self.changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def join(self) -> None:
        """Write the first heartbeat and listen for changes. Raises: TRANSIENT."""
        await self._connection.add_listener(CHANNEL, self._notified)
        await self._connection.execute(_FORGET, timedelta(seconds=timeouts.PROJECTOR_FORGOTTEN_S))
        await self._connection.execute(_BEAT, self._owner)
        await self._connection.execute(NOTIFY, self._owner)

    async def run(self) -> None:
        """Write heartbeats until cancelled; the next `changed_since` raises a fault."""
        try:
            while True:
                await asyncio.sleep(self._beat_s)
                await self._connection.execute(_BEAT, self._owner)
        except (asyncpg.PostgresError, *TRANSIENT) as error:
            self._error = error
            self._mark_changed()

    def changed_since(self) -> bool:
        """Tell whether the group has changed since the last call. Raises: TRANSIENT, or another error of `run`."""
        if self._error is not None:
            raise self._error
        if not self.changed.done():
            return False
        self.changed = asyncio.get_running_loop().create_future()
        return True

    async def leave(self) -> None:
        """Release all partitions, so that the others take them at once."""
        try:
            async with asyncio.timeout(timeouts.PROJECTOR_LEAVE_S):
                await self._connection.execute(_LEAVE, self._owner)
                await self._connection.execute(NOTIFY, self._owner)
        except TRANSIENT as error:
            log.info("projector.leave_failed", extra={"reason": f"{type(error).__name__}: {error}"})

    def _notified(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload != self._owner:
            self._mark_changed()

    def _mark_changed(self) -> None:
        if not self.changed.done():
            self.changed.set_result(None)


@asynccontextmanager
async def heartbeat(database_uri: str, owner: str, beat: timedelta) -> AsyncGenerator[ProjectorHeartbeat]:
    """Join the projectors for the length of the block. Raises: Unavailable, TRANSIENT."""
    connection = await connect_projector(database_uri, "agentlog projector heartbeat")
    try:
        member = ProjectorHeartbeat(connection, owner, beat)
        await member.join()
        beating = asyncio.create_task(member.run(), name="heartbeat")
        try:
            yield member
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await member.leave()
    finally:
        await close(connection)
