"""Tests of the announcement of dead workers to a housekeeper that listens already or starts later."""

from tests.stack_fixtures import RunningStack

from agentlog_infra.redis.client import redis_client
from agentlog_infra.redis.dead_workers import announcer
from agentlog_infra.redis.feed import RedisFeed
from agentlog_infra.settings import Settings
from agentlog_infra.system_ports import SystemIds


async def test_a_death_is_told_to_who_listens_and_to_who_comes_later(stack: RunningStack) -> None:
    prefix = f"test-{SystemIds().uuid7()}:"
    settings = Settings.load({"redis_uri": stack.redis, "redis_key_prefix": prefix})
    announce = announcer(settings)
    await announce("before")
    feed = RedisFeed(redis_client(settings), prefix, SystemIds())
    async with feed.dead_workers() as workers:
        assert await anext(workers) == "before"
        await announce("while")
        assert await anext(workers) == "while"
    await feed.stop()


async def test_a_redis_that_is_away_costs_only_the_announcement() -> None:
    settings = Settings.load({"redis_uri": "unix:///nowhere/valkey.sock"})
    await announcer(settings)("worker")
