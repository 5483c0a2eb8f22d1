"""Decides a rebuild beside the live rows: fold, compare at equal positions, catch up, switch; live until the last step.

| # | step | if we die here |
|---|---|---|
| 1 | make tables beside the live ones, fold up to where those stand | leftovers for the next rebuild to remove |
| 2 | in one snapshot of the live rows, fold to its positions and compare all rows | as 1 |
| 3 | catch up; hold the projector, fold the last records, exchange the schemas, in one transaction | as 1, or done |
| 4 | drop the replaced tables | as 1 |
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

import asyncpg

from agentlog_facts.errors import AgentlogError, Conflict, Corrupt, Unavailable
from agentlog_facts.ports import EventTail
from agentlog_processors.rebuild_progress import Progress
from agentlog_projections import beside
from agentlog_projections.beside import NEXT, OLD, Position
from agentlog_projections.bounded_tail import BoundedTail
from agentlog_projections.database import TRANSIENT, Connection
from agentlog_projections.fold import Fold, FoldSettings, Outside
from agentlog_projections.parity import Parity, Side, differences, sums, tables_of
from agentlog_projections.read_models import read_models

log = logging.getLogger(__name__)

Wish: TypeAlias = Literal["switch", "accept", "check"]
"""Switch if all rows are the same, switch in any case, or only compare."""

TRIES = 10
"""How often a rebuild that lost its database goes on."""
CLOSE = 200
"""From so few records behind the live rows, the projector is made to wait for the rest."""
ROUNDS = 100
"""How often the fold may run after a log that grows meanwhile."""
LOCK_SECS = 60.0
CLEAN_SECS = 30.0


class Cancelled(AgentlogError):
    """Somebody cancelled this rebuild; the live rows were not touched."""

    code = "rebuild_cancelled"


class Differs(Conflict):
    """The rebuilt rows are not the live ones, and nobody said that this is all right."""

    code = "rows_differ"


@dataclass(frozen=True, slots=True)
class Tools:
    """What a rebuild needs. `ddl` makes all tables; `outside` has the tail of the log, and announces nothing.

    The housekeeper may have erased threads deleted longer ago than `erased_after`. `say` tells people the result.
    """

    database_uri: str
    outside: Outside
    ddl: Sequence[str]
    erased_after: timedelta
    owner: str
    progress: Progress
    say: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Connections:
    """`live` has the lock of rebuilds, the snapshot and the switch; `anew` reads and `fold` writes the new rows."""

    live: Connection
    anew: Connection
    fold: Connection


async def rebuild_beside(tools: Tools, wish: Wish) -> Parity:
    """Do it; whatever happens, the live rows are whole, and what is half built is removed.

    Raises: RebuildRunning, Differs, Cancelled, Unavailable, Corrupt (this release cannot read the log that far).
    """
    mine = False
    try:
        for attempt in range(TRIES):
            try:
                async with _connections(tools.database_uri) as connections:
                    await _hold(connections, tools, again=mine)
                    mine = True
                    return await _Rebuild(tools, connections).run(wish)
            except (Unavailable, *TRANSIENT) as error:
                if attempt + 1 == TRIES:
                    raise Unavailable(f"the rebuild was interrupted {TRIES} times, at last by: {error}") from error
                tools.progress.note(f"interrupted, going on: {type(error).__name__}: {error}")
                await asyncio.sleep(0.2 * 2**attempt)
        raise AssertionError("the last try returns or raises")
    finally:
        if mine:
            await clean(tools.database_uri)


async def clean(database_uri: str) -> bool:
    """Remove what no rebuild needs any more and tell whether there was anything; leave it to another one that runs."""
    try:
        connection = await beside.connect_plain(database_uri)
        try:
            await beside.hold_after(connection, CLEAN_SECS)
            found = await beside.exists(connection, NEXT) or await beside.exists(connection, OLD)
            await beside.remove(connection, NEXT, OLD)
        finally:
            await connection.close(timeout=1)
    except (Unavailable, *TRANSIENT) as error:
        log.warning("rebuild.not_cleaned", extra={"reason": f"{type(error).__name__}: {error}"})
        return False
    return found


async def cancel(database_uri: str) -> bool:
    """End the rebuild that runs, wherever, remove what it made, and tell whether there was anything to do.

    Raises: Unavailable, TRANSIENT.
    """
    async with AsyncExitStack() as stack:
        mine = await beside.connect_plain(database_uri, "agentlog rebuild --cancel")
        stack.push_async_callback(mine.close)
        other = await beside.connect_plain(database_uri, "agentlog rebuild --cancel")
        stack.push_async_callback(other.close)
        waiting = asyncio.create_task(beside.hold_after(mine, CLEAN_SECS))  # in line before the other one comes back
        try:
            holder = await beside.holder(other)
            while not waiting.done():
                if holder is not None:
                    await other.fetchval("SELECT pg_terminate_backend($1, 1000)", holder)
                await asyncio.wait({waiting}, timeout=0.1)
                next_holder = await beside.holder(other)
                holder = next_holder if next_holder != mine.get_server_pid() else None
        finally:
            waiting.cancel()
            await asyncio.wait({waiting})
        waiting.result()
        await beside.end_others(mine)
        found = await beside.exists(mine, NEXT) or await beside.exists(mine, OLD)
        await beside.remove(mine, NEXT, OLD)
        return found


@asynccontextmanager
async def _connections(uri: str) -> AsyncGenerator[_Connections]:
    async with AsyncExitStack() as stack:
        opened: list[Connection] = []
        for open_one in (beside.connect_plain, beside.connect_plain, beside.connect_next):
            opened.append(await open_one(uri))
            stack.callback(opened[-1].terminate)  # at once, whatever it is doing
        yield _Connections(*opened)


async def _hold(connections: _Connections, tools: Tools, *, again: bool) -> None:
    """Become the one rebuild, with tables of its own."""
    if again:
        await beside.hold_after(connections.live, LOCK_SECS)
        if not await beside.exists(connections.live, NEXT):
            raise Cancelled("the rebuild was cancelled; the live rows are as they were")
        return
    await beside.hold(connections.live)
    await beside.end_others(connections.live, connections.anew, connections.fold)
    await beside.remove(connections.live, NEXT, OLD)
    await beside.make(connections.fold, tools.ddl)


class _Rebuild:
    """One try on one set of connections; a later one goes on where its fold stopped."""

    def __init__(self, tools: Tools, connections: _Connections) -> None:
        self._tools = tools
        self._to = connections
        self._tail = BoundedTail(tools.outside.tail)
        outside = tools.outside
        self._outside = Outside(self._tail, outside.partition_of, outside.clock, outside.announcer)

    async def run(self, wish: Wish) -> Parity:
        """Fold, compare and do what was asked for. Raises: Differs."""
        await self._catch_up()
        await beside.analyze(self._to.anew)
        parity = await self._compare()
        if wish == "check":
            return parity
        if wish == "switch" and not parity.equal:
            raise Differs("the rebuilt rows are not the live ones; the live rows stay")
        heard()
        await self._switch()
        return parity

    async def _ends(self) -> Mapping[int, int]:
        return await self._real_tail.ends()

    @property
    def _real_tail(self) -> EventTail:
        return self._tools.outside.tail

    async def _bounds(self) -> dict[int, int]:
        """Return where the live rows stand, or the log's end for a partition that they cannot be right about."""
        live, ends = await beside.positions(self._to.live), await self._ends()
        return {number: _bound(live.get(number), end) for number, end in ends.items()}

    async def _catch_up(self) -> None:
        """Fold until few records are left. Raises: Unavailable."""
        for _ in range(ROUNDS):
            bounds = await self._bounds()
            await self._fold_to(bounds)
            now = await self._bounds()
            if sum(now.values()) - sum(bounds.values()) <= CLOSE:
                return
        raise Unavailable(
            "the log grows faster than it can be folded beside the live rows; try again when it is quieter"
        )

    async def _fold_to(self, bounds: Mapping[int, int]) -> None:
        """Fold exactly up to the bounds. Raises: Corrupt when a partition stops before."""
        self._tail.bounds = bounds
        settings = FoldSettings(self._tools.database_uri, self._tools.owner, patience=timedelta(milliseconds=200))
        models, runs = read_models()
        fold = Fold(self._to.fold, settings, self._outside, models, runs)
        await fold.begin()
        try:
            while fold.behind:
                await fold.cycle()
                heard()
                self._tools.progress.show(
                    sum(one.next_offset for one in fold.partitions.values()), sum(bounds.values())
                )
        finally:
            await fold.end()
        for one in fold.partitions.values():
            if one.stopped is not None:
                raise Corrupt(f"partition {one.number} stopped: {one.stopped}; the live rows stay")

    async def _compare(self) -> Parity:
        """Fold to the positions of a snapshot of the live rows, and compare both there."""
        live, anew = self._to.live, self._to.anew
        async with live.transaction(isolation="repeatable_read", readonly=True):
            positions = await beside.positions(live)
            erased_before = datetime.now(UTC) - self._tools.erased_after
            ends = await self._ends()
            await self._fold_to({number: _bound(positions.get(number), end) for number, end in ends.items()})
            async with anew.transaction(isolation="repeatable_read", readonly=True):
                return await self._compared(Side(live, ""), Side(anew, NEXT), positions, erased_before)

    async def _compared(
        self, live: Side, anew: Side, positions: Mapping[int, Position], erased_before: datetime
    ) -> Parity:
        self._tools.progress.note("comparing")
        models, _ = read_models()
        tables = await tables_of(live, anew, models)
        here = await beside.positions(anew.connection, NEXT)
        of = sorted(number for number, one in here.items() if positions.get(number) == one)
        theirs, ours = await asyncio.gather(*(sums(side, tables, of, erased_before) for side in (live, anew)))
        found = Parity(theirs, ours, tables)
        found = Parity(theirs, ours, tables, await differences(live, anew, found, erased_before))
        _report(found, here, of, self._tools.say)
        return found

    async def _switch(self) -> None:
        """Hold the projector, fold what is left, and exchange; not while somebody keeps it from being held."""
        for _ in range(ROUNDS):
            await self._catch_up()
            try:
                async with beside.standing_still(self._to.live):
                    bounds = await self._bounds()
                    if await self._behind(bounds) <= CLOSE:
                        await self._fold_to(bounds)
                        await beside.exchange(self._to.live)
                        break
            except asyncpg.LockNotAvailableError:
                self._tools.progress.note("waiting for a long transaction on the live rows")
        else:
            raise Unavailable("the projector could not be held: the live rows stay")
        self._tools.progress.note("switched")

    async def _behind(self, bounds: Mapping[int, int]) -> int:
        ours = await beside.positions(self._to.anew, NEXT)
        return sum(bound - ours[number].next_offset if number in ours else bound for number, bound in bounds.items())


