"""Announcement of dead workers to the housekeeper: a set and a wake-up in Redis, both only hints."""

import logging
from typing import Protocol

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
        from redis.asyncio import Redis
        from redis.exceptions import RedisError

        key = RedisKeys(settings.redis_key_prefix).dead_workers
        wait_s = timeouts.DEAD_WORKER_SOCKET_S
        client = Redis.from_url(settings.redis_uri or "", socket_timeout=wait_s, socket_connect_timeout=wait_s)
        try:
            await client.execute_command("SADD", key, worker_id)
            await client.execute_command("EXPIRE", key, timeouts.DEAD_WORKER_KEPT_S)
            await client.publish(key, worker_id)
        except (RedisError, OSError) as error:
            log.warning("worker.death_not_announced", extra={"worker": worker_id, "error": repr(error)})
        finally:
            await client.aclose()

    return announce
