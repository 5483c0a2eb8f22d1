"""Journals for the facts of a saver: for a claimed run's stream, for a commit of the caller, or read-only."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from langgraph.constants import START

from agentlog_facts.checkpoint import CheckpointFact, CheckpointSaved, WritesSaved
from agentlog_facts.envelope import Cause, Draft
from agentlog_facts.errors import AgentlogError
from agentlog_facts.execution_port import AttemptLost, ServerTask
from agentlog_facts.ids import Key, RunId, Stream, ThreadId, stream
from agentlog_facts.json_value import Json
from agentlog_facts.ports import Clock, EventLog, Ids
from agentlog_infra import timeouts

FACTS_A_COMMIT = 128
FACTS_AT_THE_END = 1000
"""Facts of one commit at the end of a run whose journal holds them back; more would not fit into a record."""
BACKLOG = 256
"""Facts that may wait for an acknowledgement before writers have to wait too."""


Committed: TypeAlias = Callable[[Sequence[CheckpointFact], int], None]
"""Receiver of the facts of one commit and of the version of the stream after it."""


class Journal(Protocol):
    """Writer of a saver's facts, in order."""

    @property
    def run_id(self) -> RunId | None:
        """Return the run of the claim, None outside a claim."""
        ...

    def stream(self, thread_id: ThreadId) -> Stream:
        """Return the stream for a thread's facts. Raises ValueError for a thread of another claim."""
        ...

    async def write(self, thread_id: ThreadId, facts: Sequence[CheckpointFact]) -> None:
        """Write facts with the durability of the journal. Raises: AttemptLost, and faults of the log."""
        ...


@dataclass(frozen=True, slots=True)
class WriteClaim:
    """A worker's claim on a run; `version` is the current version of its stream, None if the stream is empty."""

    thread_id: ThreadId
    run_id: RunId
    epoch: int
    cause: Cause
    version: int | None = None


