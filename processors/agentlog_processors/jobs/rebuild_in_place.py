"""Rebuild into the live tables: if there are no rows, or with `--in-place`.

| # | step | if the process dies here |
|---|---|---|
| 1 | fence off the projector; drop and create the tables, in one transaction | the rows are unchanged |
| 2 | fold to the log's end; mutations get a 503 | the projector takes over and continues the fold |
"""

from agentlog_facts.errors import Diverged, Unavailable
from agentlog_postgres.connection import Connection, connect_projector
from agentlog_processors.jobs.rebuild_session import (
    Cancelled,
    Connections,
    RebuildDependencies,
    raise_if_cancelled,
    run_exclusively,
)
from agentlog_projections.models.registry import read_models
from agentlog_projections.projector.ownership import fence_off
from agentlog_projections.projector.session import ProjectorSession
from agentlog_projections.rebuild import shadow_schema
from agentlog_projections.rebuild.shadow_schema import IN_PLACE, LEDGER, NAME


async def rebuild_in_place(dependencies: RebuildDependencies, *, dropping: bool) -> None:
    """Fold into the live tables. `dropping`: drop existing rows; otherwise continue from rows that appeared meanwhile.

    Raises: RebuildRunning, Cancelled, Unavailable, Diverged, Misconfigured.
    """
    await run_exclusively(dependencies, _RebuildInPlace(dependencies, dropping=dropping))


class _RebuildInPlace:
    """Implements `rebuild_session.Rebuild`."""

    def __init__(self, dependencies: RebuildDependencies, *, dropping: bool) -> None:
        self._dependencies = dependencies
        self._dropping = dropping
        self._name = dependencies.owner + IN_PLACE

    async def connect(self) -> Connection:
        """Open the connection that folds; a cancel finds it by its name."""
        return await connect_projector(self._dependencies.database_uri, NAME)

    async def make(self, to: Connections) -> None:
        """Fence off the projector, then create the tables again if there are no rows or `dropping` is set."""
        await self._fence(to)
        if self._dropping or not await shadow_schema.has_rows(to.fold):
            await shadow_schema.make(to.fold, (shadow_schema.DROP, *self._dependencies.ddl), LEDGER, self._name)
        else:
            await shadow_schema.sign(to.fold, LEDGER, self._name)

    async def resume(self, to: Connections) -> bool:
        """Fence off the projector again. Raises: Cancelled."""
        if await shadow_schema.signed(to.live, LEDGER) != self._name:
            raise Cancelled("the rebuild was cancelled; a running projector continues from where it stopped")
        await self._fence(to)
        return True

    async def run(self, to: Connections) -> None:
        """Own every partition and fold until all are present. Raises: Diverged."""
        settings = self._dependencies.fold_settings()
        models, runs = read_models(settings.cache_bytes)
        fold = ProjectorSession(to.fold, settings, self._dependencies.ports, models, runs)
        await fold.begin()
        total = sum(one.target for one in fold.partitions.values())
        try:
            while fold.behind:
                await fold.cycle()
                raise_if_cancelled()
                if to.live.is_closed():
                    raise Unavailable("the lock of rebuilds was lost")
                self._dependencies.progress.show(sum(one.next_offset for one in fold.partitions.values()), total)
        finally:
            await fold.end()
        for one in fold.partitions.values():
            if one.stopped is not None:
                raise Diverged(f"partition {one.number} stopped: {one.stopped}")

    async def _fence(self, to: Connections) -> None:
        await fence_off(to.fold, list(await self._dependencies.ports.tail.ends()), self._dependencies.owner)
