"""Rebuild into a shadow schema: fold, compare at equal positions, catch up, switch. Live rows serve until the switch.

| # | step | if the process dies here |
|---|---|---|
| 1 | create the shadow tables, fold up to the positions of the live rows | the next rebuild removes them |
| 2 | in one snapshot of the live rows, fold to its positions and compare all rows | as 1 |
| 3 | catch up; pause the projector, fold the last records, exchange the schemas, in one transaction | as 1, or done |
| 4 | drop the replaced tables | as 1 |
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
from agentlog_projections.projector.session import FoldPorts, ProjectorSession
from agentlog_projections.rebuild import shadow_schema
from agentlog_projections.rebuild.bounded_tail import BoundedTail
from agentlog_projections.rebuild.parity import Parity, Side, differences, sums, tables_of
from agentlog_projections.rebuild.shadow_schema import LEDGER, SHADOW, Position

Mode: TypeAlias = Literal["switch", "accept", "check"]
"""Switch if all rows are equal, switch in any case, or only compare."""

CLOSE = 200
"""With at most this many records left to fold, the projector is paused for the rest."""
ROUNDS = 100
"""Most attempts to catch up with a growing log."""


class Differs(Conflict):
    """The rebuilt rows differ from the live rows, and the mode does not accept it."""

    code = "rows_differ"


async def rebuild_shadow(dependencies: RebuildDependencies, mode: Mode) -> Parity:
    """Rebuild into the shadow schema. The live rows stay complete in any case, and incomplete tables are removed.

    Raises: RebuildRunning, Differs, Cancelled, Unavailable, Corrupt (this release cannot read a record).
    """
    rebuild = _ShadowRebuild(dependencies, mode)
    await run_exclusively(dependencies, rebuild)
    if rebuild.parity is None:
        raise AssertionError("a complete rebuild has compared the rows")
    return rebuild.parity


class _ShadowRebuild:
    """Implements `rebuild_session.Rebuild`; a later attempt continues the fold of an earlier one."""

    def __init__(self, dependencies: RebuildDependencies, mode: Mode) -> None:
        """`parity` is the result of the last comparison."""
        self.parity: Parity | None = None
        self._dependencies = dependencies
        self._mode = mode

    async def connect(self) -> Connection:
        """Open the connection that writes the new rows."""
        return await shadow_schema.connect_shadow(self._dependencies.database_uri)

    async def make(self, to: Connections) -> None:
        """Create the shadow tables."""
        await shadow_schema.make(to.fold, self._dependencies.ddl, LEDGER + SHADOW, self._dependencies.owner)

    async def resume(self, to: Connections) -> bool:
        """Return whether our shadow tables still exist; False if they are the live ones by now. Raises: Cancelled."""
        if await shadow_schema.signed(to.live, LEDGER + SHADOW) == self._dependencies.owner:
            return True
        if await shadow_schema.signed(to.live, LEDGER) == self._dependencies.owner:
            self._dependencies.progress.note("switched")
            return False
        raise Cancelled("the rebuild was cancelled; the live rows are as they were")

    async def run(self, to: Connections) -> None:
        """Fold, compare and switch as the mode says. Raises: Differs, Corrupt."""
        anew = await shadow_schema.connect_plain(self._dependencies.database_uri)
        try:
            attempt = _ShadowAttempt(self._dependencies, to, anew)
            self.parity = await attempt.compare()
            if self._mode == "check":
                return
            if self._mode == "switch" and not self.parity.equal:
                raise Differs("the rebuilt rows differ from the live rows; the live rows stay")
            raise_if_cancelled()
            await attempt.switch()
        finally:
            anew.terminate()


class _ShadowAttempt:
    """One attempt on one set of connections; `anew` reads the new rows."""

    def __init__(self, dependencies: RebuildDependencies, to: Connections, anew: Connection) -> None:
        self._dependencies = dependencies
        self._live, self._anew, self._fold = to.live, anew, to.fold
        self._tail = BoundedTail(dependencies.ports.tail)
        ports = dependencies.ports
        self._ports = FoldPorts(self._tail, ports.partition_of, ports.clock, ports.announcer)

    async def compare(self) -> Parity:
        """Fold up to the live rows and compare both."""
        await self._catch_up()
        await shadow_schema.analyze(self._anew)
        return await self._compare_at_snapshot()

    async def _ends(self) -> Mapping[int, int]:
        return await self._dependencies.ports.tail.ends()

    async def _bounds(self) -> dict[int, int]:
        """Return the position of the live rows per partition, or the log's end where theirs is missing or after it."""
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
        settings = replace(self._dependencies.fold_settings(), patience=timedelta(milliseconds=200))
        models, runs = read_models(settings.cache_bytes)
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

    async def _compare_at_snapshot(self) -> Parity:
        """Fold to the positions of a snapshot of the live rows, and compare both there."""
        live, anew = self._live, self._anew
        async with live.transaction(isolation="repeatable_read", readonly=True):
            positions = await shadow_schema.positions(live)
            erased_before = datetime.now(UTC) - self._dependencies.erased_after
            ends = await self._ends()
            await self._fold_to({number: _bound(positions.get(number), end) for number, end in ends.items()})
            async with anew.transaction(isolation="repeatable_read", readonly=True):
                return await self._compare_sides(Side(live, ""), Side(anew, SHADOW), positions, erased_before)

    async def _compare_sides(
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
