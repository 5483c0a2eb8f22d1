"""Decides how refused mutations are remembered on the log: each as a fact, bursts as one fact with a count.

Beyond MOST in WINDOW_S per caller, resource and reason one counted fact stands for the rest. Source: docs/log.md.
"""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field

from agentlog_facts.envelope import Cause, Draft
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import Key, stream
from agentlog_facts.ports import Clock, EventLog, Ids
from agentlog_facts.system import CommandRefused

log = logging.getLogger(__name__)

WINDOW_S = 60.0
MOST = 10
REMEMBERED = 4096
"""Callers, resources and reasons watched at once; the oldest is told and dropped first."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused mutation: which command on which aggregate, why, and the digest of what was asked."""

    key: Key
    command: str
    reason: str
    body_sha256: str
    cause: Cause


@dataclass(slots=True)
class _Window:
    last: Refusal
    since: float
    told: int = 0
    untold: int = field(default=0)


class Refusals:
    """Appends refusals to `refusals-<key>`; `run()` tells the counted ones and is supervised by the root."""

    def __init__(self, events: EventLog, clock: Clock, ids: Ids) -> None:
        self._events = events
        self._clock = clock
        self._ids = ids
        self._windows: OrderedDict[tuple[str, str, str, str], _Window] = OrderedDict()
        self._dropped: list[_Window] = []

    async def record(self, refusal: Refusal) -> None:
        """Remember one refusal; durable when this returns, unless it is one of a burst."""
        actor = refusal.cause.actor
        name = (f"{actor.iss}:{actor.sub}", refusal.key, refusal.command, refusal.reason)
        window = self._windows.get(name)
        if window is None or window.since + WINDOW_S <= self._clock.monotonic():
            self._drop(name)
            window = self._windows[name] = _Window(refusal, self._clock.monotonic())
        window.last = refusal
        if window.told >= MOST:
            window.untold += 1
            return
        window.told += 1
        await self._append(refusal, 1)

    async def run(self) -> None:
        """Tell what was only counted, window by window, until cancelled; then tell the rest."""
        try:
            while True:
                await asyncio.sleep(WINDOW_S / 10)  # the end of a window is a matter of time
                await self.tell(self._clock.monotonic() - WINDOW_S)
        finally:
            await self.tell(float("inf"))

    async def tell(self, before: float) -> None:
        """Append the counts of all windows that began before."""
        for name in [name for name, window in self._windows.items() if window.since <= before]:
            self._drop(name)
        dropped, self._dropped = self._dropped, []
        for window in dropped:
            await self._append(window.last, window.untold)

    def _drop(self, name: tuple[str, str, str, str]) -> None:
        window = self._windows.pop(name, None)
        if window is not None and window.untold:
            self._dropped.append(window)
        if len(self._windows) >= REMEMBERED:
            self._drop(next(iter(self._windows)))

    async def _append(self, refusal: Refusal, count: int) -> None:
        fact = CommandRefused(refusal.command, refusal.reason, refusal.body_sha256, count)
        draft = Draft(
            key=refusal.key,
            stream=stream("refusals", refusal.key),
            event_id=self._ids.uuid7(),
            append_id=self._ids.uuid7(),
            body_sha256=refusal.body_sha256,
            facts=(fact,),
            occurred_at=self._clock.now(),
            cause=refusal.cause,
        )
        try:
            await self._events.append(draft)
        except Unavailable as error:  # the refusal itself stands; that it could not be noted is told to operators
            log.error("refusal.not_recorded", extra={"stream": draft.stream, "error": str(error)})