def heard() -> None:
    """Raise a cancel that was swallowed: `asyncio.wait_for`, in which libraries wait, may lose one (Python 3.11)."""
    current = asyncio.current_task()
    if current is not None and current.cancelling():
        raise asyncio.CancelledError


def _bound(live: Position | None, end: int) -> int:
    return end if live is None or live.next_offset > end else live.next_offset


def _report(
    found: Parity, positions: Mapping[int, Position], compared: Sequence[int], say: Callable[[str], None]
) -> None:
    """Say of every partition what was compared, then what differs."""
    for number in sorted({place[1] for place in found.live.keys() | found.anew.keys()}):
        say(_line(found, number, positions.get(number)))
    for number in sorted(set(positions) - set(compared)):
        say(f"partition {number}: not compared, the live rows were folded from another log")
    for table in found.tables:
        if table.changed is not None:
            say(f"{table.name}: not compared, {table.changed}")
    for one in found.differences:
        counts = f"{one.missing} missing, {one.surplus} too many, {one.changed} changed"
        say(f"{one.table}: {one.rows} live rows differ ({counts}), the first is {one.first}")
    rows = sum(one.rows for one in found.anew.values())
    say(f"{'the same' if found.equal else 'NOT the same'}: {rows} rows in {len(found.tables)} tables")


def _line(found: Parity, number: int, position: Position | None) -> str:
    at = f"partition {number} at {position.next_offset}" if position else "no partition"
    cells: list[str] = []
    for table in (table.name for table in found.tables if table.changed is None):
        live, anew = found.live.get((table, number)), found.anew.get((table, number))
        if live == anew and anew is not None:
            cells.append(f"{table} {anew.rows} {anew.digest}")
        elif live != anew:
            shown = [f"{one.rows} {one.digest}" if one else "0" for one in (live, anew)]
            cells.append(f"{table} {shown[0]} != {shown[1]}")
    return f"{at}: {', '.join(cells)}"
