"""Log of refused mutations: a fact for each, and one fact with a count for the rest of a burst.

A burst is more than MOST refusals in `timeouts.REFUSAL_WINDOW_S` with the same caller, aggregate, command and reason.
Source: docs/log.md.
"""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, replace

from agentlog_commands.identity import digest
from agentlog_facts.envelope import Cause, Draft
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import Key, stream
from agentlog_facts.json_value import JsonObject
from agentlog_facts.keyed_digest import KeyedDigest
from agentlog_facts.ports import Clock, EventLog, Ids
from agentlog_facts.system import CommandRefused
from agentlog_gateway import timeouts

log = logging.getLogger(__name__)

MOST = 10
REMEMBERED = 4096
"""Most windows at the same time; beyond it the oldest is counted and dropped."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused mutation: the command, its aggregate and its target, the reason, and the digest of the request."""

    key: Key
    command: str
    reason: str
    target: JsonObject
    body_digest: KeyedDigest | None
    cause: Cause


@dataclass(slots=True)
class _Window:
    last: Refusal
    target: JsonObject
    since: float
    appended: int = 0
    counted: int = 0


class Refusals:
    """Appends refusals to `refusals-<key>`; `run()` appends the counts; the composition root supervises it."""

    def __init__(self, events: EventLog, clock: Clock, ids: Ids) -> None:
        self._events = events
        self._clock = clock
        self._ids = ids
        self._windows: OrderedDict[tuple[str, str, str, str], _Window] = OrderedDict()
        self._dropped: list[_Window] = []

    async def record(self, refusal: Refusal) -> None:
        """Append one refusal, or only count it after the first MOST of a burst.

        An appended refusal is durable on return; if the log is away, there is only a log line.
        """
        actor = refusal.cause.actor
        name = (f"{actor.iss}:{actor.sub}", refusal.key, refusal.command, refusal.reason)
        window = self._windows.get(name)
        if window is None or window.since + timeouts.REFUSAL_WINDOW_S <= self._clock.monotonic():
            self._drop(name)
            window = self._windows[name] = _Window(refusal, refusal.target, self._clock.monotonic())
        window.last = refusal
        if window.appended >= MOST:
            window.target = _common(window.target, refusal.target) if window.counted else refusal.target
            window.counted += 1
            return
        window.appended += 1
        await self._append(refusal, 1)

    async def run(self) -> None:
        """Append the count of each window at its end, until cancelled; then append the remaining counts."""
        try:
            while True:
                await asyncio.sleep(timeouts.REFUSAL_WINDOW_S / 10)  # the end of a window has no event
                await self.append_counts(self._clock.monotonic() - timeouts.REFUSAL_WINDOW_S)
        finally:
            await self.append_counts(float("inf"))

    async def append_counts(self, before: float) -> None:
        """Append the counts of all windows that began at `before` or earlier."""
        for name in [name for name, window in self._windows.items() if window.since <= before]:
            self._drop(name)
        dropped, self._dropped = self._dropped, []
        for window in dropped:
            await self._append(replace(window.last, target=window.target), window.counted)

    def _drop(self, name: tuple[str, str, str, str]) -> None:
        window = self._windows.pop(name, None)
        if window is not None and window.counted:
            self._dropped.append(window)
        if len(self._windows) >= REMEMBERED:
            self._drop(next(iter(self._windows)))

    async def _append(self, refusal: Refusal, count: int) -> None:
        fact = CommandRefused(refusal.command, refusal.reason, refusal.target, refusal.body_digest, count)
        event_id = self._ids.uuid7()
        draft = Draft(
            key=refusal.key,
            stream=stream("refusals", refusal.key),
            event_id=event_id,
            append_id=self._ids.uuid7(),
            body_sha256=digest(event_id.encode()),  # the digest of the request is keyed, in the fact
            facts=(fact,),
            occurred_at=self._clock.now(),
            cause=refusal.cause,
        )
        try:
            await self._events.append(draft)
        except Unavailable as error:  # the response stays; the log line tells operators that the fact is missing
            log.error("refusal.not_recorded", extra={"stream": draft.stream, "error": str(error)})


def _common(one: JsonObject, other: JsonObject) -> JsonObject:
    return {name: value for name, value in one.items() if other.get(name) == value}
