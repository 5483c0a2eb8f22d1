"""Waiting for the verdicts of appended records: by hint, else by a query of PostgreSQL; listeners get all hints.

A verdict belongs to an append id, not to an offset: after a log is restored from a backup, hints and rows may describe
other records with the same offsets.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import OutcomeUnknown, Unavailable
from agentlog_facts.guard import Verdict
from agentlog_facts.notification import Hint
from agentlog_facts.ports import Clock, HintFeed, LedgerReads
from agentlog_infra import timeouts

log = logging.getLogger(__name__)

REMEMBERED = 256
"""Hints kept per partition: a verdict often arrives before its writer waits for it."""
MAX_QUERIED = 1_000


@dataclass(slots=True, eq=False)
class _Waiter:
    """An append that waits for its verdict."""

    place: LogPosition
    append_id: str
    query_at: float
    verdict: asyncio.Future[Verdict]

    def settle(self, verdict: Verdict | None) -> None:
        if verdict is not None and not self.verdict.done():
            self.verdict.set_result(verdict)


class HintVerdicts:
    """Implements `ports.Verdicts` and hands each hint to its listeners. One per process, on one event loop."""

    def __init__(self, feed: HintFeed, ledger: LedgerReads, clock: Clock) -> None:
        self._feed = feed
        self._ledger = ledger
        self._clock = clock
        self._recent: defaultdict[int, deque[Hint]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._waiters: defaultdict[int, dict[_Waiter, None]] = defaultdict(dict)
        self._has_waiters = asyncio.Event()
        self._listeners: list[Callable[[Hint], None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start to listen to hints, and to query the verdicts that no hint brings."""
        self._tasks = [
            asyncio.create_task(self._listen(), name="verdicts"),
            asyncio.create_task(self._query_late(), name="verdicts, queried"),
        ]
        for task in self._tasks:
            task.add_done_callback(_log_end)

    async def stop(self) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait(self, place: LogPosition, append_id: str, deadline: float) -> Verdict:
        """Return the verdict on an append. Raises: OutcomeUnknown at the deadline, even if the database hangs."""
        known = self._remembered(place, append_id)
        if known is not None:
            return known
        now = self._clock.monotonic()
        waiter = _Waiter(place, append_id, now + timeouts.VERDICT_HINT_S, asyncio.get_running_loop().create_future())
        waiters = self._waiters[place.partition]
        waiters[waiter] = None
        self._has_waiters.set()
        try:
            await asyncio.wait({waiter.verdict}, timeout=max(0.0, deadline - now))
        finally:
            del waiters[waiter]
        if waiter.verdict.done():
            return waiter.verdict.result()
        raise OutcomeUnknown("outcome unknown, retry with the same Idempotency-Key")

    def listen(self, listener: Callable[[Hint], None]) -> None:
        """Call `listener` with every hint from now on; it must not block."""
        self._listeners.append(listener)

    async def _query_late(self) -> None:
        """Query late verdicts: a lost hint costs at most one query, and one query serves all waiting writers."""
        while True:
            await self._has_waiters.wait()
            await asyncio.sleep(timeouts.VERDICT_POLL_S)
            now = self._clock.monotonic()
            waiting = [waiter for waiters in self._waiters.values() for waiter in waiters]
            if not waiting:
                self._has_waiters.clear()
            late = sorted((waiter for waiter in waiting if waiter.query_at <= now), key=lambda waiter: waiter.query_at)
            if late:
                await self._query(late[:MAX_QUERIED], now + timeouts.VERDICT_HINT_S)

    async def _query(self, late: Sequence[_Waiter], again_at: float) -> None:
        for waiter in late:
            waiter.query_at = again_at
        try:
            async with asyncio.timeout(timeouts.VERDICT_QUERY_S):
                rows = await self._ledger.at([waiter.place for waiter in late])
        except (Unavailable, TimeoutError) as error:
            log.warning(
                "verdict.look_failed", extra={"waiting": len(late), "error": f"{type(error).__name__}: {error}"}
            )
            return
        except Exception:  # nothing else would query again
            log.exception("verdict.look_failed", extra={"waiting": len(late)})
            return
        found = {(row.place, row.append_id): row.verdict for row in rows}
        for waiter in late:
            waiter.settle(found.get((waiter.place, waiter.append_id)))

    def _remembered(self, place: LogPosition, append_id: str) -> Verdict | None:
        for hint in reversed(self._recent[place.partition]):
            if hint.to < place.offset:
                return None
            if hint.after < place.offset:
                return hint.verdict(place.offset, append_id)
        return None

    async def _listen(self) -> None:
        async with self._feed.subscribe() as hints:
            async for hint in hints:
                self._receive(hint)

    def _receive(self, hint: Hint) -> None:
        self._recent[hint.partition].append(hint)
        for waiter in self._waiters[hint.partition]:
            if hint.after < waiter.place.offset <= hint.to:
                waiter.settle(hint.verdict(waiter.place.offset, waiter.append_id))
        for listener in self._listeners:
            listener(hint)


def _log_end(task: "asyncio.Task[None]") -> None:
    """Log that hints are no longer received, or late verdicts no longer queried."""
    if not task.cancelled():
        log.error("verdicts.ended", extra={"task": task.get_name()}, exc_info=task.exception())
