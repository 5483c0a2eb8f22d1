"""Journals that take a saver's facts: for a claimed run's stream, for one commit of the caller, or none at all."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from langgraph.constants import START

from agentlog_facts.checkpoint import CheckpointFact, CheckpointSaved
from agentlog_facts.envelope import Cause, Draft
from agentlog_facts.errors import AgentlogError
from agentlog_facts.execution_port import AttemptLost
from agentlog_facts.ids import Key, RunId, Stream, ThreadId, stream
from agentlog_facts.json_value import Json
from agentlog_facts.ports import Clock, EventLog, Ids
from agentlog_infra import timeouts

FACTS_A_COMMIT = 128
BACKLOG = 256
"""Facts that may wait for an acknowledgement before writers have to wait too."""


class Journal(Protocol):
    """Takes the facts of a saver in order. `run_id` is the run whose claim writes, None outside a claim."""

    @property
    def run_id(self) -> RunId | None:
        """Return the claimed run."""
        ...

    def stream(self, thread_id: ThreadId) -> Stream:
        """Return the stream on which a thread's facts will lie. Raises ValueError for a thread of another claim."""
        ...

    async def write(self, thread_id: ThreadId, facts: Sequence[CheckpointFact]) -> None:
        """Take facts, as durable as the journal promises. Raises: AttemptLost, and faults of the log."""
        ...


@dataclass(frozen=True, slots=True)
class WriteClaim:
    """A worker's right to write for a run; `version` is that of its stream so far, None where there is none yet."""

    thread_id: ThreadId
    run_id: RunId
    epoch: int
    cause: Cause
    version: int | None = None


class RunJournal:
    """One run's stream, under its epoch. What arrives while an append is in flight goes into the next commit together.

    With `acknowledged` a write returns when the log has it. Without, only the checkpoint that ends a superstep waits,
    so that the next one starts on what a crash cannot take away (decision 0015); what tasks write meanwhile lingers
    for JOURNAL_LINGER_S to share a commit, with at most BACKLOG facts outstanding. No verdict is awaited: a commit that
    is void (stale epoch) is known when the run's end is void too, for each commit demands the version of the one
    before. After the first failure, and once it is closed, nothing is written any more.
    """

    def __init__(self, log: EventLog, claim: WriteClaim, clock: Clock, ids: Ids, *, acknowledged: bool) -> None:
        self._log = log
        self._claim = claim
        self._clock = clock
        self._ids = ids
        self._acknowledged = acknowledged
        self._stream = stream("run", claim.run_id)
        self._version = claim.version
        self._waiting: list[CheckpointFact] = []
        self._outstanding = 0
        self._pump: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._failure: BaseException | None = None
        self._closed = False
        self._broken: Callable[[], None] | None = None
        self._supersteps = Supersteps()
        self.last_checkpoint_id: str | None = None
        """The last acknowledged checkpoint of the root graph."""

    @property
    def run_id(self) -> RunId | None:
        """Return the claimed run."""
        return self._claim.run_id

    @property
    def last_version(self) -> int | None:
        """Return the version of the run's stream after the last acknowledged commit, if all of them are accepted."""
        return self._version

    @property
    def failed(self) -> bool:
        """Tell whether an append was lost; the attempt must stop."""
        return self._failure is not None

    def on_failure(self, broken: Callable[[], None]) -> None:
        """Call `broken` once when an append is lost."""
        self._broken = broken

    def stream(self, thread_id: ThreadId) -> Stream:
        """Return the run's stream. Raises: ValueError for another thread than the run's; AttemptLost when closed."""
        self._check_open()
        if thread_id != self._claim.thread_id:
            raise ValueError(f"run {self._claim.run_id} writes thread {self._claim.thread_id}, not {thread_id}")
        return self._stream

    async def write(self, thread_id: ThreadId, facts: Sequence[CheckpointFact]) -> None:
        """Queue facts; wait as promised. Raises: AttemptLost."""
        self._check()
        self._check_open()
        self._waiting.extend(facts)
        self._outstanding += len(facts)
        if self._pump is None:
            self._pump = asyncio.create_task(self._append_all(), name="append_checkpoints")
            self._pump.add_done_callback(_seen)
        if self._acknowledged or self._outstanding > BACKLOG or self._end_superstep(facts):
            await self.flush()

    def _end_superstep(self, facts: Sequence[CheckpointFact]) -> bool:
        return any([self._supersteps.ends(fact) for fact in facts])  # a list: each one is looked at

    async def close(self) -> None:
        """Take nothing more, and wait until all that was taken is acknowledged. Raises: AttemptLost.

        A thread that user code left behind may still want to write: behind the outcome that would make its end void.
        """
        self._closed = True
        await self.flush()

    async def flush(self) -> None:
        """Wait until everything queued so far is acknowledged. Raises: AttemptLost."""
        await self.settled()
        self._check()

    async def settled(self) -> None:
        """Wait until nothing is on its way any more, lost or not."""
        if self._pump is not None:
            self._hurry.set()
            await asyncio.wait([self._pump])  # a writer that is cancelled must not cancel the append of others

    async def _append_all(self) -> None:
        try:
            await self._lingered()
            while self._waiting:
                facts, self._waiting = self._waiting[:FACTS_A_COMMIT], self._waiting[FACTS_A_COMMIT:]
                await self._log.append(self._draft(tuple(facts)))
                self._version = 0 if self._version is None else self._version + 1
                self._outstanding -= len(facts)
                self._note(facts)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._hurry.clear()
            self._pump = None  # here and not in a callback: whoever writes next must start a new one

    async def _lingered(self) -> None:
        if not self._acknowledged:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), timeouts.JOURNAL_LINGER_S)

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._waiting.clear()
        if self._broken is not None:
            self._broken()

    def _draft(self, facts: tuple[CheckpointFact, ...]) -> Draft:
        event_id = self._ids.uuid7()
        return Draft(
            key=Key(self._claim.thread_id),
            stream=self._stream,
            event_id=event_id,
            append_id=self._ids.uuid7(),
            body_sha256=hashlib.sha256(event_id.encode()).hexdigest(),  # no client's command stands behind it
            facts=facts,
            occurred_at=self._clock.now(),
            cause=self._claim.cause,
            demands={self._stream: "absent" if self._version is None else self._version},
            epoch=self._claim.epoch,
        )

    def _note(self, facts: Sequence[CheckpointFact]) -> None:
        for fact in facts:
            if isinstance(fact, CheckpointSaved) and not fact.checkpoint_ns:
                self.last_checkpoint_id = fact.checkpoint_id

    def _check(self) -> None:
        if self._failure is not None:
            raise AttemptLost(f"{self._stream}: an append was lost, nothing more is written") from self._failure

    def _check_open(self) -> None:
        if self._closed:
            raise AttemptLost(f"{self._stream}: the attempt has its outcome, nothing more is written")


