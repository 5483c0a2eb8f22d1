"""Redis in memory: lists, leases and messages, which may be lost, doubled, delayed or flushed."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context, copy_context
from datetime import timedelta

from tests.simulation.loop import OUTSIDE, PROCESS, Process
from tests.simulation.network import Network, Server

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId
from agentlog_facts.notification import Hint, decode_hint, encode_hint


def _away(message: str) -> Exception:
    return Unavailable(message)


class Redis:
    """The server. `life` changes when its contents are emptied."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.server = Server("redis")
        self.lists: defaultdict[str, deque[RunId]] = defaultdict(deque)
        self.leases: dict[tuple[RunId, int], float] = {}
        self.contents = 0
        self.listeners: list[tuple[Context, asyncio.Queue[Hint]]] = []
        self.waiting: list[tuple[Sequence[str], asyncio.Future[RunId | None], Process]] = []

    def flush(self) -> None:
        """Lose all contents."""
        self.network.note("redis is emptied of", sum(map(len, self.lists.values())), len(self.leases))
        self.network.effects["redis lost something"] += any(self.lists.values()) or bool(self.leases)
        self.lists.clear()
        self.leases.clear()
        self.contents += 1

    def crash(self) -> None:
        """Crash with the loss of all contents; waiting callers get no answer."""
        self.flush()
        self.server.up, self.server.life = False, self.server.life + 1
        for _, answer, _ in self.waiting:
            if not answer.done():
                answer.set_exception(Unavailable("redis went away"))
        self.waiting = []

    def start(self) -> None:
        """Start again, empty."""
        self.server.up = True

    def push(self, queue: str, run_ids: Sequence[RunId]) -> None:
        """Append to a list and serve a waiting caller, unless the entry is lost; a caller that is cut off loses it."""
        for run_id in run_ids:
            if not self.network.happens(self.network.weather.lost):
                self.lists[queue].append(run_id)
        for waits in list(self.waiting):
            queues, answer, process = waits
            found = self.pop(queues)
            if found is None:
                continue
            self.waiting.remove(waits)
            if not self.network.cut(process, self.server) and not answer.done():
                answer.set_result(found)

    def pop(self, queues: Sequence[str]) -> RunId | None:
        """Pop the first entry of the lists."""
        for queue in queues:
            if self.lists[queue]:
                return self.lists[queue].popleft()
        return None

    def deliver(self, hints: Sequence[Hint]) -> None:
        """Send hints to all listeners; some get lost, doubled or reordered."""
        network = self.network
        for hint in hints:
            message = encode_hint(hint)
            for context, inbox in self.listeners:
                listener = context.get(PROCESS, OUTSIDE)
                if network.cut(listener, self.server) or network.happens(network.weather.lost):
                    continue
                for _ in range(1 + network.happens(network.weather.doubled)):
                    network.later(network.delay_s(), self._put(context, inbox, message))

    def _put(self, context: Context, inbox: "asyncio.Queue[Hint]", message: bytes) -> Callable[[], object]:
        loop = self.network.loop
        return lambda: loop.call_soon(lambda: inbox.put_nowait(decode_hint(message)), context=context)


class SimFeed:
    """Implements `ports.RunQueue`, `ports.HintFeed` and the reaper's `DeadWorkers`, for one process."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def _call(self, operation: "Callable[[], object]") -> None:
        await self._redis.network.call(self._redis.server, operation, _away)

    async def publish(self, hints: Sequence[Hint]) -> None:
        try:
            await self._call(lambda: self._redis.deliver(hints))
        except Unavailable:
            self._redis.network.note("hints lost", len(hints))

    @asynccontextmanager
    async def _subscribed(self) -> AsyncGenerator[AsyncIterator[Hint]]:
        inbox: asyncio.Queue[Hint] = asyncio.Queue()
        entry = (copy_context(), inbox)
        self._redis.listeners.append(entry)

        async def hints() -> AsyncGenerator[Hint]:
            while True:
                yield await inbox.get()

        try:
            yield hints()
        finally:
            self._redis.listeners.remove(entry)

    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        return self._subscribed()

    @asynccontextmanager
    async def _nobody(self) -> AsyncGenerator[AsyncIterator[str]]:
        async def never() -> AsyncGenerator[str]:
            await asyncio.Event().wait()
            yield ""

        yield never()

    def dead_workers(self) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        return self._nobody()

    async def push(self, queue: str, run_ids: Sequence[RunId]) -> None:
        await self._call(lambda: self._redis.push(queue, run_ids))

    async def pop(self, queues: Sequence[str], patience: timedelta) -> RunId | None:
        redis = self._redis
        found = await redis.network.call(redis.server, lambda: redis.pop(queues), _away)
        if found is not None:
            return found
        waiting: asyncio.Future[RunId | None] = redis.network.loop.create_future()
        redis.waiting.append((queues, waiting, PROCESS.get()))

        def give_up() -> None:
            redis.waiting = [one for one in redis.waiting if one[1] is not waiting]
            if not waiting.done():
                waiting.set_result(None)

        redis.network.later(patience.total_seconds(), give_up)
        return await waiting

    async def queued(self, queue: str) -> frozenset[RunId]:
        redis = self._redis
        return await redis.network.call(redis.server, lambda: frozenset(redis.lists[queue]), _away)

    async def renew_lease(self, run_id: RunId, epoch: int, worker: str, ttl: timedelta) -> None:
        redis = self._redis

        def renew() -> None:
            redis.leases[run_id, epoch] = redis.network.loop.time() + ttl.total_seconds()

        await self._call(renew)

    async def leased(self, claims: Sequence[tuple[RunId, int]]) -> Sequence[bool]:
        redis = self._redis
        return await redis.network.call(
            redis.server, lambda: [redis.leases.get(claim, 0.0) > redis.network.loop.time() for claim in claims], _away
        )

    async def instance(self) -> str:
        redis = self._redis
        return await redis.network.call(redis.server, lambda: f"{redis.server.life}-{redis.contents}", _away)
