"""Clients of Redis or Valkey: time-outs, and faults as Unavailable.

A command that Redis refuses is no outage: it is DependencyRefused, with the refusal of Redis in its text.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
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


@contextmanager
def redis_faults(what: str) -> Generator[None]:
    """Translate faults of the Redis client. Raises: Unavailable; DependencyRefused if Redis answers with a refusal."""
    try:
        yield
    except (ResponseError, AuthenticationError) as error:
        if isinstance(error, _AWAY):
            raise Unavailable(f"{what}: Redis cannot serve it now: {type(error).__name__} {error}") from error
        raise DependencyRefused(f"{what}: Redis refuses it: {type(error).__name__} {error}") from error
    except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
        raise Unavailable(f"{what}: Redis does not answer (REDIS_URI): {type(error).__name__} {error}") from error


@contextmanager
def cancellable() -> Generator[None]:
    """Raise a cancellation of this task that the block has lost.

    redis-py sends by `asyncio.wait_for`, which in Python 3.11 drops a cancellation that comes as the sending ends.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    yield
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


@asynccontextmanager
async def answered(what: str, patience_s: float = 0.0) -> AsyncGenerator[None]:
    """Limit a command to `patience_s` plus REDIS_ANSWER_S. Raises: Unavailable."""
    with redis_faults(what):
        async with asyncio.timeout(patience_s + timeouts.REDIS_ANSWER_S):
            with cancellable():
                yield
