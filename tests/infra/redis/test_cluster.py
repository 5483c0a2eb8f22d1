"""Tests of Redis in cluster mode, on one shard and on three, and of a Redis that refuses commands."""

import asyncio
import re
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
from redis.asyncio import Redis
from tests.infra.redis.valkey_cluster import valkey_cluster
from tests.stack_fixtures import RunningStack

from agentlog_facts.errors import DependencyRefused, Misconfigured, Unavailable
from agentlog_facts.ids import RunId
from agentlog_facts.notification import Hint
from agentlog_infra.adapters import open_feed
from agentlog_infra.cli.doctor import examine
from agentlog_infra.redis.client import Command, redis_client
from agentlog_infra.redis.commands import demand_usable, probes
from agentlog_infra.redis.dead_workers import announcer
from agentlog_infra.redis.feed import RedisFeed
from agentlog_infra.redis.keys import RedisKeys
from agentlog_infra.settings import Settings
from agentlog_infra.system_ports import SystemIds

pytestmark = pytest.mark.slow
SERVERS_PAGE = Path(__file__).parents[3] / "docs" / "servers.md"
R1, R2 = RunId("r1"), RunId("r2")
SOON = timedelta(milliseconds=200)
TTL = timedelta(seconds=30)
HEARD_S = 10.0


@pytest.fixture(scope="module")
def one_shard(tmp_path_factory: pytest.TempPathFactory) -> Generator[Sequence[int]]:
    """Yield the port of a cluster with one shard, as a serverless service shows it."""
    with valkey_cluster(tmp_path_factory.mktemp("valkey"), 1) as ports:
        yield ports


@pytest.fixture(scope="module")
def three_shards(tmp_path_factory: pytest.TempPathFactory) -> Generator[Sequence[int]]:
    """Yield the ports of a cluster with three shards."""
    with valkey_cluster(tmp_path_factory.mktemp("valkey"), 3) as ports:
        yield ports


def settings_for(port: int, **more: object) -> Settings:
    return Settings.load({"redis_uri": f"redis://127.0.0.1:{port}", **more})


async def used(settings: Settings) -> None:
    """Use the checks, and every operation of the feed."""
    client = redis_client(settings)
    feed = RedisFeed(client, settings.redis_key_prefix, SystemIds())
    try:
        await demand_usable(client, settings)
        await feed.check()
    finally:
        await feed.stop()
    await operated(settings)


async def operated(settings: Settings) -> None:
    """Use every operation of the feed but its check."""
    feed = RedisFeed(redis_client(settings), settings.redis_key_prefix, SystemIds())
    try:
        await feed.push("agent", [R1, R2])
        assert await feed.queued("agent") == {R1, R2}
        assert [await feed.pop(["chat", "agent"], SOON) for _ in range(3)] == [R1, R2, None]
        await feed.renew_lease(R1, 2, "worker", TTL)
        assert list(await feed.leased([(R1, 2), (R1, 3), (R2, 2)])) == [True, False, False]
        assert await feed.instance() == await feed.instance()
        await announcer(settings)("gone")
        assert await feed.worker_deaths() == 1
        async with feed.dead_workers() as workers, feed.subscribe() as hints, asyncio.timeout(HEARD_S):
            assert await anext(workers) == "gone"
            heard = asyncio.ensure_future(anext(hints))
            while not heard.done():  # a subscription takes effect at some time after entering
                await feed.publish([Hint(0, 0, 1), Hint(0, 0, 1)])
                await asyncio.sleep(0.01)
            assert heard.result() == Hint(0, 0, 1)
    finally:
        await feed.stop()


async def test_the_default_settings_suit_a_cluster_with_one_shard(one_shard: Sequence[int]) -> None:
    await used(settings_for(one_shard[0]))
    await used(settings_for(one_shard[0], redis_cluster=True))


async def test_several_shards_are_used_from_any_of_their_nodes(three_shards: Sequence[int]) -> None:
    for port in three_shards:
        await used(settings_for(port, redis_cluster=True, redis_key_prefix=f"{{agentlog-{port}}}:"))


