"""Dependencies of worker and housekeeper: ports, reads and settings, built once in the composition root."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from agentlog_commands.claims import ClaimLimits
from agentlog_commands.command import Accepted
from agentlog_commands.identity import digest
from agentlog_commands.submit import Intent, Submitter
from agentlog_facts.envelope import Actor, Cause
from agentlog_facts.errors import Unavailable
from agentlog_facts.execution_port import RunExecution
from agentlog_facts.graph_ports import StoredState, ThreadView
from agentlog_facts.guard import Verdict
from agentlog_facts.ids import Key, RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.notification import Hint
from agentlog_facts.ports import Clock, EventLog, FrameLog, Ids, RunQueue
from agentlog_processors import timeouts
from agentlog_processors.runs.output_offsets import CachedEndOffsets
from agentlog_processors.runtime.loop_bridge import LoopBridge
from agentlog_processors.runtime.user_loops import JobLoops
from agentlog_projections.queries.worker import ExecutableRun, WorkerQueries

log = logging.getLogger(__name__)

TRIES = 10


class Hints(Protocol):
    """The one subscription of a process to hints."""

    def listen(self, listener: Callable[[Hint], None]) -> None:
        """Call `listener` with every hint from now on; it must not block."""
        ...


class ThreadStateReader(Protocol):
    """Reads the stored state of threads through their graphs, on any loop; a part of `graph_ports.GraphAccess`."""

    def view(
        self, graph_id: str, thread_id: ThreadId, *, opened_with: JsonObject | None = None
    ) -> Coroutine[object, object, ThreadView]:
        """Return the state of the last accepted checkpoint. Raises: Unavailable."""
        ...

    def view_without_run(
        self, graph_id: str, thread_id: ThreadId, run_id: RunId, *, opened_with: JsonObject | None = None
    ) -> Coroutine[object, object, ThreadView]:
        """Return the state without the accepted writes of one run. Raises: Unavailable."""
        ...


class StoredStateReader(Protocol):
    """Reads the stored state of threads without the code of their graphs, on any loop."""

    def channels(self, thread_id: ThreadId, without: RunId | None = None) -> Coroutine[object, object, StoredState]:
        """Return the stored state, without the writes of the run `without`. Raises: Unavailable."""
        ...


class FinalState(Protocol):
    """Reads the state that a run leaves to its thread, even if the code of its graph fails or hangs."""

    async def view(self, work: ExecutableRun) -> ThreadView:
        """Return the state of the last accepted checkpoint. Raises: Unavailable."""
        ...

    async def view_without_run(self, work: ExecutableRun) -> ThreadView:
        """Return the state without the accepted writes of the run. Raises: Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerTimeouts:
    """Limits of a worker and the housekeeper, from the settings."""

    jobs: int
    lease_ttl: timedelta
    lease_renew: timedelta
    look: timedelta
    reconcile: timedelta
    grace: timedelta
    limits: ClaimLimits
    stubborn: timedelta = timedelta(seconds=60)
    """User code may ignore a stop request for this long; then its process drains and restarts."""
    pop: timedelta = timeouts.QUEUE_POP
    alive: timedelta = timeouts.RUN_ALIVE_INTERVAL
    suspects_after: timedelta = timedelta(seconds=15)
    """A suspect may wait for this long for another worker; then this worker finishes its runs and executes it alone."""
    spare_idle: timedelta = timeouts.SPARE_IDLE

    @property
    def give_back_s(self) -> float:
        """Return the time in which attempts have to stop and release their runs once the grace period is over."""
        part = timeouts.GIVE_BACK_PART * self.grace.total_seconds()
        return min(timeouts.GIVE_BACK_S, max(timeouts.GIVE_BACK_LEAST_S, part))


@dataclass(frozen=True, slots=True)
class CommitWriter:
    """Writes commits of one actor to the log."""

    submitter: Submitter
    log: EventLog
    clock: Clock
    ids: Ids
    actor: Actor

    def cause(self, correlation_id: str, causation_id: str | None = None) -> Cause:
        """Return the cause of the commits that this process writes for a run."""
        return Cause(self.actor, correlation_id, causation_id)

    def deadline(self, length: timedelta) -> float:
        """Return the deadline `length` from now, on the monotonic clock in seconds."""
        return self.clock.monotonic() + length.total_seconds()

    async def commit(self, key: Key, event_id: str, decision: Accepted, cause: Cause) -> Verdict:
        """Append a commit and return its verdict; repeat with the same event id while there is none.

        The verdict is Duplicate if an earlier attempt was accepted. Raises: Unavailable after TRIES.
        """
        intent = Intent(key, event_id, digest(event_id.encode()), cause)
        for _ in range(TRIES - 1):
            try:
                return await self._once(intent, decision)
            except Unavailable as error:
                log.warning("append.repeated", extra={"stream": decision.stream, "error": str(error)})
                await asyncio.sleep(timeouts.APPEND_RETRY_S)  # back-off: the log or the projector is away
        return await self._once(intent, decision)

    async def append(self, key: Key, decision: Accepted, cause: Cause) -> None:
        """Append a commit without waiting for its verdict. Raises: Unavailable."""
        event_id = self.ids.uuid7()
        await self.log.append(self.submitter.draft(Intent(key, event_id, digest(event_id.encode()), cause), decision))

    async def _once(self, intent: Intent, decision: Accepted) -> Verdict:
        draft = self.submitter.draft(intent, decision)
        _, verdict = await self.submitter.append(draft, self.deadline(timeouts.VERDICT_WAIT))
        return verdict


@dataclass(frozen=True, slots=True)
class SuspectsOnly:
    """A spare worker executes only suspects; after `spare_idle` without any it calls `leave`, if it may leave."""

    leave: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class WorkerDependencies:
    """Dependencies of a worker. `provenance` names a graph's code for `RunClaimed`, `process` this process.

    Only a spare worker has `spare`.
    """

    worker: str
    writer: CommitWriter
    queries: WorkerQueries
    queue: RunQueue
    outputs: FrameLog
    ends: CachedEndOffsets
    execution: RunExecution
    graph_ids: Sequence[str]
    final_state: FinalState
    provenance: Callable[[str], JsonObject]
    hints: Hints
    loops: JobLoops
    bridge: LoopBridge
    timeouts: WorkerTimeouts
    spare: SuspectsOnly | None = None
    process: JsonObject | None = None
