"""Decides a rebuild into the live tables themselves: where there are no rows, or when it is asked for.

| # | step | if we die here |
|---|---|---|
| 1 | fence the projector off; drop the tables and make them, in one transaction | the rows are as they were |
| 2 | fold to the log's end; mutations are answered 503 | the projector takes over and folds on from there |
"""

from agentlog_facts.errors import Diverged, Unavailable
from agentlog_processors.rebuild_tries import Cancelled, Connections, Tools, heard, persist
from agentlog_projections import beside
from agentlog_projections.beside import IN_PLACE, LEDGER, NAME
from agentlog_projections.database import Connection, connect
from agentlog_projections.fold import Fold, FoldSettings
from agentlog_projections.partitions import fence_off
from agentlog_projections.read_models import read_models


async def rebuild_in_place(tools: Tools, *, dropping: bool) -> None:
    """Fold into the live tables. `dropping`: even if there are rows; else rows that came meanwhile are folded on.

    Raises: RebuildRunning, Cancelled, Unavailable, Diverged, Misconfigured.
    """
    await persist(tools, _RebuildInPlace(tools, dropping=dropping))


class _RebuildInPlace:
    """Keeps `rebuild_tries.Rebuild`."""

    def __init__(self, tools: Tools, *, dropping: bool) -> None:
        self._tools = tools
        self._dropping = dropping
        self._name = tools.owner + IN_PLACE

    async def connect(self) -> Connection:
        """Open the connection that folds; by its name a cancel finds it."""
        return await connect(self._tools.database_uri, NAME)

    async def make(self, to: Connections) -> None:
        """Keep the projector off, then make the tables anew where that loses nothing, or is asked for."""
        await self._fence(to)
        if self._dropping or not await beside.has_rows(to.fold):
            await beside.make(to.fold, (beside.DROP, *self._tools.ddl), LEDGER, self._name)
        else:
            await beside.sign(to.fold, LEDGER, self._name)

    async def go_on(self, to: Connections) -> bool:
        """Keep the projector off again. Raises: Cancelled."""
        if await beside.signed(to.live, LEDGER) != self._name:
            raise Cancelled("the rebuild was cancelled; a projector that runs folds on where it stopped")
        await self._fence(to)
        return True

    async def run(self, to: Connections) -> None:
        """Take every partition and fold until all are present. Raises: Diverged."""
        settings = FoldSettings(self._tools.database_uri, self._tools.owner)
        models, runs = read_models()
        fold = Fold(to.fold, settings, self._tools.outside, models, runs)
        await fold.begin()
        total = sum(one.target for one in fold.partitions.values())
        try:
            while fold.behind:
                await fold.cycle()
                heard()
                if to.live.is_closed():
                    raise Unavailable("the lock of rebuilds was lost")
                self._tools.progress.show(sum(one.next_offset for one in fold.partitions.values()), total)
        finally:
            await fold.end()
        for one in fold.partitions.values():
            if one.stopped is not None:
                raise Diverged(f"partition {one.number} stopped: {one.stopped}")

    async def _fence(self, to: Connections) -> None:
        await fence_off(to.fold, list(await self._tools.outside.tail.ends()), self._tools.owner)
