"""Check that a Redis serves what agentlog needs: each kind of command, and the keys of one command in one slot."""

import asyncio
import logging

from redis.exceptions import ClusterCrossSlotError, MovedError, RedisClusterException

from agentlog_facts.errors import DependencyRefused, Misconfigured, Unavailable
from agentlog_infra import timeouts
from agentlog_infra.redis.client import Client, answered, redis_faults
from agentlog_infra.redis.keys import RedisKeys
from agentlog_infra.settings import Settings

log = logging.getLogger(__name__)

_TAG = "REDIS_KEY_PREFIX: expected a prefix with a hash tag, such as {agentlog}:, because Redis runs in cluster mode"
_SHARDS = "REDIS_CLUSTER: expected true, because Redis is a cluster of several shards"
_NO_CLUSTER = "REDIS_CLUSTER: expected false, because Redis does not run in cluster mode, or does not say so"


async def check_commands(client: Client, keys: RedisKeys) -> None:
    """Send each kind of command once. Raises: Unavailable; DependencyRefused naming the command that is refused."""
    one, other, queue = f"{keys.probe}:1", f"{keys.probe}:2", f"{keys.probe}:queue"
    life_ms = timeouts.REDIS_PROBE_KEPT_MS
    probes: tuple[tuple[str | int | float, ...], ...] = (
        ("PING",),
        ("SET", one, "1", "PX", life_ms),
        ("GET", one),
        ("MGET", one, other),
        ("RPUSH", queue, "1"),
        ("LRANGE", queue, 0, -1),
        ("BLPOP", other, queue, timeouts.REDIS_PROBE_BLOCK_S),
        ("SADD", f"{keys.probe}:set", "1"),
        ("EXPIRE", f"{keys.probe}:set", life_ms // 1000),
        ("SMEMBERS", f"{keys.probe}:set"),
        ("ZADD", f"{keys.probe}:sorted", "1", "1"),
        ("ZCOUNT", f"{keys.probe}:sorted", "-inf", "+inf"),
        ("ZREMRANGEBYSCORE", f"{keys.probe}:sorted", "-inf", "+inf"),
        ("PUBLISH", keys.probe, "1"),
        ("INFO", "server"),
    )
    for command in probes:
        async with answered(str(command[0])):
            await client.execute_command(*command)


async def demand_usable(client: Client, settings: Settings) -> None:
    """Refuse settings with which this Redis would refuse commands later; a Redis that is away is left for later.

    Raises: Misconfigured naming the setting, or the command that is refused.
    """
    keys = RedisKeys(settings.redis_key_prefix)
    try:
        await _demand_mode(client, settings, keys)
        await check_commands(client, keys)
        await _check_subscription(client, keys)
    except DependencyRefused as error:
        raise _misconfigured(error, settings) from error
    except Unavailable as error:
        if isinstance(error.__cause__, RedisClusterException) and "not enabled" in str(error).lower():
            raise Misconfigured(f"{_NO_CLUSTER}, found true") from error
        log.warning("redis.not_checked", extra={"error": str(error)})


async def _demand_mode(client: Client, settings: Settings, keys: RedisKeys) -> None:
    """Compare the settings with the mode of the server, as far as it tells it."""
    if not await _is_cluster(client):
        return
    if not keys.has_hash_tag:
        raise Misconfigured(f"{_TAG}, found {settings.redis_key_prefix}")
    if not settings.redis_cluster and await _shards(client) > 1:
        raise Misconfigured(f"{_SHARDS}, found false")


async def _is_cluster(client: Client) -> bool:
    try:
        async with answered("INFO"):
            found = await client.execute_command("INFO", "cluster")
    except DependencyRefused:
        return False  # the commands themselves will tell
    return isinstance(found, dict) and found.get("cluster_enabled") == 1


async def _shards(client: Client) -> int:
    try:
        async with answered("CLUSTER SLOTS"):
            found = await client.execute_command("CLUSTER", "SLOTS")
    except DependencyRefused:
        return 1
    ranges = found if isinstance(found, list) else []  # each: first slot, last slot, primary, replicas
    return len({str(one[2]) for one in ranges if isinstance(one, list) and len(one) > 2})


async def _check_subscription(client: Client, keys: RedisKeys) -> None:
    with redis_faults("SUBSCRIBE"):
        async with asyncio.timeout(timeouts.REDIS_ANSWER_S), client.pubsub() as pubsub:
            await pubsub.subscribe(keys.hints)
            await pubsub.get_message(timeout=timeouts.REDIS_ANSWER_S)


def _misconfigured(error: DependencyRefused, settings: Settings) -> Misconfigured:
    match error.__cause__:
        case ClusterCrossSlotError():
            return Misconfigured(f"{_TAG}, found {settings.redis_key_prefix}")
        case MovedError():
            return Misconfigured(f"{_SHARDS}, found false")
        case _:
            return Misconfigured(f"REDIS_URI: {error}")
