"""What became of a record, which runs ended and which shall stop: by hint, else by a look into PostgreSQL."""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

from agentlog_facts.envelope import Place
from agentlog_facts.errors import OutcomeUnknown, Unavailable
from agentlog_facts.guard import Verdict
from agentlog_facts.hint import Hint
from agentlog_facts.ports import Clock, HintFeed, LedgerReads

log = logging.getLogger(__name__)

REMEMBERED = 256
"""Hints kept per partition: a verdict often arrives before its writer asks for it."""
REMEMBERED_S = 5.0
"""How long they count: offsets may stand for other records once a log was restored, which takes longer than this."""
FIRST_LOOK_S = 0.25
LONGEST_LOOK_S = 1.0


class HintVerdicts:
    """Keeps `ports.Verdicts`; also wakes whoever watches a run. One per process, on one event loop."""

    def __init__(self, feed: HintFeed, ledger: LedgerReads, clock: Clock) -> None:
        self._feed = feed
        self._ledger = ledger
        self._clock = clock
        self._recent: defaultdict[int, deque[tuple[float, Hint]]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._waiting: defaultdict[int, dict[int, asyncio.Future[Verdict]]] = defaultdict(dict)
        self._ended: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._cancelled: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._listeners: list[Callable[[Hint], None]] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen to hints."""
        self._task = asyncio.create_task(self._listen(), name="verdicts")
        self._task.add_done_callback(_tell_end)

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def wait(self, place: Place, deadline: float) -> Verdict:
        """Return the verdict over a record. Raises: OutcomeUnknown at the deadline."""
        known = self._remembered(place)
        if known is not None:
            return known
        waiting = self._waiting[place.partition]
        future = waiting.get(place.offset)
        if future is None:
            future = waiting[place.offset] = asyncio.get_running_loop().create_future()
        try:
            return await self._hint_or_look(place, future, deadline)
        finally:
            waiting.pop(place.offset, None)

    @contextmanager
    def run_ended(self, run_id: str) -> Generator[asyncio.Event]:
        """Give an event that is set when a hint says that the run ended; read the row after entering."""
        with _watch(self._ended, run_id) as event:
            yield event

    @contextmanager
    def run_cancelled(self, run_id: str) -> Generator[asyncio.Event]:
        """Give an event that is set when a hint says that the run shall stop; read the row after entering."""
        with _watch(self._cancelled, run_id) as event:
            yield event

    def listen(self, listener: Callable[[Hint], None]) -> None:
        """Call `listener` with every hint from now on; it must not block."""
        self._listeners.append(listener)

    async def _hint_or_look(self, place: Place, future: asyncio.Future[Verdict], deadline: float) -> Verdict:
        look_s = FIRST_LOOK_S
        while True:
            left_s = deadline - self._clock.monotonic()
            if left_s <= 0:
                raise OutcomeUnknown("outcome unknown, retry with the same Idempotency-Key")
            await asyncio.wait({future}, timeout=min(look_s, left_s))
            if future.done():
                return future.result()
            verdict = await self._look(place)
            if verdict is not None:
                return verdict
            look_s = min(2 * look_s, LONGEST_LOOK_S)

    async def _look(self, place: Place) -> Verdict | None:
        """The safety net: a lost hint costs at most one look."""
        try:
            found = await self._ledger.at(place)
        except Unavailable as error:
            log.warning("verdict.look_failed", extra={"error": str(error)})
            return None
        return None if found is None else found.verdict

    def _remembered(self, place: Place) -> Verdict | None:
        oldest = self._clock.monotonic() - REMEMBERED_S
        for came_at, hint in reversed(self._recent[place.partition]):
            if came_at < oldest:
                return None
            if hint.after < place.offset <= hint.to:
                return hint.verdict(place.offset)
        return None

    async def _listen(self) -> None:
        async with self._feed.subscribe() as hints:
            async for hint in hints:
                self._settle(hint)

    def _settle(self, hint: Hint) -> None:
        recent = self._recent[hint.partition]
        if recent and hint.after < recent[-1][1].to:
            recent.clear()  # the log went back: it was restored, and the offsets stand for other records
        recent.append((self._clock.monotonic(), hint))
        waiting = self._waiting[hint.partition]
        for offset in [offset for offset in waiting if hint.after < offset <= hint.to]:
            verdict = hint.verdict(offset)
            if verdict is not None and not waiting[offset].done():
                waiting[offset].set_result(verdict)
        _wake(self._ended, hint.ended)
        _wake(self._cancelled, hint.cancelled)
        for listener in self._listeners:
            listener(hint)


def _tell_end(listening: "asyncio.Task[None]") -> None:
    """Say that no hints are heard any more; verdicts are looked up from here on."""
    if not listening.cancelled():
        log.error("verdicts.not_listening", exc_info=listening.exception())


@contextmanager
def _watch(registry: defaultdict[str, set[asyncio.Event]], name: str) -> Generator[asyncio.Event]:
    event = asyncio.Event()
    registry[name].add(event)
    try:
        yield event
    finally:
        registry[name].discard(event)
        if not registry[name]:
            del registry[name]


def _wake(registry: defaultdict[str, set[asyncio.Event]], names: tuple[str, ...]) -> None:
    for name in names:
        for event in registry.get(name, ()):
            event.set()
