"""Clients of Redis or Valkey: time-outs, and faults as Unavailable."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from redis.asyncio import Redis
from redis.exceptions import RedisError

from agentlog_facts.errors import Misconfigured, Unavailable
from agentlog_infra import timeouts
from agentlog_infra.settings import Settings


def redis_client(settings: Settings) -> Redis:
    """Return a client that connects when used. Raises: Misconfigured for a missing or invalid address."""
    if settings.redis_uri is None:
        raise Misconfigured("REDIS_URI: expected the address of Redis or Valkey, found nothing")
    uri, wait_s = settings.redis_uri, timeouts.REDIS_SOCKET_S
    try:
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


@contextmanager
def redis_faults(what: str) -> Generator[None]:
    """Translate faults of the Redis client into Unavailable."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(f"{what}: Redis does not answer: {type(error).__name__} {error}") from error


@asynccontextmanager
async def answered(what: str, patience_s: float = 0.0) -> AsyncGenerator[None]:
    """Limit a command to `patience_s` plus REDIS_ANSWER_S. Raises: Unavailable."""
    with redis_faults(what):
        async with asyncio.timeout(patience_s + timeouts.REDIS_ANSWER_S):
            yield