def _seen(pump: "asyncio.Task[None]") -> None:
    """Take the exception of a finished task: writers learn of it by `AttemptLost`."""
    if not pump.cancelled():
        pump.exception()


class Supersteps:
    """Finds the checkpoints that end a superstep in which a node ran, in those of one attempt in their order.

    LangGraph makes one for the input and one for START too.
    """

    def __init__(self) -> None:
        self._inputs: dict[str, Json] = {}
        """What the nodes had seen at the last input of a namespace, while nothing followed it."""

    def ends(self, fact: CheckpointFact) -> bool:
        """Tell whether a fact is the checkpoint behind a node; in doubt it is."""
        if not isinstance(fact, CheckpointSaved):
            return False
        source, seen = fact.metadata.get("source"), fact.checkpoint.get("versions_seen")
        if source == "input":
            self._inputs[fact.checkpoint_ns] = seen
            return False
        before = self._inputs.pop(fact.checkpoint_ns, None)
        return source == "loop" and _ran(before, seen) != {START}


def _ran(before: Json, after: Json) -> set[str]:
    """Return the nodes that saw something new between two checkpoints; none where that cannot be told."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return set()
    return {node for node, seen in after.items() if seen != before.get(node)}


class CollectingJournal:
    """Keeps the facts for one commit on `thread-<id>` that the caller makes."""

    def __init__(self, thread_id: ThreadId) -> None:
        self._thread_id = thread_id
        self.facts: list[CheckpointFact] = []

    @property
    def run_id(self) -> RunId | None:
        """Return None: no claim writes here."""
        return None

    def stream(self, thread_id: ThreadId) -> Stream:
        """Return the thread's stream. Raises ValueError for another thread."""
        if thread_id != self._thread_id:
            raise ValueError(f"one commit holds facts of one thread: {self._thread_id}, not {thread_id}")
        return stream("thread", thread_id)

    async def write(self, thread_id: ThreadId, facts: Sequence[CheckpointFact]) -> None:
        """Keep facts."""
        self.facts.extend(facts)


class ReadOnly:
    """A journal that takes nothing: state is read, never written."""

    @property
    def run_id(self) -> RunId | None:
        """Return None: no claim writes here."""
        return None

    def stream(self, thread_id: ThreadId) -> Stream:
        """Refuse."""
        raise AgentlogError(f"thread {thread_id}: this saver only reads")

    async def write(self, thread_id: ThreadId, facts: Sequence[CheckpointFact]) -> None:
        """Refuse."""
        raise AgentlogError(f"thread {thread_id}: this saver only reads")
