"""From a command to a recorded decision: the only effectful function of the write side.

decide -> append one record -> wait for the verdict -> answer. What a crash costs where: ARCHITECTURE.md, "Writing".
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from weakref import WeakValueDictionary

from agentlog_commands.command import Accepted, Decision, Refused
from agentlog_facts import guard
from agentlog_facts.envelope import Cause, Draft, Fact, LogPosition
from agentlog_facts.errors import Contended, Corrupt, Diverged, KeyReused, OutcomeUnknown, Unavailable
from agentlog_facts.guard import Verdict, Void
from agentlog_facts.ids import Key
from agentlog_facts.ports import Clock, EventLog, Ids, Indexed, LedgerReads, Verdicts

TRIES = 8
"""How often a command that lost a race decides again before it gives up."""
UNREAD = "it is on the log, its outcome cannot be read now: retry with the same key"
LOOK_S = 0.05
"""Pause between looks for a record whose acknowledgement was lost."""
UNKNOWN = "outcome unknown, retry with the same Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Intent:
    """What the caller wants, once, however often it is tried.

    `keyed`: the client named the intent, so it may have happened before. `serial`: commands on this key of the same
    process follow each other instead of racing (for decisions that demand a version).
    """

    key: Key
    event_id: str
    body_sha256: str
    cause: Cause
    keyed: bool = False
    serial: bool = False


@dataclass(frozen=True, slots=True)
class Submitted:
    """The commit is accepted and projected; `duplicate` when it had happened before and these are its facts."""

    place: LogPosition
    version: int
    facts: tuple[Fact, ...]
    occurred_at: datetime
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Voided:
    """The log's order decided against the commit; it lies there as evidence and changed nothing."""

    void: Void


Outcome: TypeAlias = Submitted | Refused | Voided


