"""Submission of commands, the only effectful function of the write side.

decide -> append one record -> wait for the verdict -> answer. Cost of a crash at each step: ARCHITECTURE.md, "Writing".
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
from agentlog_facts.ids import Key, category
from agentlog_facts.ports import Clock, EventLog, Ids, Indexed, LedgerReads, Verdicts

TRIES = 8
"""Number of decisions of a command that loses every race, before it gives up."""
UNREAD = "the commit is on the log, but its outcome cannot be read now: retry with the same key"
LOOK_S = 0.05
"""Pause between two looks for a record whose acknowledgement was lost."""
KEY_REUSED = "the Idempotency-Key was used before with another request body"
UNKNOWN = "outcome unknown, retry with the same Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Intent:
    """Intent of a caller, accepted at most once however often it is submitted.

    `keyed`: the client gave an Idempotency-Key, so the intent may have been accepted before. `serial`: commands of this
    process on the key run one after the other instead of racing (for decisions that demand a version).
    """

    key: Key
    event_id: str
    body_sha256: str
    cause: Cause
    keyed: bool = False
    serial: bool = False


@dataclass(frozen=True, slots=True)
class Submitted:
    """The commit is accepted and projected; `duplicate`: it was accepted before, with these facts."""

    place: LogPosition
    version: int
    facts: tuple[Fact, ...]
    occurred_at: datetime
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Voided:
    """The verdict on the commit is void; it stays on the log as evidence and changes nothing."""

    void: Void


Outcome: TypeAlias = Submitted | Refused | Voided


class Submitter:
    """Write side of commands. At most one commit of an intent is ever accepted, however often it is submitted."""

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
            Unavailable: nothing was handed to the log, or nothing was accepted; also if the deadline came first.
            OutcomeUnknown: no verdict before the deadline.
            KeyReused: the Idempotency-Key was used before with another body.
            Contended: TRIES races were lost.
        """
        async with self._turn(intent, deadline):
            for _ in range(TRIES):
                async with self._until(deadline, Unavailable(f"{intent.key}: no decision before the deadline")):
                    decision = await decide()
                if isinstance(decision, Refused):
                    return (await self._first_outcome(intent, deadline) if intent.keyed else None) or decision
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
        """Limit the block to the deadline. Raises: `late`."""
        try:
            async with asyncio.timeout(deadline - self._clock.monotonic()):
                yield
        except TimeoutError as error:
            raise late from error

    async def _try(self, intent: Intent, decision: Accepted, deadline: float) -> Outcome:
        if self._clock.monotonic() >= deadline:  # the client has its answer: the commit must not be accepted later
            raise Unavailable(f"{intent.key}: no decision before the deadline")
        draft = self.draft(intent, decision)
        place, verdict = await self.append(draft, deadline)
        match verdict:
            case guard.Accepted():
                return Submitted(place, verdict.version, draft.facts, draft.occurred_at)
            case guard.Duplicate():  # of a request with the same key, or of our own record if it was appended twice
                return await self._accepted_before(intent, deadline)
            case Void():
                if verdict.reason == "idempotency_key_reused":
                    raise KeyReused(KEY_REUSED)
                return Voided(verdict)

    async def _accepted_before(self, intent: Intent, deadline: float) -> Submitted:
        """Return the first outcome. Raises: OutcomeUnknown if it cannot be read, since a commit was accepted."""
        try:
            first = await self._first_outcome(intent, deadline)
        except (Unavailable, Corrupt) as error:
            raise OutcomeUnknown(f"{intent.key}: {UNREAD}") from error
        if first is None:
            raise OutcomeUnknown(f"{intent.key}: {UNREAD}")
        return first

    async def _first_outcome(self, intent: Intent, deadline: float) -> Submitted | None:
        """Return the first outcome of this intent, None if it was never accepted. Raises: Unavailable, Corrupt."""
        async with self._until(deadline, Unavailable(f"{intent.key}: no answer from the rows before the deadline")):
            return await self._read_first_outcome(intent)

    async def _read_first_outcome(self, intent: Intent) -> Submitted | None:
        found = await self._ledger.accepted(intent.key, intent.event_id)
        if found is None or not isinstance(found.verdict, guard.Accepted):
            return None
        if found.body_sha256 != intent.body_sha256:
            raise KeyReused(KEY_REUSED)
        first = (await self._log.read(found.place)).draft
        if first.append_id != found.append_id:
            raise Diverged(f"{intent.key}: expected {found.append_id} at {found.place}, found {first.append_id}")
        return Submitted(found.place, found.verdict.version, first.facts, first.occurred_at, duplicate=True)

    async def _look_for(self, draft: Draft, deadline: float) -> Indexed:
        """Return the row of our own append, looking for it until the deadline: a lost acknowledgement is no failure."""
        while self._clock.monotonic() < deadline:
            found = await self._look(draft, deadline)
            if found is not None:
                return found
            await asyncio.sleep(LOOK_S)
        raise OutcomeUnknown(UNKNOWN)

    async def _look(self, draft: Draft, deadline: float) -> Indexed | None:
        try:
            async with self._until(deadline, OutcomeUnknown(UNKNOWN)):
                return await self._ledger.by_append(draft.key, draft.append_id)
        except OutcomeUnknown:
            raise
        except Unavailable:
            return None  # the database is away, but our record may be on the log: look again until the deadline


def _lost_race(outcome: Outcome) -> bool:
    """Return whether the commit demanded a version, or that there was none yet, and another commit came first."""
    if not isinstance(outcome, Voided):
        return False
    reason, name = outcome.void.reason, outcome.void.stream
    first = reason == "exists" and name is not None and category(name) == "meta"  # `absent` elsewhere asks for a thread
    return reason == "version_conflict" or first
