"""Check that a Redis serves what agentlog needs: each of its commands, and the keys of one command in one slot."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ClusterCrossSlotError, MovedError, NoPermissionError, RedisClusterException

from agentlog_facts.errors import DependencyRefused, Misconfigured, Unavailable
from agentlog_infra import timeouts
from agentlog_infra.redis.client import Client, Command, answered, redis_faults, send
from agentlog_infra.redis.keys import RedisKeys
from agentlog_infra.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio.client import Argument

_TAG = "REDIS_KEY_PREFIX: expected a prefix with a hash tag, such as {agentlog}:, because Redis runs in cluster mode"
_SHARDS = "REDIS_CLUSTER: expected true, because Redis is a cluster of several shards"
_NO_CLUSTER = "REDIS_CLUSTER: expected false, because Redis does not run in cluster mode, or does not say so"

_Probes: TypeAlias = "Mapping[Command, tuple[tuple[Argument, ...], ...]]"


def probes(keys: RedisKeys) -> _Probes:
    """Return for each command the arguments of its probes, in the order to send; every key that they write expires.

    SUBSCRIBE has none, because it needs a connection of its own.
    """
    one, other, queue, deaths = (f"{keys.probe}:{name}" for name in ("1", "2", "queue", "deaths"))
    workers, life_ms = f"{keys.probe}:set", timeouts.REDIS_PROBE_KEPT_MS
    life_s = life_ms // 1000
    return {
        "PING": ((),),
        "INFO": (("server",),),
        "SET": ((one, "1", "PX", life_ms),),
        "GET": ((one,),),
        "MGET": ((one, other),),
        "RPUSH": ((queue, "1"),),
        "SADD": ((workers, "1"),),
        "ZADD": ((deaths, 1, "1"),),
        "EXPIRE": ((queue, life_s), (workers, life_s), (deaths, life_s)),
        "LRANGE": ((queue, 0, -1),),
        "BLPOP": ((other, queue, timeouts.REDIS_PROBE_BLOCK_S),),
        "SMEMBERS": ((workers,),),
        "ZCOUNT": ((deaths, 0, "+inf"),),
        "ZREMRANGEBYSCORE": ((deaths, "-inf", 0),),
        "PUBLISH": ((keys.probe, "1"),),
        "SUBSCRIBE": (),
    }


async def check_commands(client: Client, keys: RedisKeys) -> None:
    """Send each command but SUBSCRIBE. Raises: Unavailable; DependencyRefused naming the command that is refused."""
    for command, calls in probes(keys).items():
        for arguments in calls:
            async with answered(command):
                await send(client, command, *arguments)


async def demand_usable(client: Client, settings: Settings) -> None:
    """Refuse settings with which this Redis would refuse commands later.

    Raises: Misconfigured naming the setting, or the command that is refused; Unavailable if Redis does not answer.
    """
    keys = RedisKeys(settings.redis_key_prefix)
    try:
        await _learn_cluster(client)
        await _demand_mode(client, settings, keys)
        await check_commands(client, keys)
        await _check_subscription(client, keys)
    except DependencyRefused as error:
        raise _misconfigured(error, settings) from error


async def _learn_cluster(client: Client) -> None:
    """Let the client of a cluster read its slots and its commands, which it does before its first command."""
    if not isinstance(client, RedisCluster):
        return
    try:
        async with answered("COMMAND"):
            await client.initialize()
    except DependencyRefused:
        raise
    except Unavailable as error:
        if any(isinstance(cause, NoPermissionError) for cause in _causes(error)):
            raise Misconfigured("REDIS_URI: CLUSTER SLOTS: Redis refuses it: NoPermissionError") from error
        if isinstance(error.__cause__, RedisClusterException) and "not enabled" in str(error).lower():
            raise Misconfigured(f"{_NO_CLUSTER}, found true") from error
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that led to this one."""
    found = error.__cause__ or error.__context__
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


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
            found = await send(client, "INFO", "cluster")
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