async def refusal(settings: Settings) -> str:
    client = redis_client(settings)
    try:
        with pytest.raises(Misconfigured) as refused:
            await demand_usable(client, settings)
    finally:
        await client.aclose()
    return str(refused.value)


async def test_settings_that_do_not_suit_the_server_are_named_at_the_start(
    one_shard: Sequence[int], three_shards: Sequence[int], stack: RunningStack
) -> None:
    untagged = await refusal(settings_for(one_shard[0], redis_key_prefix="agentlog:"))
    assert untagged.startswith("REDIS_KEY_PREFIX: expected a prefix with a hash tag, such as {agentlog}:")
    assert untagged.endswith("found agentlog:")
    for port in three_shards:
        assert "REDIS_CLUSTER: expected true" in await refusal(settings_for(port))
    alone = Settings.load({"redis_uri": stack.redis, "redis_cluster": True})
    with pytest.raises(Misconfigured, match="because REDIS_CLUSTER is true"):
        redis_client(alone)


async def test_doctor_names_the_setting_too(one_shard: Sequence[int], tmp_path: Path) -> None:
    flags = {
        "data_dir": tmp_path,
        "kafka_bootstrap": "127.0.0.1:1",
        "database_uri": "postgresql://nobody@127.0.0.1:1/x",
    }
    report = await examine(settings_for(one_shard[0], redis_key_prefix="agentlog:", **flags), ())
    found = {finding.name: finding for finding in report.findings}
    assert (found["redis"].state, "hash tag" in found["redis"].found) == ("failed", True)
    async with commands_sent(one_shard[0]) as sent:
        report = await examine(settings_for(one_shard[0], **flags), ())
    assert {finding.name: finding.state for finding in report.findings}["redis"] == "ok"
    assert sent.count("ZADD") == 1  # it tried each command twice
    report = await examine(settings_for(1, **flags), ())
    assert {finding.name: finding.state for finding in report.findings}["redis"] == "failed"


def documented_commands() -> tuple[Sequence[str], Sequence[str]]:
    """Return the commands that docs/servers.md demands for the user of an ACL, and those for a cluster alone."""
    page = " ".join(SERVERS_PAGE.read_text().split())
    always, _, cluster = page.partition("and the commands ")[2].partition(".")[0].partition("`REDIS_CLUSTER=true`")
    return re.findall(r"\b[A-Z]{3,}\b", always), re.findall(r"\b[A-Z]{3,}\b", cluster)


@pytest.mark.parametrize("cluster", [False, True])
async def test_a_user_with_the_documented_permissions_can_use_everything(
    one_shard: Sequence[int], three_shards: Sequence[int], cluster: bool
) -> None:
    """ZADD, ZCOUNT and ZREMRANGEBYSCORE were neither documented nor tried at the start, and `/ready` needs ZCOUNT."""
    ports, prefix = three_shards if cluster else one_shard, "{agentlog-acl}:"
    always, more = documented_commands()
    allowed = [f"+{command}" for command in (*always, *(more if cluster else ()))]
    for port in ports:
        async with Redis.from_url(f"redis://127.0.0.1:{port}") as admin:
            await admin.execute_command(
                "ACL", "SETUSER", "exact", "reset", "on", ">secret", f"~{prefix}*", f"&{prefix}*", *allowed
            )
    uri = f"redis://exact:secret@127.0.0.1:{ports[0]}"
    await used(Settings.load({"redis_uri": uri, "redis_key_prefix": prefix, "redis_cluster": cluster}))


BY_THE_CLIENT = frozenset({"CLIENT", "CLUSTER", "COMMAND"})
"""Commands that redis-py sends of its own; it does without CLIENT, and needs the others in a cluster only."""


