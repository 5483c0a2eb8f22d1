"""Rebuild beside the live rows: fold, compare at equal positions, catch up, switch; they stay live until the switch.

| # | step | if we die here |
|---|---|---|
| 1 | make tables beside the live ones, fold up to where those stand | leftovers for the next rebuild to remove |
| 2 | in one snapshot of the live rows, fold to its positions and compare all rows | as 1 |
| 3 | catch up; hold the projector, fold the last records, exchange the schemas, in one transaction | as 1, or done |
| 4 | drop the replaced tables | as 1 |
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

import asyncpg

from agentlog_facts.errors import Conflict, Corrupt, Unavailable
from agentlog_postgres.connection import Connection
from agentlog_processors.jobs.rebuild_session import (
    Cancelled,
    Connections,
    RebuildDependencies,
    raise_if_cancelled,
    run_exclusively,
)
from agentlog_projections.models.registry import read_models
from agentlog_projections.projector.session import FoldPorts, FoldSettings, ProjectorSession
from agentlog_projections.rebuild import shadow_schema
from agentlog_projections.rebuild.bounded_tail import BoundedTail
from agentlog_projections.rebuild.parity import Parity, Side, differences, sums, tables_of
from agentlog_projections.rebuild.shadow_schema import LEDGER, SHADOW, Position

Wish: TypeAlias = Literal["switch", "accept", "check"]
"""Switch if all rows are the same, switch in any case, or only compare."""

CLOSE = 200
"""From so few records behind the live rows, the projector is made to wait for the rest."""
ROUNDS = 100
"""How often the fold may run after a log that grows meanwhile."""


class Differs(Conflict):
    """The rebuilt rows are not the live ones, and nobody said that this is all right."""

    code = "rows_differ"


async def rebuild_beside(dependencies: RebuildDependencies, wish: Wish) -> Parity:
    """Do it; whatever happens, the live rows are whole, and what is half built is removed.

    Raises: RebuildRunning, Differs, Cancelled, Unavailable, Corrupt (this release cannot read the log that far).
    """
    rebuild = _RebuildBeside(dependencies, wish)
    await run_exclusively(dependencies, rebuild)
    if rebuild.parity is None:
        raise AssertionError("a rebuild that ended well has compared")
    return rebuild.parity


class _RebuildBeside:
    """Implements `rebuild_session.Rebuild`; a later try continues where the fold of an earlier one stopped."""

    def __init__(self, dependencies: RebuildDependencies, wish: Wish) -> None:
        """`parity` is what the last comparison found."""
        self.parity: Parity | None = None
        self._dependencies = dependencies
        self._wish = wish

    async def connect(self) -> Connection:
        """Open the connection that writes the new rows."""
        return await shadow_schema.connect_next(self._dependencies.database_uri)

    async def make(self, to: Connections) -> None:
        """Make tables beside the live ones."""
        await shadow_schema.make(to.fold, self._dependencies.ddl, LEDGER + SHADOW, self._dependencies.owner)

    async def go_on(self, to: Connections) -> bool:
        """Look whether our tables are still there, or are the live ones by now. Raises: Cancelled."""
        if await shadow_schema.signed(to.live, LEDGER + SHADOW) == self._dependencies.owner:
            return True
        if await shadow_schema.signed(to.live, LEDGER) == self._dependencies.owner:
            self._dependencies.progress.note("switched")
            return False
        raise Cancelled("the rebuild was cancelled; the live rows are as they were")

    async def run(self, to: Connections) -> None:
        """Fold, compare and do what was asked for. Raises: Differs, Corrupt."""
        anew = await shadow_schema.connect_plain(self._dependencies.database_uri)
        try:
            one = _Try(self._dependencies, to, anew)
            self.parity = await one.compared()
            if self._wish == "check":
                return
            if self._wish == "switch" and not self.parity.equal:
                raise Differs("the rebuilt rows differ from the live rows; the live rows stay")
            raise_if_cancelled()
            await one.switch()
        finally:
            anew.terminate()


class _Try:
    """One try on one set of connections; `anew` reads the new rows."""

    def __init__(self, dependencies: RebuildDependencies, to: Connections, anew: Connection) -> None:
        self._dependencies = dependencies
        self._live, self._anew, self._fold = to.live, anew, to.fold
        self._tail = BoundedTail(dependencies.ports.tail)
        ports = dependencies.ports
        self._ports = FoldPorts(self._tail, ports.partition_of, ports.clock, ports.announcer)

    async def compared(self) -> Parity:
        """Fold up to the live rows and compare both."""
        await self._catch_up()
        await shadow_schema.analyze(self._anew)
        return await self._compare()

    async def _ends(self) -> Mapping[int, int]:
        return await self._dependencies.ports.tail.ends()

    async def _bounds(self) -> dict[int, int]:
        """Return where the live rows stand, or the log's end for a partition that they cannot be right about."""
        live, ends = await shadow_schema.positions(self._live), await self._ends()
        return {number: _bound(live.get(number), end) for number, end in ends.items()}

    async def _catch_up(self) -> None:
        """Fold until few records are left. Raises: Unavailable."""
        for _ in range(ROUNDS):
            bounds = await self._bounds()
            await self._fold_to(bounds)
            now = await self._bounds()
            if sum(now.values()) - sum(bounds.values()) <= CLOSE:
                return
        raise Unavailable("the log grows faster than the rebuild can fold it; try again at a quieter time")

    async def _fold_to(self, bounds: Mapping[int, int]) -> None:
        """Fold exactly up to the bounds. Raises: Corrupt when a partition stops before."""
        self._tail.bounds = bounds
        settings = FoldSettings(
            self._dependencies.database_uri, self._dependencies.owner, patience=timedelta(milliseconds=200)
        )
        models, runs = read_models()
        fold = ProjectorSession(self._fold, settings, self._ports, models, runs)
        await fold.begin()
        try:
            while fold.behind:
                await fold.cycle()
                raise_if_cancelled()
                self._dependencies.progress.show(
                    sum(one.next_offset for one in fold.partitions.values()), sum(bounds.values())
                )
        finally:
            await fold.end()
        for one in fold.partitions.values():
            if one.stopped is not None:
                raise Corrupt(f"partition {one.number} stopped: {one.stopped}; the live rows stay")

    async def _compare(self) -> Parity:
        """Fold to the positions of a snapshot of the live rows, and compare both there."""
        live, anew = self._live, self._anew
        async with live.transaction(isolation="repeatable_read", readonly=True):
            positions = await shadow_schema.positions(live)
            erased_before = datetime.now(UTC) - self._dependencies.erased_after
            ends = await self._ends()
            await self._fold_to({number: _bound(positions.get(number), end) for number, end in ends.items()})
            async with anew.transaction(isolation="repeatable_read", readonly=True):
                return await self._compared(Side(live, ""), Side(anew, SHADOW), positions, erased_before)

    async def _compared(
        self, live: Side, anew: Side, positions: Mapping[int, Position], erased_before: datetime
    ) -> Parity:
        self._dependencies.progress.note("comparing")
        models, _ = read_models()
        tables = await tables_of(live, anew, models)
        here = await shadow_schema.positions(anew.connection, SHADOW)
        of = sorted(number for number, one in here.items() if positions.get(number) == one)
        theirs, ours = await asyncio.gather(*(sums(side, tables, of, erased_before) for side in (live, anew)))
        found = Parity(theirs, ours, tables)
        found = Parity(theirs, ours, tables, await differences(live, anew, found, erased_before))
        _report(found, here, of, self._dependencies.say)
        return found

    async def switch(self) -> None:
        """Pause the projector, fold the remaining records, exchange the schemas; retry while a lock prevents it."""
        for _ in range(ROUNDS):
            await self._catch_up()
            try:
                async with shadow_schema.projector_paused(self._live):
                    bounds = await self._bounds()
                    if await self._behind(bounds) <= CLOSE:
                        await self._fold_to(bounds)
                        await shadow_schema.exchange(self._live)
                        break
            except asyncpg.LockNotAvailableError:
                self._dependencies.progress.note("waiting for a long transaction on the live rows")
        else:
            raise Unavailable("the projector could not be paused; the live rows stay")
        self._dependencies.progress.note("switched")

    async def _behind(self, bounds: Mapping[int, int]) -> int:
        ours = await shadow_schema.positions(self._anew, SHADOW)
        return sum(bound - ours[number].next_offset if number in ours else bound for number, bound in bounds.items())


def _bound(live: Position | None, end: int) -> int:
    return end if live is None or live.next_offset > end else live.next_offset


def _report(
    found: Parity, positions: Mapping[int, Position], compared: Sequence[int], say: Callable[[str], None]
) -> None:
    """Report the comparison of each partition, then the differences."""
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