class RunJournal:
    """Journal on one run's stream, under its epoch. Facts that arrive during an append share the next commit.

    With `acknowledged`, a write returns after the log has acknowledged it. Without, only the checkpoint that ends a
    superstep waits for the acknowledgement, so that the next superstep starts from durable state (decision 0015). Other
    writes wait JOURNAL_LINGER_S for more facts to share their commit, with at most BACKLOG facts outstanding. After
    `hold`, nothing is appended before `close`, and then all facts are one commit: the log has the whole end of the run
    or nothing of it. The journal awaits no verdict: each commit demands the version of the commit before it, so a void
    commit (stale epoch) makes the end of the run void too. After the first failure, and after `close`, the journal
    writes nothing.
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
        self._held = False
        self._left = False
        self._broken: Callable[[], None] | None = None
        self._committed: Committed | None = None
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
        """Return whether an append was lost, so that the attempt must stop."""
        return self._failure is not None

    @property
    def held_checkpoint_id(self) -> str | None:
        """Return the checkpoint of the last fact of the root graph that is held back, None if there is none."""
        held = [fact for fact in self._waiting if isinstance(fact, CheckpointSaved | WritesSaved)] if self._held else []
        return next((fact.checkpoint_id for fact in reversed(held) if not fact.checkpoint_ns), None)

    def hold(self) -> None:
        """Append nothing before `close`."""
        self._held = True

    @property
    def is_writing(self) -> bool:
        """Return whether all facts that were written go to the log without another call."""
        return not (self._held or self._left or self._closed or self.failed)

    def on_commit(self, committed: Committed) -> None:
        """Call `committed` with the facts of each commit that the log has acknowledged, and its version."""
        self._committed = committed

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
        """Queue facts, and wait if the durability of the journal demands it. Raises: AttemptLost.

        After `leave`, facts are dropped.
        """
        self._check()
        self._check_open()
        if self._left:
            return
        self._waiting.extend(facts)
        self._outstanding += len(facts)
        if self._held:
            return
        self._start_pump()
        if self._acknowledged or self._outstanding > BACKLOG or self._end_superstep(facts):
            await self.flush()

    def _end_superstep(self, facts: Sequence[CheckpointFact]) -> bool:
        return any([self._supersteps.ends(fact) for fact in facts])  # a list, so that `ends` sees every fact

    async def close(self) -> None:
        """Refuse later facts, and wait until all earlier ones are acknowledged. Raises: AttemptLost.

        A thread that user code has left running may still write. A commit after the outcome would make the run's end
        void.
        """
        self._closed = True
        self._release()
        await self.flush()

    def _release(self) -> None:
        if self._held and self._waiting:
            self._start_pump()

    def _start_pump(self) -> None:
        if self._pump is None:
            loop = asyncio.get_running_loop()
            self._pump = ServerTask(self._append_all(), loop=loop, name="append_checkpoints")
            self._pump.add_done_callback(_retrieve_exception)

    def leave(self) -> None:
        """Drop later facts, and all that are held back: the attempt is left to another worker.

        A node that was cancelled may return what it has so far; the next attempt runs it again. After `hold` the next
        attempt runs the whole run again.
        """
        self._left = True
        if self._held:
            self._waiting.clear()

    async def flush(self) -> None:
        """Wait until all queued facts are acknowledged. Raises: AttemptLost."""
        await self.settled()
        self._check()

    async def settled(self) -> None:
        """Wait until no append is in flight, whether the last one failed or not."""
        if self._pump is not None:
            self._hurry.set()
            await asyncio.wait([self._pump])  # a cancelled writer must not cancel the append of others

    async def _append_all(self) -> None:
        try:
            await self._linger()
            most = FACTS_AT_THE_END if self._held else FACTS_A_COMMIT
            while self._waiting:
                facts, self._waiting = self._waiting[:most], self._waiting[most:]
                await self._log.append(self._draft(tuple(facts)))
                self._version = 0 if self._version is None else self._version + 1
                self._outstanding -= len(facts)
                self._note(facts)
                if self._committed is not None:
                    self._committed(facts, self._version)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._hurry.clear()
            self._pump = None  # not in a callback: the next writer must start a new pump

    async def _linger(self) -> None:
        if not self._acknowledged and not self._held:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeouts.JOURNAL_LINGER_S):  # no task of its own, which could be cancelled
                    await self._hurry.wait()

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
            body_sha256=hashlib.sha256(event_id.encode()).hexdigest(),  # there is no command of a client to hash
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


def _retrieve_exception(pump: "asyncio.Task[None]") -> None:
    """Retrieve the exception of a finished task; writers get it as `AttemptLost`."""
    if not pump.cancelled():
        pump.exception()


class Supersteps:
    """Detector of the checkpoints that end a superstep with a node, from the ordered facts of one attempt.

    LangGraph saves a checkpoint for the input and for START too.
    """

    def __init__(self) -> None:
        self._inputs: dict[str, Json] = {}
        """`versions_seen` at the last input of a namespace, until the next checkpoint of it."""

    def ends(self, fact: CheckpointFact) -> bool:
        """Return whether a fact is the checkpoint after a node, True in doubt."""
        if not isinstance(fact, CheckpointSaved):
            return False
        source, seen = fact.metadata.get("source"), fact.checkpoint.get("versions_seen")
        if source == "input":
            self._inputs[fact.checkpoint_ns] = seen
            return False
        before = self._inputs.pop(fact.checkpoint_ns, None)
        return source == "loop" and _ran(before, seen) != {START}


def _ran(before: Json, after: Json) -> set[str]:
    """Return the nodes that ran between two checkpoints; none if the arguments do not show it."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return set()
    return {node for node, seen in after.items() if seen != before.get(node)}


class CollectingJournal:
    """Collects facts for one commit of the caller on `thread-<id>`."""

    def __init__(self, thread_id: ThreadId) -> None:
        self._thread_id = thread_id
        self.facts: list[CheckpointFact] = []

    @property
    def run_id(self) -> RunId | None:
        """Return None: there is no claim."""
        return None

    def stream(self, thread_id: ThreadId) -> Stream:
        """Return the thread's stream. Raises ValueError for another thread."""
        if thread_id != self._thread_id:
            raise ValueError(f"one commit holds facts of one thread: {self._thread_id}, not {thread_id}")
        return stream("thread", thread_id)

    async def write(self, thread_id: ThreadId, facts: Sequence[CheckpointFact]) -> None:
        """Collect facts."""
        self.facts.extend(facts)


class ReadOnly:
    """Journal of a saver that only reads."""

    @property
    def run_id(self) -> RunId | None:
        """Return None: there is no claim."""
        return None

    def stream(self, thread_id: ThreadId) -> Stream:
        """Refuse. Raises: AgentlogError."""
        raise AgentlogError(f"thread {thread_id}: this saver only reads")

    async def write(self, thread_id: ThreadId, facts: Sequence[CheckpointFact]) -> None:
        """Refuse. Raises: AgentlogError."""
        raise AgentlogError(f"thread {thread_id}: this saver only reads")