@asynccontextmanager
async def commands_sent(port: int) -> AsyncGenerator[list[str]]:
    """Yield a list that holds at the end the names of all commands that the server has got meanwhile."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    names: list[str] = []
    try:
        writer.write(b"MONITOR\r\n")
        assert await reader.readline() == b"+OK\r\n"
        yield names
        async with Redis.from_url(f"redis://127.0.0.1:{port}", protocol=2) as last, asyncio.timeout(HEARD_S):
            await last.execute_command("ECHO", "the last command")
            while b"the last command" not in (line := await reader.readline()):
                names += [name.decode().upper() for name in re.findall(rb'\] "(\w+)"', line)]
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("in_cluster", [False, True])
async def test_the_start_tries_every_command_that_is_ever_sent(one_shard: Sequence[int], in_cluster: bool) -> None:
    """Three commands were sent and never tried, so that their refusal came while runs were executed."""
    settings = settings_for(one_shard[0], redis_cluster=in_cluster)
    client = redis_client(settings)
    async with commands_sent(one_shard[0]) as tried:
        await demand_usable(client, settings)
    await client.aclose()
    async with commands_sent(one_shard[0]) as sent:
        await operated(settings)
    declared = set(get_args(Command))
    assert set(sent) - BY_THE_CLIENT | {"PING"} == declared  # a subscription sends PING after two quiet seconds
    assert set(tried) - BY_THE_CLIENT == declared
    assert set(probes(RedisKeys("t"))) == declared
    assert set(documented_commands()[0]) == declared


async def test_what_the_checks_write_expires(one_shard: Sequence[int]) -> None:
    async with Redis.from_url(f"redis://127.0.0.1:{one_shard[0]}") as admin:
        for command, calls in probes(RedisKeys("{checked}:")).items():
            for arguments in calls if command != "BLPOP" else ():  # a pop that fails leaves its entry
                await admin.execute_command(command, *arguments)
        keys = await admin.execute_command("KEYS", "{checked}*")
        assert isinstance(keys, list)
        lives = {str(key): await admin.execute_command("PTTL", key) for key in keys if isinstance(key, bytes)}
    assert len(lives) == 4, lives  # a value, a list, a set, a sorted set
    assert all(isinstance(life_ms, int) and life_ms > 0 for life_ms in lives.values()), lives


@pytest.mark.parametrize("command", ["COMMAND", "CLUSTER"])
async def test_the_client_of_a_cluster_names_the_command_that_it_may_not_send(
    one_shard: Sequence[int], command: str
) -> None:
    settings = await narrowed(one_shard[0], command)
    told = await refusal(settings.model_copy(update={"redis_cluster": True}))
    assert told.startswith(f"REDIS_URI: {command}")
    assert "NoPermissionError" in told


async def narrowed(port: int, command: str) -> Settings:
    """Return the settings of a user that may send everything but this command."""
    async with Redis.from_url(f"redis://127.0.0.1:{port}") as admin:
        await admin.execute_command(
            "ACL", "SETUSER", "narrow", "reset", "on", ">secret", "~*", "&*", "+@all", f"-{command}"
        )
    return Settings.load({"redis_uri": f"redis://narrow:secret@127.0.0.1:{port}"})


@pytest.mark.parametrize("command", get_args(Command))
async def test_a_command_that_the_user_may_not_send_is_a_refusal_and_no_outage(
    one_shard: Sequence[int], command: str
) -> None:
    settings = await narrowed(one_shard[0], command)
    assert f"REDIS_URI: {command}: Redis refuses it: NoPermissionError" in await refusal(settings)
    feed = RedisFeed(redis_client(settings), settings.redis_key_prefix, SystemIds())
    if command == "MGET":
        with pytest.raises(DependencyRefused, match="lease: Redis refuses it"):
            await feed.renew_lease(R1, 1, "worker", TTL)
    if command != "SUBSCRIBE":
        with pytest.raises(DependencyRefused, match=command):
            await feed.check()
    await feed.stop()


async def test_a_server_that_is_away_at_the_start_is_left_for_later() -> None:
    settings = Settings.load({"redis_uri": "redis://127.0.0.1:1"})
    async with AsyncExitStack() as stack:
        feed = await open_feed(settings, stack)
        with pytest.raises(Unavailable) as away:
            await feed.check()
    assert not isinstance(away.value, DependencyRefused)
