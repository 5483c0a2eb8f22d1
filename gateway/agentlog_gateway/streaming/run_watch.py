"""Decides how a gateway learns that a run has ended: by hint, and by asking for the rows of watched runs now and then.

A hint costs one look at the rows for all watchers of the run together. Whoever misses hints (Redis away, emptied) is
served by the look that comes every `look_every`.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.notification import Hint
from agentlog_facts.ports import HintFeed
from agentlog_facts.thread import RunStatus

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=2)
REMEMBERED = 4096
"""Ends that nobody watched yet: a run may end between its creation's verdict and its watch."""


@dataclass(frozen=True, slots=True)
class RunStatusRow:
    """What a stream needs of `read_v1.runs`.

    `resumable` is `kwargs.resumable`; `deleted`: the run is hidden (deleted by somebody, or rolled back); `error` as in
    RunFinished ({error, message}); rows of a deleted temporary thread are returned too, hidden or not. `version` is
    that of the thread's stream: epochs up to it are of claims that this row knows of.
    """

    run_id: RunId
    thread_id: ThreadId
    status: RunStatus
    resumable: bool = False
    epoch: int | None = None
    outputs_from: int | None = None
    outputs_to: int | None = None
    finished_event_id: str | None = None
    error: JsonObject | None = None
    deleted: bool = False
    version: int = -1

    @property
    def ended(self) -> bool:
        """Tell whether the run's end was accepted, or the run is gone."""
        return self.deleted or self.status not in ("pending", "running")


class RunRows(Protocol):
    """Rows of runs by id; implemented over `agentlog_projections.models.runs` in the composition root."""

    async def rows(self, run_ids: Sequence[RunId]) -> Mapping[RunId, RunStatusRow | None]:
        """Return the rows, deleted ones and those of deleted threads included; None: there is no such run.

        Runs of which nobody can tell now, since their rows are being built, are missing. Raises: Unavailable.
        """
        ...


@dataclass(slots=True, eq=False)
class RunSubscription:
    """One interest in a run's end. `row` is set when it ended; `gone` when there is no such run (any more)."""

    run_id: RunId
    wake: Callable[[], None]
    row: RunStatusRow | None = None
    gone: bool = False
    since: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    ended_at: float | None = None

    @property
    def over(self) -> bool:
        """Tell whether nothing more will happen to the run."""
        return self.ended_at is not None

    def settle(self, row: RunStatusRow | None) -> None:
        """Take a row that was read; wake the watcher when it says that the run is over."""
        if self.over or (row is not None and not row.ended):
            return
        self.row, self.gone = row, row is None or (row.deleted and row.status != "rollback")
        self.ended_at = asyncio.get_running_loop().time()
        self.wake()


class RunWatcher:
    """All watches of a gateway; `run()` serves them under the composition root's task group."""

    def __init__(self, rows: RunRows, hints: HintFeed, look_every: timedelta = LOOK_EVERY) -> None:
        self._rows = rows
        self._hints = hints
        self._look_every_s = look_every.total_seconds()
        self._watches: dict[RunId, set[RunSubscription]] = {}
        self._recent: OrderedDict[RunId, None] = OrderedDict()
        self._asked: set[RunId] = set()
        self._asking = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._answer())
            tasks.create_task(self._remind())

    async def look(self, run_id: RunId) -> RunStatusRow | None:
        """Return the row of a run. Raises: Unavailable, also while its rows are being built."""
        found = await self._rows.rows([run_id])
        if run_id not in found:
            raise Unavailable(f"run {run_id}: the projection is being built, retry later")
        return found[run_id]

    def watch(self, run_id: RunId, wake: Callable[[], None]) -> RunSubscription:
        """Watch a run; `wake` is called once, when it is over. Give the watch back with `unwatch`."""
        watch = RunSubscription(run_id, wake)
        self._watches.setdefault(run_id, set()).add(watch)
        if run_id in self._recent:
            self.ask([run_id])
        return watch

    def unwatch(self, watch: RunSubscription) -> None:
        """End a watch; more than once does no harm."""
        watching = self._watches.get(watch.run_id, set())
        watching.discard(watch)
        if not watching:
            self._watches.pop(watch.run_id, None)

    def ask(self, run_ids: Iterable[RunId]) -> None:
        """Look at the rows of these runs soon: there is reason to believe that they ended."""
        self._asked.update(run_id for run_id in run_ids if run_id in self._watches)
        if self._asked:
            self._asking.set()

    async def wait(self, run_id: RunId, patience: timedelta) -> RunSubscription | None:
        """Return the settled watch of a run once it is over, None when `patience` has passed. Raises: Unavailable."""
        over = asyncio.Event()
        watch = self.watch(run_id, over.set)
        try:
            watch.settle(await self.look(run_id))
            async with asyncio.timeout(patience.total_seconds()):
                await over.wait()
        except TimeoutError:
            return None
        finally:
            self.unwatch(watch)
        return watch

    async def _listen(self) -> None:
        async with self._hints.subscribe() as hints:
            await self._hear(hints)

    async def _hear(self, hints: AsyncIterator[Hint]) -> None:
        async for hint in hints:
            ended = [RunId(run_id) for run_id in hint.ended]
            for run_id in ended:
                self._recent[run_id] = None
            while len(self._recent) > REMEMBERED:
                self._recent.popitem(last=False)
            self.ask(ended)

    async def _answer(self) -> None:
        while True:
            await self._asking.wait()
            self._asking.clear()
            asked, self._asked = sorted(self._asked), set()
            try:
                found = await self._rows.rows(asked)
            except Unavailable as error:  # `_remind` asks again
                log.warning("run_ends.unavailable", extra={"error": str(error)})
                continue
            for run_id, row in found.items():  # `_remind` asks again for what nobody could tell
                self._settle(run_id, row)

    def _settle(self, run_id: RunId, row: RunStatusRow | None) -> None:
        for watch in tuple(self._watches.get(run_id, ())):
            watch.settle(row)

    async def _remind(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._look_every_s)  # the safety net: polling, in case hints do not come
            old = loop.time() - self._look_every_s
            watches = [watch for watching in self._watches.values() for watch in watching]
            self.ask({watch.run_id for watch in watches if not watch.over and watch.since <= old})
