"""Session of a rebuild: exclusive, resumed after a lost database, cancellable, and cleaned up at its end.

A rebuild writes its name on the schema that it creates. When it reconnects, this name tells it whether its tables still
exist, whether its switch was committed, or whether it was cancelled meanwhile.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Protocol, TypeAlias

from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_postgres.connection import TRANSIENT, Connection, translated
from agentlog_processors import timeouts
from agentlog_processors.jobs.rebuild_progress import Progress
from agentlog_projections.projector.session import FoldPorts, FoldSettings
from agentlog_projections.rebuild import shadow_schema
from agentlog_projections.rebuild.shadow_schema import IN_PLACE, LEDGER, RETIRED, SHADOW
from agentlog_projections.sql.cache_shares import CACHE_BYTES

log = logging.getLogger(__name__)

TRIES = 10
"""Most attempts of one rebuild; each loss of the database takes one."""
_CANCEL = f"{shadow_schema.NAME} --cancel"

Found: TypeAlias = Literal["nothing", "something", "shadow", "in place", "switched"]
"""The rebuild that a cancel found: none; one without tables of its own; a fold into a shadow schema or into the live
tables; or one after its switch."""


class Cancelled(AgentlogError):
    """This rebuild was cancelled."""

    code = "rebuild_cancelled"


@dataclass(frozen=True, slots=True)
class RebuildDependencies:
    """Dependencies of a rebuild. `ddl` creates all tables; the announcer of `ports` sends nothing.

    The housekeeper may have erased threads that were deleted longer ago than `erased_after`. `say` prints the result.
    `owner` is the unique name of this rebuild, `cache_bytes` the budget of the caches of its fold.
    """

    database_uri: str
    ports: FoldPorts
    ddl: Sequence[str]
    erased_after: timedelta
    owner: str
    progress: Progress
    say: Callable[[str], None]
    cache_bytes: int = CACHE_BYTES

    def fold_settings(self) -> FoldSettings:
        """Return the settings of the fold of this rebuild."""
        return FoldSettings(self.database_uri, self.owner, cache_bytes=self.cache_bytes)


@dataclass(frozen=True, slots=True)
class Connections:
    """`live` holds the lock of rebuilds and reads the live rows; `fold` writes the new ones."""

    live: Connection
    fold: Connection


class Rebuild(Protocol):
    """One kind of rebuild; each step may fail with TRANSIENT or Unavailable."""

    async def connect(self) -> Connection:
        """Open the connection that folds."""
        ...

    async def make(self, to: Connections) -> None:
        """Create tables under the name of this rebuild, once and in one transaction."""
        ...

    async def resume(self, to: Connections) -> bool:
        """Prepare to continue an earlier attempt; return whether any work is left. Raises: Cancelled."""
        ...

    async def run(self, to: Connections) -> None:
        """Fold into the tables and complete the rebuild."""
        ...


async def run_exclusively(dependencies: RebuildDependencies, rebuild: Rebuild) -> None:
    """Run a rebuild under the lock of rebuilds, again after each loss of the database, and remove incomplete tables.

    Raises: RebuildRunning, Cancelled, Unavailable, and what the rebuild raises.
    """
    stage: Literal["asking", "making", "made"] = "asking"
    try:
        for attempt in range(TRIES):
            try:
                async with _connections(dependencies.database_uri, rebuild) as to:
                    if stage == "asking":
                        await shadow_schema.hold(to.live)
                        stage = "making"
                        await shadow_schema.end_others(to.live, to.fold)
                        await shadow_schema.remove(to.live, SHADOW, RETIRED)
                        await rebuild.make(to)
                        stage = "made"
                    else:
                        await shadow_schema.hold_after(to.live, timeouts.REBUILD_LOCK_S)
                        if not await rebuild.resume(to):
                            return
                    return await rebuild.run(to)
            except (Unavailable, *TRANSIENT) as error:
                reason = f"{type(error).__name__}: {error}"
                if stage == "making":  # it may have been cancelled, and no table tells
                    raise Unavailable(f"the rebuild was interrupted before it began: {reason}") from error
                if attempt + 1 == TRIES:
                    raise Unavailable(
                        f"the rebuild was interrupted {TRIES} times; the last reason: {reason}"
                    ) from error
                dependencies.progress.note(f"interrupted, continuing: {reason}")
                await asyncio.sleep(0.2 * 2**attempt)
    finally:
        if stage != "asking":
            await clean(dependencies.database_uri)


@asynccontextmanager
async def _connections(uri: str, rebuild: Rebuild) -> AsyncGenerator[Connections]:
    async with AsyncExitStack() as stack:
        live = await shadow_schema.connect_plain(uri)
        stack.callback(live.terminate)  # at once, even during a statement
        fold = await rebuild.connect()
        stack.callback(fold.terminate)
        yield Connections(live, fold)


async def clean(database_uri: str) -> None:
    """Remove the leftovers of rebuilds, unless another rebuild runs."""
    try:
        connection = await shadow_schema.connect_plain(database_uri)
        try:
            await shadow_schema.hold_after(connection, timeouts.REBUILD_CLEAN_LOCK_S)
            await _remove(connection)
        finally:
            await connection.close(timeout=1)
    except (Unavailable, *TRANSIENT) as error:
        log.warning("rebuild.not_cleaned", extra={"reason": f"{type(error).__name__}: {error}"})


async def _remove(connection: Connection) -> None:
    if await _is_in_place(connection):
        await shadow_schema.sign(connection, LEDGER, None)
    await shadow_schema.remove(connection, SHADOW, RETIRED)


async def _is_in_place(connection: Connection) -> bool:
    return (await shadow_schema.signed(connection, LEDGER) or "").endswith(IN_PLACE)


async def cancel(database_uri: str, say: Callable[[Found], None]) -> None:
    """End the running rebuild of any process; pass its state to `say`, then remove its tables. Raises: Unavailable."""
    with translated("cancel"):
        async with AsyncExitStack() as stack:
            mine = await shadow_schema.connect_plain(database_uri, _CANCEL)
            stack.push_async_callback(mine.close)
            other = await shadow_schema.connect_plain(database_uri, _CANCEL)
            stack.push_async_callback(other.close)
            ended = await _take_the_lock(mine, other)
            await shadow_schema.end_others(mine)
            say(await _found(mine, ended))
            await _remove(mine)


async def _take_the_lock(mine: Connection, other: Connection) -> bool:
    """Acquire the lock of rebuilds and end the rebuild that holds it; return whether there was one."""
    ended = False
    # in line before the other rebuild comes back
    waiting = asyncio.create_task(shadow_schema.hold_after(mine, timeouts.REBUILD_CLEAN_LOCK_S))
    try:
        holder = await shadow_schema.holder(other)
        while not waiting.done():
            if holder is not None:
                ended |= await shadow_schema.end(other, holder)
            await asyncio.wait({waiting}, timeout=0.1)
            next_holder = await shadow_schema.holder(other)
            holder = next_holder if next_holder != mine.get_server_pid() else None
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})
    waiting.result()
    return ended


async def _found(connection: Connection, ended: bool) -> Found:
    """Return the state of the rebuild."""
    if await shadow_schema.exists(connection, SHADOW):
        return "shadow"
    if await shadow_schema.exists(connection, RETIRED):
        return "switched"
    if await _is_in_place(connection):
        return "in place"
    return "something" if ended else "nothing"


def raise_if_cancelled() -> None:
    """Raise a cancellation that was lost: `asyncio.wait_for`, which libraries use, may lose one (Python 3.11)."""
    current = asyncio.current_task()
    if current is not None and current.cancelling():
        raise asyncio.CancelledError
