"""Bridge from the event loops of user code to the service loop, which owns log, rows, queue and outputs.

User code has its own event loops in other threads, so that it cannot block leases, claims or other runs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from agentlog_facts.checkpoint_ports import CheckpointQuery, CheckpointReads, RunVersions, StoredCheckpoint
from agentlog_facts.envelope import Draft, LogPosition, Recorded
from agentlog_facts.ids import Key, RunId, ThreadId
from agentlog_facts.ports import EventLog

T = TypeVar("T")


class LoopBridge:
    """Calls the service loop (`home`) from any loop; a cancelled caller cancels its call."""

    def __init__(self, home: asyncio.AbstractEventLoop) -> None:
        self._home = home
        self._calls: set[asyncio.Future[None]] = set()

    @property
    def home(self) -> asyncio.AbstractEventLoop:
        """Return the service loop."""
        return self._home

    async def call(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await `make()` on the service loop; return its result or raise its exception."""
        here = asyncio.get_running_loop()
        if here is self._home:
            return await make()
        answer: asyncio.Future[T] = here.create_future()
        started: list[asyncio.Task[None]] = []  # touched on the service loop only
        self._home.call_soon_threadsafe(self._start, make, here, answer, started)
        try:
            return await answer
        except asyncio.CancelledError:
            # after `_start`: a call that is cancelled before its first step never runs
            self._home.call_soon_threadsafe(_cancel, started)
            raise

    def _start(
        self,
        make: Callable[[], Awaitable[T]],
        there: asyncio.AbstractEventLoop,
        answer: "asyncio.Future[T]",
        started: "list[asyncio.Task[None]]",
    ) -> None:
        call = self._home.create_task(self._run(make, there, answer))
        started.append(call)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _run(
        self, make: Callable[[], Awaitable[T]], there: asyncio.AbstractEventLoop, answer: "asyncio.Future[T]"
    ) -> None:
        try:
            result = await make()
        except asyncio.CancelledError:
            _deliver(there, answer.cancel)
            raise
        except Exception as error:  # noqa: BLE001 - any exception is passed to the caller on its own loop
            failure = error
            _deliver(there, lambda: _fail(answer, failure))
        else:
            _deliver(there, lambda: _settle(answer, result))


def _cancel(started: "Sequence[asyncio.Task[None]]") -> None:
    for call in started:
        call.cancel()


def _deliver(there: asyncio.AbstractEventLoop, deliver: Callable[[], object]) -> None:
    if not there.is_closed():
        there.call_soon_threadsafe(deliver)


def _settle(answer: "asyncio.Future[T]", result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: "asyncio.Future[T]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


class BridgedEventLog:
    """Implements `ports.EventLog` for callers on any loop."""

    def __init__(self, bridge: LoopBridge, log: EventLog) -> None:
        self._bridge = bridge
        self._log = log

    def partition_of(self, key: Key) -> int:
        """Return the partition of a key (pure)."""
        return self._log.partition_of(key)

    async def append(self, draft: Draft) -> LogPosition:
        """Append on the service loop. Raises: as `EventLog.append`."""
        return await self._bridge.call(lambda: self._log.append(draft))

    async def read(self, place: LogPosition) -> Recorded:
        """Read on the service loop. Raises: as `EventLog.read`."""
        return await self._bridge.call(lambda: self._log.read(place))


class BridgedCheckpointReads:
    """Implements `checkpoint_ports.CheckpointReads` for callers on any loop."""

    def __init__(self, bridge: LoopBridge, reads: CheckpointReads) -> None:
        self._bridge = bridge
        self._reads = reads

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        """Find checkpoints on the service loop. Raises: Unavailable."""
        return await self._bridge.call(lambda: self._reads.find(query))


class BridgedRunVersions:
    """Implements `checkpoint_ports.RunVersions` for callers on any loop."""

    def __init__(self, bridge: LoopBridge, versions: RunVersions) -> None:
        self._bridge = bridge
        self._versions = versions

    async def run_version(self, thread_id: ThreadId, run_id: RunId) -> int | None:
        """Return the version on the service loop. Raises: Unavailable."""
        return await self._bridge.call(lambda: self._versions.run_version(thread_id, run_id))
