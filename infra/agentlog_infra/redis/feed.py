"""Hints, run queue and leases on Redis or Valkey: losing any of it costs latency, never a fact."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from redis.asyncio.client import PubSub
from redis.asyncio.cluster import RedisCluster

from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId
from agentlog_facts.notification import Hint, decode_hint, encode_hint
from agentlog_facts.ports import Ids
from agentlog_infra import timeouts
from agentlog_infra.redis.client import Client, answered, cancellable, redis_faults, send
from agentlog_infra.redis.commands import check_commands
from agentlog_infra.redis.keys import RedisKeys

if TYPE_CHECKING:
    from redis.asyncio.client import Reply

log = logging.getLogger(__name__)


class RedisFeed:
    """Implements `ports.HintFeed` and `ports.RunQueue`."""

    def __init__(self, redis: Client, prefix: str, ids: Ids) -> None:
        self._redis = redis
        self._keys = RedisKeys(prefix)
        self._ids = ids

    async def stop(self) -> None:
        """Disconnect."""
        await self._redis.aclose()

    async def check(self) -> None:
        """Check that Redis answers and serves each command that is needed. Raises: Unavailable."""
        await check_commands(self._redis, self._keys)

    async def publish(self, hints: Sequence[Hint]) -> None:
        """Publish hints; a fault is only logged, because a reader that misses a hint reads PostgreSQL."""
        try:
            async with answered("hints"):
                await self._publish([encode_hint(hint) for hint in hints])
        except Unavailable as error:
            log.warning("hints.not_published", extra={"error": str(error)})

    async def _publish(self, messages: Sequence[bytes]) -> None:
        if isinstance(self._redis, RedisCluster):  # its pipelines do not publish
            for message in messages:
                await send(self._redis, "PUBLISH", self._keys.hints, message)
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for message in messages:
                pipe.publish(self._keys.hints, message)
            await pipe.execute()

    @asynccontextmanager
    async def subscribe(self) -> AsyncGenerator[AsyncIterator[Hint]]:
        """Yield hints from now on; after a fault it reconnects by itself."""
        hints = self._messages(self._keys.hints)
        try:
            yield (hint async for message in hints if (hint := _hint(message)) is not None)
        finally:
            await hints.aclose()

    @asynccontextmanager
    async def dead_workers(self) -> AsyncGenerator[AsyncIterator[str]]:
        """Yield the ids of workers whose death was announced, those of the last hour first, each once."""
        wake_ups = self._messages(self._keys.dead_workers, at_connect=b"")
        try:
            yield self._new_members(self._keys.dead_workers, wake_ups)
        finally:
            await wake_ups.aclose()

    async def worker_deaths(self) -> int:
        """Return the number of workers whose death was announced in the last `WORKER_DEATHS_S`. Raises: Unavailable."""
        since = time.time() - timeouts.WORKER_DEATHS_S
        async with answered("deaths"):
            found = await send(self._redis, "ZCOUNT", self._keys.worker_deaths, since, "+inf")
        return found if isinstance(found, int) else 0

    async def announce_jobs(self, worker: str, jobs: int, ttl: timedelta) -> None:
        """Announce for `ttl` that a worker may execute so many runs at once. Raises: Unavailable."""
        now = time.time()
        until = now + ttl.total_seconds()
        members = [part for job in range(jobs) for part in (until, f"{worker}:{job}")]
        async with answered("jobs"):
            await send(self._redis, "ZADD", self._keys.jobs, *members)
            await send(self._redis, "ZREMRANGEBYSCORE", self._keys.jobs, "-inf", now)

    async def announced_jobs(self) -> int:
        """Return how many runs the workers may execute at once, as far as they have told. Raises: Unavailable."""
        async with answered("jobs"):
            found = await send(self._redis, "ZCOUNT", self._keys.jobs, time.time(), "+inf")
        return found if isinstance(found, int) else 0

    async def _new_members(self, key: str, wake_ups: AsyncIterator[bytes]) -> AsyncGenerator[str]:
        """Read a set at each wake-up: a message sent without a subscriber is lost, a member is not."""
        seen: frozenset[bytes] = frozenset()
        async for _ in wake_ups:
            try:
                async with answered(key):
                    found = await send(self._redis, "SMEMBERS", key)
            except Unavailable as error:
                log.warning("feed.not_read", extra={"set": key, "error": str(error)})
                continue  # the next wake-up reads the set again
            members = frozenset(item for item in _members(found) if isinstance(item, bytes))
            for member in members - seen:
                yield member.decode()
            seen = members

    async def push(self, queue: str, run_ids: Sequence[RunId]) -> None:
        """Append runs to a queue. Raises: Unavailable."""
        async with answered("push"):
            await send(self._redis, "RPUSH", self._keys.queue(queue), *run_ids)

    async def pop(self, queues: Sequence[str], patience: timedelta) -> RunId | None:
        """Pop the next run of these queues, waiting at most `patience` (<= REDIS_BLOCK_S). Raises: Unavailable."""
        patience_s = min(patience.total_seconds(), timeouts.REDIS_BLOCK_S)
        keys = [self._keys.queue(queue) for queue in queues]
        async with answered("pop", patience_s):
            found = await send(self._redis, "BLPOP", *keys, patience_s)
        run_id = _items(found)[-1] if found else None
        return RunId(run_id.decode()) if isinstance(run_id, bytes) else None

    async def queued(self, queue: str) -> frozenset[RunId]:
        """Return the runs in a queue. Raises: Unavailable."""
        async with answered("queue"):
            found = await send(self._redis, "LRANGE", self._keys.queue(queue), 0, -1)
        return frozenset(RunId(item.decode()) for item in _items(found) if isinstance(item, bytes))

    async def renew_lease(self, run_id: RunId, epoch: int, worker: str, ttl: timedelta) -> None:
        """Set or prolong the lease of a claim, and read it as the reaper does. Raises: Unavailable.

        So a worker whose lease cannot be read notices it, and shows on the log that its run is alive.
        """
        key = self._keys.lease(run_id, epoch)
        async with answered("lease"):
            await send(self._redis, "SET", key, worker, "PX", int(ttl.total_seconds() * 1000))
            await send(self._redis, "MGET", key)

    async def leased(self, claims: Sequence[tuple[RunId, int]]) -> Sequence[bool]:
        """Return for each claim whether its lease exists. Raises: Unavailable."""
        if not claims:
            return []
        async with answered("leases"):
            found = await send(self._redis, "MGET", *(self._keys.lease(*claim) for claim in claims))
        return [value is not None for value in _items(found)]

    async def instance(self) -> str:
        """Return an id that changes when the server is emptied or restarted. Raises: Unavailable."""
        async with answered("instance"):
            await send(self._redis, "SET", self._keys.instance, self._ids.uuid7(), "NX")
            info = await send(self._redis, "INFO", "server")
            found = await send(self._redis, "GET", self._keys.instance)
        return f"{_run_id(info)}:{found!r}"

    async def _messages(self, channel: str, at_connect: bytes | None = None) -> AsyncGenerator[bytes]:
        while True:
            try:
                with redis_faults(channel):
                    async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                        with cancellable():
                            await pubsub.subscribe(channel)
                        if at_connect is not None:
                            yield at_connect  # messages may have been missed before
                        async with aclosing(_received(pubsub)) as messages:
                            async for message in messages:
                                yield message
            except Unavailable as error:
                log.warning("feed.reconnecting", extra={"channel": channel, "error": str(error)})
                await asyncio.sleep(timeouts.REDIS_RECONNECT_PAUSE_S)  # back-off before the next attempt to connect


def _hint(message: bytes) -> Hint | None:
    """Return the hint, or None for one of a newer release: a reader that misses it reads PostgreSQL."""
    try:
        return decode_hint(message)
    except (ValueError, KeyError) as error:
        log.warning("hint.not_understood", extra={"error": f"{type(error).__name__}: {error}"})
        return None


def _items(reply: "Reply") -> "list[Reply]":
    return list(reply) if isinstance(reply, list | tuple) else []


def _members(reply: "Reply") -> "Iterable[Reply]":
    return reply if isinstance(reply, (list, set)) else []


def _run_id(info: "Reply") -> str:
    """Return the id that a server gives itself at each start; empty if it hides it, as some services do."""
    run_id = info.get("run_id") if isinstance(info, dict) else None
    return run_id if isinstance(run_id, str) else ""


async def _received(pubsub: PubSub) -> AsyncGenerator[bytes]:
    """Yield messages, and send a ping after each quiet interval. Raises: TimeoutError after REDIS_SILENCE_S of silence.

    redis-py (8.1) sends pings of its own, and never checks for their replies.
    """
    received_at = time.monotonic()
    while True:
        with cancellable():
            message = await pubsub.get_message(timeout=timeouts.REDIS_BLOCK_S)
        if message is not None:
            received_at = time.monotonic()
            data = message.get("data")
            if message.get("type") == "message" and isinstance(data, bytes):
                yield data
        elif time.monotonic() - received_at > timeouts.REDIS_SILENCE_S:
            raise TimeoutError(f"no message and no reply to a ping for {timeouts.REDIS_SILENCE_S:g} s")
        else:
            with cancellable():
                await pubsub.ping()
