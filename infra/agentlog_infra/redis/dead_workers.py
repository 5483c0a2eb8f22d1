"""Announcement of dead workers to the housekeeper: a set and a wake-up in Redis, both only hints."""

import logging
import time
from typing import Protocol

from agentlog_facts.errors import Unavailable
from agentlog_infra import timeouts
from agentlog_infra.redis.keys import RedisKeys
from agentlog_infra.settings import Settings

log = logging.getLogger(__name__)


class Announce(Protocol):
    """Announces a dead worker to the housekeeper, which then releases its runs at once."""

    async def __call__(self, worker_id: str) -> None:
        """Announce one worker. If this is lost, its runs are released when their leases have ended."""
        ...


def announcer(settings: Settings) -> Announce:
    """Return a function that announces dead workers in the Redis of these settings."""

    async def announce(worker_id: str) -> None:
        # Imported here: the supervisor needs a client only when a worker died, and it is slow to load.
        from agentlog_infra.redis.client import answered, redis_client, send

        keys = RedisKeys(settings.redis_key_prefix)
        key, deaths = keys.dead_workers, keys.worker_deaths
        client = redis_client(settings)
        try:
            async with answered(key):
                await send(client, "SADD", key, worker_id)
                await send(client, "EXPIRE", key, timeouts.DEAD_WORKER_KEPT_S)
                await send(client, "PUBLISH", key, worker_id)
                now = time.time()
                await send(client, "ZADD", deaths, now, worker_id)
                await send(client, "ZREMRANGEBYSCORE", deaths, "-inf", now - timeouts.WORKER_DEATHS_S)
                await send(client, "EXPIRE", deaths, timeouts.WORKER_DEATHS_S)
        except Unavailable as error:
            log.warning("worker.death_not_announced", extra={"worker": worker_id, "error": str(error)})
        finally:
            await client.aclose()

    return announce
