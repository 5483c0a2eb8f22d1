"""Finish of copies of threads that the process behind them has left, and the end of those that take too long.

If the process dies here: the next pass of any housekeeper goes on. Two at the same time do no harm (`thread_copies`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from agentlog_commands.thread_copies import CopyDrive, CopyReads, OpenCopy
from agentlog_facts.envelope import Draft
from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_facts.ids import Key
from agentlog_facts.ports import LedgerReads
from agentlog_facts.thread_copy import ThreadCopyAsked
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import CommitWriter
from agentlog_processors.runtime.service import pause

log = logging.getLogger(__name__)

AT_ONCE = 100
"""Most copies of one pass."""


@dataclass(frozen=True, slots=True)
class CopyQueries:
    """Queries of the duty: open copies asked for before a time, the reads of a copy, and the ledger."""

    open_copies: Callable[[datetime, int], Awaitable[Sequence[OpenCopy]]]
    reads: CopyReads
    ledger: LedgerReads


class FinishCopies:
    """Finishes copies that are older than `COPY_LEFT`, and gives up those older than `COPY_GIVEN_UP`."""

    name = "finish_copies"

    def __init__(self, queries: CopyQueries, writer: CommitWriter, every: timedelta = timeouts.COPY_LOOK) -> None:
        self._queries = queries
        self._writer = writer
        self._every_s = every.total_seconds()

    async def run(self, stop: asyncio.Event) -> None:
        """Finish copies until stopped; after an outage, try again in the next pass."""
        while not stop.is_set():
            try:
                await self.look()
            except Unavailable as error:
                log.warning("copies.unavailable", extra={"error": str(error)})
            await pause(stop, self._every_s)

    async def look(self) -> None:
        """Finish or give up what is left, once. Raises: Unavailable."""
        now = self._writer.clock.now()
        for copy in await self._queries.open_copies(now - timeouts.COPY_LEFT, AT_ONCE):
            try:
                await self._end(copy, late=copy.asked_at < now - timeouts.COPY_GIVEN_UP)
            except AgentlogError as error:  # it does not keep others from their end
                log.warning("copy.failed", extra={"stream": f"copy-{copy.thread_id}", "error": str(error)})

    async def _end(self, copy: OpenCopy, *, late: bool) -> None:
        draft = await self._asked(copy)
        fact = draft.facts[0]
        if not isinstance(fact, ThreadCopyAsked):
            raise TypeError(f"copy {copy.thread_id}: expected ThreadCopyAsked, found {type(fact).__name__}")
        writer = self._writer
        cause = writer.cause(draft.cause.correlation_id, copy.event_id)
        deadline = writer.deadline(timeouts.COPY_WAIT)
        drive = CopyDrive(writer.submitter, self._queries.reads, fact, copy.event_id, cause, deadline)
        if late:
            await drive.give_up("late")
            log.info("copy.given_up", extra={"stream": f"copy-{copy.thread_id}"})
        elif await drive.finish() is not None:
            log.info("copy.finished", extra={"stream": f"copy-{copy.thread_id}"})

    async def _asked(self, copy: OpenCopy) -> Draft:
        """Return the commit that asked for a copy. Raises: Unavailable, Corrupt."""
        found = await self._queries.ledger.accepted(Key(copy.thread_id), copy.event_id)
        if found is None:
            raise Unavailable(f"copy {copy.thread_id}: its first commit is not indexed")
        return (await self._writer.log.read(found.place)).draft
