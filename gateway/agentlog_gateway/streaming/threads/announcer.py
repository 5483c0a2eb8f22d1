"""Announcer of what no worker tells on `outputs`: updates of states, and ends of runs that this gateway decides.

An announcement is a hint for streams of threads, so it delays no response, and one that is lost costs a reader two
seconds at most: the rows tell the end of a run too. Source: docs/http-api.md, section 12.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from agentlog_commands.submit import Submitted
from agentlog_facts.errors import AgentlogError
from agentlog_facts.frame import STATE_UPDATE, Frame, FrameRecord
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.ports import FrameLog
from agentlog_facts.thread import RunFinished
from agentlog_gateway import timeouts

log = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Most announcements that wait; further ones are dropped while `outputs` is away."""
NO_RUN = RunId("")
"""The run of a record that belongs to none."""

ReadState = Callable[[], Awaitable[bytes]]
"""Returns the snapshot after an update, as JSON. Raises: AgentlogError."""
_Make = Callable[[], Awaitable[FrameRecord]]


class OutputsAnnouncer:
    """Writes announcements to `outputs`, one after the other; `run()` serves them."""

    def __init__(self, outputs: FrameLog) -> None:
        self._outputs = outputs
        self._waiting: asyncio.Queue[tuple[ThreadId, _Make]] = asyncio.Queue(MOST_WAITING)

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            thread_id, make = await self._waiting.get()
            try:
                async with asyncio.timeout(timeouts.ANNOUNCED_STATE_S):  # of a read that runs users' code
                    record = await make()
                await self._outputs.append(thread_id, record)
            except (AgentlogError, TimeoutError) as error:
                log.warning("announcement.lost", extra={"stream": f"thread-{thread_id}", "error": str(error)})
            except Exception:  # the outermost loop: the code of a graph may raise anything while its state is read
                log.exception("announcement.failed", extra={"stream": f"thread-{thread_id}"})

    def ends(self, thread_id: ThreadId, done: Submitted, event_id: str) -> None:
        """Announce the runs that an accepted commit has ended; `event_id` is that of the commit."""
        if done.duplicate:
            return
        for fact in done.facts:
            if isinstance(fact, RunFinished):
                record = FrameRecord(fact.run_id, 0, 0, (), end=event_id, of=event_id)
                self._put(thread_id, _made(record))

    def state(self, thread_id: ThreadId, event_id: str, read: ReadState) -> None:
        """Announce an update of the state."""

        async def make() -> FrameRecord:
            frame = Frame.encoded(STATE_UPDATE, b'{"state":%s}' % await read())
            return FrameRecord(NO_RUN, 0, 0, (frame,), of=event_id)

        self._put(thread_id, make)

    def _put(self, thread_id: ThreadId, make: _Make) -> None:
        try:
            self._waiting.put_nowait((thread_id, make))
        except asyncio.QueueFull:
            log.warning("announcement.dropped", extra={"stream": f"thread-{thread_id}"})


def _made(record: FrameRecord) -> _Make:
    async def make() -> FrameRecord:
        return record

    return make
