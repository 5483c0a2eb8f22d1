"""Watcher of runs: wakes streams and waiting calls once a run is over.

A hint costs one query for all subscriptions of a run together. Polling every `poll_s` replaces hints that were lost
(Redis away, emptied).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId
from agentlog_facts.notification import Hint
from agentlog_gateway import timeouts
from agentlog_projections.queries.run_status import RunStatusRow

log = logging.getLogger(__name__)

REMEMBERED = 4096
"""Number of ended runs in memory: a run may end between the verdict on its creation and the subscription."""


class RunRows(Protocol):
    """Status rows of runs by id."""

    async def rows(
        self, run_ids: Sequence[RunId], with_values: Collection[RunId] = ()
    ) -> Mapping[RunId, RunStatusRow | None]:
        """Return the rows, hidden ones and those of deleted threads included; None: there is no such run.

        The result lacks runs whose rows are being built. Raises: Unavailable.
        """
        ...


@dataclass(slots=True, eq=False)
class RunSubscription:
    """One subscription to a run's end.

    `row` is set when the run has ended, `gone` when there is no such run (any more), `fault` while the rows have been
    away for `timeouts.OUTAGE_S`. Each of these calls `wake`.
    """

    run_id: RunId
    wake: Callable[[], None]
    with_values: bool = False
    row: RunStatusRow | None = None
    gone: bool = False
    fault: Unavailable | None = None
    since: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    ended_at: float | None = None
    away_since: float | None = None

    @property
    def over(self) -> bool:
        """Return whether nothing more will happen to the run."""
        return self.ended_at is not None

    def settle(self, row: RunStatusRow | None) -> None:
        """Process the run's row; wake the subscriber if the run is over."""
        self.fault = self.away_since = None
        if self.over or (row is not None and not row.ended):
            return
        self.row, self.gone = row, row is None or (row.deleted and row.status != "rollback")
        self.ended_at = asyncio.get_running_loop().time()
        self.wake()

    def miss(self, error: Unavailable) -> None:
        """Note that the row could not be read; wake the subscriber once the outage has lasted too long."""
        now = asyncio.get_running_loop().time()
        self.away_since = now if self.away_since is None else self.away_since
        if not self.over and now - self.away_since > timeouts.OUTAGE_S:
            self.fault = error
            self.wake()


class RunWatcher:
    """All subscriptions of a gateway to runs; `run()` serves them, `on_hint()` receives hints."""

    def __init__(self, rows: RunRows, poll_s: float = timeouts.RUN_POLL_S) -> None:
        self._rows = rows
        self._poll_s = poll_s
        self._subscriptions: dict[RunId, set[RunSubscription]] = {}
        self._recent: OrderedDict[RunId, None] = OrderedDict()
        self._due: set[RunId] = set()
        self._any_due = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._refresh_due())
            tasks.create_task(self._poll())

    def on_hint(self, hint: Hint) -> None:
        """Read the rows of the runs that a hint names."""
        ended = [RunId(run_id) for run_id in hint.ended]
        for run_id in ended:
            self._recent[run_id] = None
        while len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        self.refresh(ended)

    async def look(self, run_id: RunId) -> RunStatusRow | None:
        """Return the row of a run. Raises: Unavailable, also while its rows are being built."""
        found = await self._rows.rows([run_id])
        if run_id not in found:
            raise _being_built(run_id)
        return found[run_id]

    def subscribe(self, run_id: RunId, wake: Callable[[], None], *, with_values: bool = False) -> RunSubscription:
        """Subscribe to a run's end, until `unsubscribe`."""
        made = RunSubscription(run_id, wake, with_values)
        self._subscriptions.setdefault(run_id, set()).add(made)
        if run_id in self._recent:
            self.refresh([run_id])
        return made

    def unsubscribe(self, subscription: RunSubscription) -> None:
        """End a subscription; a second call has no effect."""
        others = self._subscriptions.get(subscription.run_id, set())
        others.discard(subscription)
        if not others:
            self._subscriptions.pop(subscription.run_id, None)

    def refresh(self, run_ids: Iterable[RunId]) -> None:
        """Read the rows of these runs soon, because they have probably ended."""
        self._due.update(run_id for run_id in run_ids if run_id in self._subscriptions)
        if self._due:
            self._any_due.set()

    async def outcome(
        self, run_id: RunId, *, look_first: bool = False, with_values: bool = False
    ) -> RunStatusRow | None:
        """Wait until a run is over and return its row, None when there is no such run.

        `look_first`: read the row at once, for a run that may have ended before this call; otherwise the row is first
        read after a hint or by the next poll. Raises: Unavailable after an outage of `timeouts.OUTAGE_S`.
        """
        woken = asyncio.Event()
        subscription = self.subscribe(run_id, woken.set, with_values=with_values)
        try:
            if look_first:
                self.refresh([run_id])
            await woken.wait()
        finally:
            self.unsubscribe(subscription)
        if subscription.fault is not None:
            raise subscription.fault
        return subscription.row

    async def _refresh_due(self) -> None:
        while True:
            await self._any_due.wait()
            self._any_due.clear()
            due, self._due = sorted(self._due), set()
            with_values = {run_id for run_id in due if any(one.with_values for one in self._of(run_id))}
            try:
                found = await self._rows.rows(due, with_values)
            except Unavailable as error:  # `_poll` asks again
                log.warning("run_watcher.unavailable", extra={"error": str(error)})
                for one in [one for run_id in due for one in self._of(run_id)]:
                    one.miss(error)
                continue
            for run_id in due:
                self._settle(run_id, found, run_id in with_values)

    def _of(self, run_id: RunId) -> tuple[RunSubscription, ...]:
        return tuple(self._subscriptions.get(run_id, ()))

    def _settle(self, run_id: RunId, found: Mapping[RunId, RunStatusRow | None], with_values: bool) -> None:
        for one in self._of(run_id):
            if run_id not in found:  # `_poll` asks again
                one.miss(_being_built(run_id))
            elif one.with_values and not with_values:  # the subscription came while the rows were read
                self.refresh([run_id])
            else:
                one.settle(found[run_id])

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._poll_s)  # in case hints are lost
            old = loop.time() - self._poll_s
            subscriptions = [one for of_run in self._subscriptions.values() for one in of_run]
            self.refresh({one.run_id for one in subscriptions if not one.over and one.since <= old})


def _being_built(run_id: RunId) -> Unavailable:
    return Unavailable(f"run {run_id}: the projection is being built, retry later")
