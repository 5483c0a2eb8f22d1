"""Sweep of threads whose time to live is over: each is deleted or pruned by a commit of its own, with actor `system`.

If the process dies here: the next sweep of any housekeeper finds the rest. Two at the same time do no harm: a commit
demands the versions on which it was decided, so a thread that was updated or swept meanwhile is decided again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agentlog_commands.command import Decision
from agentlog_commands.identity import digest
from agentlog_commands.submit import Intent, Submitted
from agentlog_commands.threads import ExpireThread, PruneThread
from agentlog_facts.checkpoint import CheckpointKey
from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_facts.ids import Key, ThreadId
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import CommitWriter
from agentlog_processors.runtime.service import pause
from agentlog_projections.queries.command_context import CommandContexts

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Most threads that are swept at the same time."""


@dataclass(frozen=True, slots=True)
class SweepQueries:
    """Queries of a sweep: expired threads, a thread for a decision, and its checkpoints that are not the last."""

    expired: Callable[[datetime, int], Awaitable[Sequence[ThreadId]]]
    contexts: CommandContexts
    earlier: Callable[[ThreadId], Awaitable[Sequence[CheckpointKey]]]


class SweepThreads:
    """Sweeps threads that have expired by the writer's clock: each `every`, at most `limit` of them."""

    name = "sweep_threads"

    def __init__(self, queries: SweepQueries, writer: CommitWriter, every: timedelta, limit: int) -> None:
        self._queries = queries
        self._writer = writer
        self._every_s = every.total_seconds()
        self._limit = limit

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until stopped; after an outage, try again in the next pass."""
        while not stop.is_set():
            try:
                await self.sweep()
            except Unavailable as error:
                log.warning("sweep.unavailable", extra={"error": str(error)})
            await pause(stop, self._every_s)

    async def sweep(self) -> int:
        """Sweep once; return how many threads were deleted or pruned. Raises: Unavailable."""
        now = self._writer.clock.now()
        found = await self._queries.expired(now, self._limit)
        correlation_id, swept = self._writer.ids.uuid7(), 0
        for start in range(0, len(found), AT_ONCE):
            some = found[start : start + AT_ONCE]
            done = await asyncio.gather(*(self._expire(thread_id, now, correlation_id) for thread_id in some))
            swept += sum(done)
        if swept:
            log.info("sweep.done", extra={"threads": swept, "correlation_id": correlation_id})
        return swept

    async def _expire(self, thread_id: ThreadId, now: datetime, correlation_id: str) -> bool:
        """Delete or prune a thread; return whether this call did it. A failure does not delay other threads."""

        async def decide() -> Decision:
            partition = self._writer.log.partition_of(Key(thread_id))
            found = await self._queries.contexts.thread(thread_id, partition)
            earlier = await self._queries.earlier(thread_id)
            prune = PruneThread(thread_id, found.version or 0, found.meta_version, earlier)
            return ExpireThread(prune, found.ttl, found.expires_at, now).decide(found.state)

        event_id = self._writer.ids.uuid7()
        cause = self._writer.cause(correlation_id)
        intent = Intent(Key(thread_id), event_id, digest(event_id.encode()), cause, serial=True)
        try:
            deadline = self._writer.deadline(timeouts.VERDICT_WAIT)
            return isinstance(await self._writer.submitter.submit(intent, decide, deadline), Submitted)
        except AgentlogError as error:
            log.warning("sweep.failed", extra={"stream": f"thread-{thread_id}", "error": str(error)})
            return False
