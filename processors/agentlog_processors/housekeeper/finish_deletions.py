"""Finisher of deletions of assistants whose request ended before them: it cancels and deletes what is left.

If the process dies here, the next pass of any housekeeper goes on; two at the same time write each commit once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from agentlog_commands.assistants import DeletionFollowers
from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_processors import timeouts
from agentlog_processors.runs.dependencies import CommitWriter
from agentlog_processors.runtime.service import pause
from agentlog_projections.models.assistants import OpenDeletion

log = logging.getLogger(__name__)

OpenDeletions = Callable[[timedelta], Awaitable[Sequence[OpenDeletion]]]
"""Returns the deletions that were asked for longer ago than a time and are not done. Raises: Unavailable."""


class FinishDeletions:
    """Finishes deletions that are older than a request may take."""

    name = "finish_deletions"

    def __init__(
        self,
        found: OpenDeletions,
        followers: DeletionFollowers,
        writer: CommitWriter,
        after: timedelta = timeouts.DELETION_LEFT,
        every: timedelta = timeouts.DELETIONS_INTERVAL,
    ) -> None:
        self._found = found
        self._followers = followers
        self._writer = writer
        self._after = after
        self._every_s = every.total_seconds()

    async def run(self, stop: asyncio.Event) -> None:
        """Finish until stopped; what fails is tried again in the next pass."""
        while not stop.is_set():
            try:
                await self.look_once()
            except Unavailable as error:
                log.warning("deletions.unavailable", extra={"error": str(error)})
            await pause(stop, self._every_s)

    async def look_once(self) -> None:
        """Finish all open deletions; one that fails does not stop the others. Raises: Unavailable."""
        for one in await self._found(self._after):
            stream = f"assistant-{one.asked.assistant_id}"
            cause = self._writer.cause(one.event_id, one.event_id)
            try:
                await self._followers.follow(
                    one.event_id, one.asked, cause, self._writer.deadline(timeouts.DELETION_WAIT)
                )
            except AgentlogError as error:
                log.warning("deletion.not_done", extra={"stream": stream, "error": str(error)})
            else:
                log.info("deletion.done", extra={"stream": stream, "threads": len(one.asked.threads)})
