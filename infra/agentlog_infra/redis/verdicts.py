"""Verdicts over appended records, by hint or else by a look into PostgreSQL; hands hints on to listeners.

A verdict belongs to a try, not to a place: once a log was restored, its offsets stand for other records than those of
which hints and rows tell.
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
"""Hints kept per partition: a verdict often arrives before its writer asks for it."""
MOST_LOOKED_FOR = 1_000


@dataclass(slots=True, eq=False)
class _Asked:
    """A try that waits for its verdict."""

    place: LogPosition
    append_id: str
    look_at: float
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
        self._asked: defaultdict[int, dict[_Asked, None]] = defaultdict(dict)
        self._somebody_asks = asyncio.Event()
        self._listeners: list[Callable[[Hint], None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen to hints, and look up the verdicts that no hint brings."""
        self._tasks = [
            asyncio.create_task(self._listen(), name="verdicts"),
            asyncio.create_task(self._look_around(), name="verdicts, looked for"),
        ]
        for task in self._tasks:
            task.add_done_callback(_tell_end)

    async def stop(self) -> None:
        """Stop listening."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait(self, place: LogPosition, append_id: str, deadline: float) -> Verdict:
        """Return the verdict over a try. Raises: OutcomeUnknown at the deadline, whatever the database does."""
        known = self._remembered(place, append_id)
        if known is not None:
            return known
        now = self._clock.monotonic()
        asked = _Asked(place, append_id, now + timeouts.VERDICT_HINT_S, asyncio.get_running_loop().create_future())
        everybody = self._asked[place.partition]
        everybody[asked] = None
        self._somebody_asks.set()
        try:
            await asyncio.wait({asked.verdict}, timeout=max(0.0, deadline - now))
        finally:
            del everybody[asked]
        if asked.verdict.done():
            return asked.verdict.result()
        raise OutcomeUnknown("outcome unknown, retry with the same Idempotency-Key")

    def listen(self, listener: Callable[[Hint], None]) -> None:
        """Call `listener` with every hint from now on; it must not block."""
        self._listeners.append(listener)

    async def _look_around(self) -> None:
        """Look up late verdicts: a lost hint costs at most one look, and one query serves all writers that wait."""
        while True:
            await self._somebody_asks.wait()
            await asyncio.sleep(timeouts.VERDICT_POLL_S)
            now = self._clock.monotonic()
            waiting = [asked for everybody in self._asked.values() for asked in everybody]
            if not waiting:
                self._somebody_asks.clear()
            late = sorted((asked for asked in waiting if asked.look_at <= now), key=lambda asked: asked.look_at)
            if late:
                await self._look(late[:MOST_LOOKED_FOR], now + timeouts.VERDICT_HINT_S)

    async def _look(self, late: Sequence[_Asked], again_at: float) -> None:
        for asked in late:
            asked.look_at = again_at
        try:
            async with asyncio.timeout(timeouts.VERDICT_QUERY_S):
                rows = await self._ledger.at([asked.place for asked in late])
        except (Unavailable, TimeoutError) as error:
            log.warning(
                "verdict.look_failed", extra={"waiting": len(late), "error": f"{type(error).__name__}: {error}"}
            )
            return
        except Exception:  # nobody else would look again
            log.exception("verdict.look_failed", extra={"waiting": len(late)})
            return
        found = {(row.place, row.append_id): row.verdict for row in rows}
        for asked in late:
            asked.settle(found.get((asked.place, asked.append_id)))

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
                self._hear(hint)

    def _hear(self, hint: Hint) -> None:
        self._recent[hint.partition].append(hint)
        for asked in self._asked[hint.partition]:
            if hint.after < asked.place.offset <= hint.to:
                asked.settle(hint.verdict(asked.place.offset, asked.append_id))
        for listener in self._listeners:
            listener(hint)


def _tell_end(task: "asyncio.Task[None]") -> None:
    """Say that hints are not heard any more, or lost ones not looked for."""
    if not task.cancelled():
        log.error("verdicts.ended", extra={"task": task.get_name()}, exc_info=task.exception())
