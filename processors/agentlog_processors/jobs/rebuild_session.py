"""Session of a rebuild: exclusive, continued after a lost database, cancellable, and without leftovers.

A schema that a rebuild has made bears its name. So one that comes back after its connections were lost knows whether
its tables are still there, whether its switch had been committed, or whether somebody cancelled it meanwhile.
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
from agentlog_projections.projector.session import FoldPorts
from agentlog_projections.rebuild import shadow_schema
from agentlog_projections.rebuild.shadow_schema import IN_PLACE, LEDGER, RETIRED, SHADOW

log = logging.getLogger(__name__)

TRIES = 10
"""How often a rebuild continues after a lost database."""
_CANCEL = f"{shadow_schema.NAME} --cancel"

Found: TypeAlias = Literal["nothing", "something", "beside", "in place", "switched"]
"""What a cancel ended: nothing; something that had not begun, or was over; a fold beside the live rows or into them; or
only what comes behind a switch."""


class Cancelled(AgentlogError):
    """Somebody cancelled this rebuild."""

    code = "rebuild_cancelled"


@dataclass(frozen=True, slots=True)
class RebuildDependencies:
    """What a rebuild needs. `ddl` makes all tables; `outside` has the tail of the log, and announces nothing.

    The housekeeper may have erased threads deleted longer ago than `erased_after`. `say` tells people the result.
    `owner` is the name of this rebuild, unlike that of any other.
    """

    database_uri: str
    ports: FoldPorts
    ddl: Sequence[str]
    erased_after: timedelta
    owner: str
    progress: Progress
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Connections:
    """`live` has the lock of rebuilds, and sees the live rows; `fold` writes the new ones."""

    live: Connection
    fold: Connection


class Rebuild(Protocol):
    """One way to fold anew; every step may be cut short by TRANSIENT or Unavailable."""

    async def connect(self) -> Connection:
        """Open the connection that folds."""
        ...

    async def make(self, to: Connections) -> None:
        """Make tables that bear the name of this rebuild; once, and all or nothing."""
        ...

    async def go_on(self, to: Connections) -> bool:
        """Take up where an earlier try stopped; tell whether there is anything left to do. Raises: Cancelled."""
        ...

    async def run(self, to: Connections) -> None:
        """Fold into them, and do what else there is to do."""
        ...


async def run_exclusively(dependencies: RebuildDependencies, rebuild: Rebuild) -> None:
    """Do it as the only one, again after each loss of the database, and remove what is half built.

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
                        if not await rebuild.go_on(to):
                            return
                    return await rebuild.run(to)
            except (Unavailable, *TRANSIENT) as error:
                reason = f"{type(error).__name__}: {error}"
                if stage == "making":  # it might have been cancelled, and nothing is there to tell
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
        stack.callback(live.terminate)  # at once, whatever it is doing
        fold = await rebuild.connect()
        stack.callback(fold.terminate)
        yield Connections(live, fold)


async def clean(database_uri: str) -> None:
    """Remove what no rebuild needs any more; leave it to another one that runs."""
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
    """End the rebuild that runs, wherever; say what it was, then remove what it made. Raises: Unavailable."""
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
    """Become the only rebuild, and end a running one; tell whether there was one."""
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
    """Tell what there is of a rebuild."""
    if await shadow_schema.exists(connection, SHADOW):
        return "beside"
    if await shadow_schema.exists(connection, RETIRED):
        return "switched"
    if await _is_in_place(connection):
        return "in place"
    return "something" if ended else "nothing"


def raise_if_cancelled() -> None:
    """Raise a cancel that was swallowed: `asyncio.wait_for`, in which libraries wait, may lose one (Python 3.11)."""
    current = asyncio.current_task()
    if current is not None and current.cancelling():
        raise asyncio.CancelledError