class Submitter:
    """Carries decisions to the log. At most one commit of an intent is ever accepted, however often it is submitted."""

    def __init__(self, log: EventLog, verdicts: Verdicts, ledger: LedgerReads, clock: Clock, ids: Ids) -> None:
        self._log = log
        self._verdicts = verdicts
        self._ledger = ledger
        self._clock = clock
        self._ids = ids
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def submit(self, intent: Intent, decide: Callable[[], Awaitable[Decision]], deadline: float) -> Outcome:
        """Decide and append until the log accepts, the decision refuses, or the verdict is final.

        `decide` reads state and decides; it is called again after a version conflict, at most TRIES times.
        `deadline` is in seconds of `Clock.monotonic`.

        Raises:
            Unavailable: nothing was handed to the log, or nothing that was accepted; also when the deadline came first.
            OutcomeUnknown: no verdict before the deadline.
            KeyReused: the same Idempotency-Key came with another body.
            Contended: TRIES races were lost.
        """
        async with self._turn(intent, deadline):
            for _ in range(TRIES):
                async with self._until(deadline, Unavailable(f"{intent.key}: no decision before the deadline")):
                    decision = await decide()
                if isinstance(decision, Refused):
                    return (await self._first_time(intent, deadline) if intent.keyed else None) or decision
                outcome = await self._try(intent, decision, deadline)
                if not _lost_race(outcome):
                    return outcome
        raise Contended(f"{intent.key}: gave up after {TRIES} lost races, nothing was written")

    async def append(self, draft: Draft, deadline: float) -> tuple[LogPosition, Verdict]:
        """Append one commit as it is and wait for its verdict; the plain form for workers.

        Raises: Unavailable (nothing was handed over), OutcomeUnknown (no verdict before the deadline).
        """
        try:
            async with self._until(deadline, OutcomeUnknown(UNKNOWN)):
                place = await self._log.append(draft)
        except OutcomeUnknown:
            found = await self._look_for(draft, deadline)
            return found.place, found.verdict
        return place, await self._verdicts.wait(place, draft.append_id, deadline)

    def draft(self, intent: Intent, decision: Accepted) -> Draft:
        """Return the commit of a decision, under a new append id."""
        return Draft(
            key=intent.key,
            stream=decision.stream,
            event_id=intent.event_id,
            append_id=self._ids.uuid7(),
            body_sha256=intent.body_sha256,
            facts=decision.facts,
            occurred_at=self._clock.now(),
            cause=intent.cause,
            demands=decision.demands,
            epoch=decision.epoch,
            provenance=decision.provenance,
        )

    @asynccontextmanager
    async def _turn(self, intent: Intent, deadline: float) -> AsyncGenerator[None]:
        if not intent.serial:
            yield
            return
        lock = self._locks.get(intent.key)
        if lock is None:
            lock = self._locks[intent.key] = asyncio.Lock()
        async with self._until(
            deadline, Unavailable(f"{intent.key}: commands before this one took until its deadline")
        ):
            await lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @asynccontextmanager
    async def _until(self, deadline: float, late: Unavailable) -> AsyncGenerator[None]:
        """Let the block take until the deadline. Raises: `late`."""
        try:
            async with asyncio.timeout(deadline - self._clock.monotonic()):
                yield
        except TimeoutError as error:
            raise late from error

    async def _try(self, intent: Intent, decision: Accepted, deadline: float) -> Outcome:
        if self._clock.monotonic() >= deadline:  # its client has been answered: what it wants must not happen later
            raise Unavailable(f"{intent.key}: no decision before the deadline")
        draft = self.draft(intent, decision)
        place, verdict = await self.append(draft, deadline)
        match verdict:
            case guard.Accepted():
                return Submitted(place, verdict.version, draft.facts, draft.occurred_at)
            case guard.Duplicate():  # by a request with the same key, or by our own record where it lies there twice
                return await self._known_to_be_there(intent, deadline)
            case Void():
                if verdict.reason == "idempotency_key_reused":
                    raise KeyReused("the Idempotency-Key was used before with another request body")
                return Voided(verdict)

    async def _known_to_be_there(self, intent: Intent, deadline: float) -> Submitted:
        """Return the first outcome; where it cannot be read, nobody may be told that nothing was accepted."""
        try:
            first = await self._first_time(intent, deadline)
        except (Unavailable, Corrupt) as error:
            raise OutcomeUnknown(f"{intent.key}: {UNREAD}") from error
        if first is None:
            raise OutcomeUnknown(f"{intent.key}: {UNREAD}")
        return first

    async def _first_time(self, intent: Intent, deadline: float) -> Submitted | None:
        """Return the first outcome of this intent, None when it never happened. Raises: Unavailable, Corrupt."""
        async with self._until(deadline, Unavailable(f"{intent.key}: no answer of the rows before the deadline")):
            return await self._told_before(intent)

    async def _told_before(self, intent: Intent) -> Submitted | None:
        found = await self._ledger.accepted(intent.key, intent.event_id)
        if found is None or not isinstance(found.verdict, guard.Accepted):
            return None
        if found.body_sha256 != intent.body_sha256:
            raise KeyReused("the Idempotency-Key was used before with another request body")
        first = (await self._log.read(found.place)).draft
        if first.append_id != found.append_id:
            raise Diverged(f"{intent.key}: expected {found.append_id} at {found.place}, found {first.append_id}")
        return Submitted(found.place, found.verdict.version, first.facts, first.occurred_at, duplicate=True)

    async def _look_for(self, draft: Draft, deadline: float) -> Indexed:
        """Look for our own append until the deadline: a lost acknowledgement is not a failure."""
        while self._clock.monotonic() < deadline:
            found = await self._peek(draft, deadline)
            if found is not None:
                return found
            await asyncio.sleep(LOOK_S)
        raise OutcomeUnknown(UNKNOWN)

    async def _peek(self, draft: Draft, deadline: float) -> Indexed | None:
        try:
            async with self._until(deadline, OutcomeUnknown(UNKNOWN)):
                return await self._ledger.by_append(draft.key, draft.append_id)
        except OutcomeUnknown:
            raise
        except Unavailable:
            return None  # the database is away: our record may still be on the log, so keep looking until the deadline


def _lost_race(outcome: Outcome) -> bool:
    return isinstance(outcome, Voided) and outcome.void.reason == "version_conflict"
