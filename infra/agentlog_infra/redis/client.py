"""Clients of Redis or Valkey: time-outs, and faults as Unavailable.

A command that Redis refuses is no outage: it is DependencyRefused, with the refusal of Redis in its text.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)

from agentlog_facts.errors import DependencyRefused, Misconfigured, Unavailable
from agentlog_infra import timeouts
from agentlog_infra.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio.client import Argument, Reply

Client: TypeAlias = Redis | RedisCluster
Command = Literal[
    "PING",
    "INFO",
    "SET",
    "GET",
    "MGET",
    "EXPIRE",
    "RPUSH",
    "LRANGE",
    "BLPOP",
    "SADD",
    "SMEMBERS",
    "ZADD",
    "ZCOUNT",
    "ZREMRANGEBYSCORE",
    "PUBLISH",
    "SUBSCRIBE",
]
"""Every command that agentlog needs. The start of a role tries each one, so that none is refused only later."""

_AWAY = (ClusterDownError, TryAgainError, ReadOnlyError)
"""Refusals while a cluster elects a primary or moves keys: they end by themselves."""


def redis_client(settings: Settings) -> Client:
    """Return a client that connects when used. Raises: Misconfigured for a missing or invalid address."""
    if settings.redis_uri is None:
        raise Misconfigured("REDIS_URI: expected the address of Redis or Valkey, found nothing")
    uri, wait_s = settings.redis_uri, timeouts.REDIS_SOCKET_S
    try:
        if settings.redis_cluster:
            if uri.startswith("unix:"):
                raise ValueError("expected host and port, because REDIS_CLUSTER is true")
            return RedisCluster.from_url(
                uri,
                protocol=2,
                socket_timeout=wait_s,
                socket_connect_timeout=wait_s,
                socket_keepalive=True,
                health_check_interval=timeouts.REDIS_HEALTH_CHECK_S,
            )
        if uri.startswith("unix:"):  # its connections have no keep-alive
            return Redis.from_url(
                uri,
                protocol=2,
                socket_timeout=wait_s,
                socket_connect_timeout=wait_s,
                health_check_interval=timeouts.REDIS_HEALTH_CHECK_S,
            )
        return Redis.from_url(
            uri,
            protocol=2,  # version 3 costs redis-py a push handler for every message
            socket_timeout=wait_s,
            socket_connect_timeout=wait_s,
            socket_keepalive=True,
            health_check_interval=timeouts.REDIS_HEALTH_CHECK_S,
        )
    except ValueError as error:
        raise Misconfigured(f"REDIS_URI: {error}") from error


async def send(client: Client, command: Command, *arguments: "Argument") -> "Reply":
    """Send one of the declared commands, and return the reply."""
    return await client.execute_command(command, *arguments)


def _fault(what: str, error: BaseException) -> Exception | None:
    """Return the error of the port for a fault of the Redis client; None for an error that is none."""
    if isinstance(error, (ResponseError, AuthenticationError)):
        if isinstance(error, _AWAY):
            return Unavailable(f"{what}: Redis cannot serve it now: {type(error).__name__} {error}")
        return DependencyRefused(f"{what}: Redis refuses it: {type(error).__name__} {error}")
    if isinstance(error, (RedisError, RedisClusterException, OSError, TimeoutError)):
        return Unavailable(f"{what}: Redis does not answer (REDIS_URI): {type(error).__name__} {error}")
    return None


@contextmanager
def redis_faults(what: str) -> Generator[None]:
    """Translate faults of the Redis client. Raises: Unavailable; DependencyRefused if Redis answers with a refusal."""
    try:
        yield
    except Exception as error:
        fault = _fault(what, error)
        if fault is None:
            raise
        raise fault from error


class cancellable:
    """Raise a cancellation of this task that the block has lost.

    redis-py sends by `asyncio.wait_for`, which in Python 3.11 drops a cancellation that comes as the sending ends.
    """

    __slots__ = ("_before", "_task")

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._before = 0 if self._task is None else self._task.cancelling()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.lost():
            raise asyncio.CancelledError

    def lost(self) -> bool:
        """Tell whether the task was asked to cancel since the block began."""
        return self._task is not None and self._task.cancelling() > self._before


class answered:
    """Limit a command to `patience_s` plus REDIS_ANSWER_S. Raises: Unavailable, DependencyRefused.

    One object in place of three nested generators: each run enters it dozens of times.
    """

    __slots__ = ("_block", "_limit", "_what")

    def __init__(self, what: str, patience_s: float = 0.0) -> None:
        self._what = what
        self._limit = asyncio.timeout(patience_s + timeouts.REDIS_ANSWER_S)
        self._block = cancellable()

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._block.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lost = error is None and self._block.lost()
        if lost:
            error = asyncio.CancelledError()
        try:
            await self._limit.__aexit__(None if error is None else type(error), error, trace)
        except TimeoutError as late:
            error, lost = late, False
        fault = None if error is None else _fault(self._what, error)
        if fault is not None:
            raise fault from error
        if lost and error is not None:
            raise error
