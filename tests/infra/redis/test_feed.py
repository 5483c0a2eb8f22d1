"""Tests of hints, queue and leases on a real Valkey."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from tests.broker.servers import unique
from tests.stack_fixtures import RunningStack

from agentlog_facts.errors import Unavailable
from agentlog_facts.guard import Duplicate, Void
from agentlog_facts.ids import RunId, Stream
from agentlog_facts.notification import Hint, encode_hint, tries_of
from agentlog_infra.redis.client import answered, redis_client
from agentlog_infra.redis.feed import RedisFeed, _received  # pyright: ignore[reportPrivateUsage]  # tested alone
from agentlog_infra.settings import Settings
from agentlog_infra.system_ports import SystemIds

DEADLINE_S = 10.0
SOON = timedelta(milliseconds=200)
TTL = timedelta(seconds=30)
R1, R2 = RunId("r1"), RunId("r2")


@pytest.fixture
async def feed(stack: RunningStack) -> AsyncGenerator[RedisFeed]:
    """Yield a feed with a key prefix of its own."""
    made = RedisFeed(redis_client(Settings.load({"redis_uri": stack.redis})), unique("t"), SystemIds())
    yield made
    await made.stop()


async def test_runs_are_taken_once_in_the_order_in_which_they_were_pushed(feed: RedisFeed) -> None:
    await feed.push("agent", [R1, R2])
    assert await feed.queued("agent") == {R1, R2}
    assert [await feed.pop(["chat", "agent"], SOON) for _ in range(3)] == [R1, R2, None]


async def test_a_waiting_worker_gets_what_is_pushed_later(feed: RedisFeed) -> None:
    waiting = asyncio.ensure_future(feed.pop(["agent"], timedelta(seconds=2)))
    await feed.push("agent", [R1])
    assert await waiting == R1


async def test_the_jobs_of_all_workers_are_counted_as_long_as_they_are_announced(feed: RedisFeed) -> None:
    assert await feed.announced_jobs() == 0
    await feed.announce_jobs("w1", 10, TTL)
    await feed.announce_jobs("w2", 3, TTL)
    await feed.announce_jobs("w1", 10, TTL)
    assert await feed.announced_jobs() == 13
    await feed.announce_jobs("w1", 10, timedelta())
    assert await feed.announced_jobs() == 3


async def test_a_lease_is_there_for_its_claim_alone(feed: RedisFeed) -> None:
    await feed.renew_lease(R1, 2, "worker", TTL)
    assert list(await feed.leased([(R1, 2), (R1, 3), (R2, 2)])) == [True, False, False]
    assert list(await feed.leased([])) == []


async def test_a_lease_expires(feed: RedisFeed) -> None:
    await feed.renew_lease(R1, 2, "worker", timedelta(milliseconds=20))
    async with asyncio.timeout(DEADLINE_S):
        while list(await feed.leased([(R1, 2)])) != [False]:  # noqa: ASYNC110 - an expiry sends no event
            await asyncio.sleep(0.01)


async def test_an_emptied_server_is_another_instance(feed: RedisFeed, stack: RunningStack) -> None:
    before = await feed.instance()
    assert await feed.instance() == before
    async with Redis.from_url(stack.redis) as client:
        await client.flushall()
    assert await feed.instance() != before


async def test_hints_reach_every_subscriber_as_they_were_published(feed: RedisFeed) -> None:
    void = Void("version_conflict", Stream("thread-t1"), "1", "2")
    hint = Hint(
        3, 9, 12, {10: 4}, {11: void, 12: Duplicate(1)}, ended=("r1",), cancelled=("r2",), tries=tries_of("abc")
    )
    async with feed.subscribe() as first, feed.subscribe() as second:
        waiting = [asyncio.ensure_future(anext(hints)) for hints in (first, second)]
        async with asyncio.timeout(DEADLINE_S):
            while not all(task.done() for task in waiting):  # a subscription takes effect at some time after entering
                await feed.publish([hint])
                await asyncio.sleep(0.01)
        assert [task.result() for task in waiting] == [hint, hint]


async def test_a_server_that_is_away_is_unavailable_and_hints_are_only_logged() -> None:
    nowhere = RedisFeed(redis_client(Settings.load({"redis_uri": "redis://127.0.0.1:1"})), "t", SystemIds())
    with pytest.raises(Unavailable):
        await nowhere.push("agent", [R1])
    await nowhere.publish([Hint(0, 0, 1)])
    await nowhere.stop()


async def test_a_server_that_says_nothing_is_waited_for_a_short_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client closes
        writer.close()

    monkeypatch.setattr("agentlog_infra.timeouts.REDIS_ANSWER_S", 0.1)
    server = await asyncio.start_server(lambda r, w: say_nothing(r, w), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    mute = RedisFeed(redis_client(Settings.load({"redis_uri": f"redis://127.0.0.1:{port}"})), "t", SystemIds())
    async with asyncio.timeout(4):  # all of them together take less than one socket time-out of the client
        for call in (
            mute.check(),
            mute.push("agent", [R1]),
            mute.pop(["agent"], SOON),
            mute.queued("agent"),
            mute.renew_lease(R1, 2, "worker", TTL),
            mute.leased([(R1, 2)]),
            mute.instance(),
        ):
            with pytest.raises(Unavailable):
                await call
        await mute.publish([Hint(0, 0, 1)])
    await mute.stop()
    server.close()
    await server.wait_closed()


class FallingSilent:
    """A server that accepts subscriptions, and sends a message on all connections but the first."""

    def __init__(self, message: bytes) -> None:
        self.subscribed = 0
        self._message = message

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a client until it has subscribed, then send nothing."""
        subscribed = False
        while not reader.at_eof():
            command = await _command(reader)
            if command[:1] == [b"SUBSCRIBE"]:
                subscribed = True
                self.subscribed += 1
                writer.write(_pushed(b"subscribe", command[1], b":1\r\n"))
                if self.subscribed > 1:
                    writer.write(_pushed(b"message", command[1], _bulk(self._message)))
            elif command and not subscribed:
                writer.write(b"+PONG\r\n" if command[0] == b"PING" else b"+OK\r\n")
        writer.close()


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    """Read one command, [] at the end of the connection."""
    words = [await reader.readline() for _ in range(2 * int((await reader.readline())[1:] or b"0"))]
    return [word.strip() for word in words[1::2]]


def _bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


def _pushed(kind: bytes, channel: bytes, what: bytes) -> bytes:
    return b"*3\r\n" + _bulk(kind) + _bulk(channel) + what


async def test_a_subscription_to_which_no_ping_is_answered_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlog_infra.timeouts.REDIS_BLOCK_S", 0.05)
    monkeypatch.setattr("agentlog_infra.timeouts.REDIS_SILENCE_S", 0.3)
    hint = Hint(0, 0, 1, {1: 0}, tries=tries_of("a"))
    silent = FallingSilent(encode_hint(hint))
    server = await asyncio.start_server(silent.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    feed = RedisFeed(redis_client(Settings.load({"redis_uri": f"redis://127.0.0.1:{port}"})), "t", SystemIds())
    async with asyncio.timeout(DEADLINE_S), feed.subscribe() as hints:
        assert await anext(hints) == hint
    assert silent.subscribed == 2
    await feed.stop()
    server.close()
    await server.wait_closed()


async def test_a_subscription_stays_as_it_is_while_pings_are_answered(
    monkeypatch: pytest.MonkeyPatch, stack: RunningStack, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agentlog_infra.timeouts.REDIS_BLOCK_S", 0.02)
    monkeypatch.setattr("agentlog_infra.timeouts.REDIS_SILENCE_S", 0.2)
    feed = RedisFeed(redis_client(Settings.load({"redis_uri": stack.redis})), unique("t"), SystemIds())
    async with feed.subscribe() as hints:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(hints)
    assert "feed.reconnecting" not in caplog.text
    await feed.stop()


async def test_a_hint_of_a_newer_release_is_left_out_and_later_ones_are_heard(stack: RunningStack) -> None:
    prefix = unique("t")
    feed = RedisFeed(redis_client(Settings.load({"redis_uri": stack.redis})), prefix, SystemIds())
    unknown = Hint(0, 0, 1, {}, {1: Void("gone")})
    message = encode_hint(unknown).replace(b'"gone"', b'"a_reason_of_tomorrow"')
    assert message != encode_hint(unknown)
    async with feed.subscribe() as hints, Redis.from_url(stack.redis) as other:
        waiting = asyncio.ensure_future(anext(hints))
        async with asyncio.timeout(DEADLINE_S):
            while not waiting.done():
                for sent in (message, b"{}", b"[", encode_hint(Hint(0, 1, 2))):
                    await other.publish(f"{prefix}:hints", sent)
                await asyncio.sleep(0.01)
        assert waiting.result() == Hint(0, 1, 2)
    await feed.stop()


class Losing:
    """A subscription whose ping ends at the moment at which its task is cancelled, as redis-py sends it."""

    def __init__(self) -> None:
        self.asked = 0

    async def get_message(self, *, timeout: float | None = 0.0) -> dict[str, object] | None:  # noqa: ASYNC109
        self.asked += 1
        if self.asked > 1:
            await asyncio.Event().wait()  # the task goes on although it was cancelled
        return None

    async def ping(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        sending = asyncio.ensure_future(asyncio.sleep(0))
        sending.add_done_callback(lambda _: task.cancel())
        await asyncio.wait_for(sending, DEADLINE_S)


async def test_a_cancelled_subscription_ends_also_if_its_ping_is_just_sent() -> None:
    subscription = Losing()

    async def listen() -> None:
        async for _ in _received(subscription):  # type: ignore[arg-type]  # the parts of a PubSub that it needs
            pass

    listening = asyncio.create_task(listen())
    done, _ = await asyncio.wait({listening}, timeout=DEADLINE_S / 2)
    assert (len(done), subscription.asked) == (1, 1)
    assert listening.cancelled()


async def test_a_cancelled_command_ends_also_if_it_is_just_sent() -> None:
    async def command() -> None:
        async with answered("command"):
            await Losing().ping()
        await asyncio.Event().wait()

    sending = asyncio.create_task(command())
    await asyncio.wait({sending}, timeout=DEADLINE_S / 2)
    assert sending.cancelled()


async def test_cancelled_subscriptions_end_while_they_send_pings(
    monkeypatch: pytest.MonkeyPatch, stack: RunningStack
) -> None:
    monkeypatch.setattr("agentlog_infra.timeouts.REDIS_BLOCK_S", 0.0005)
    feed = RedisFeed(redis_client(Settings.load({"redis_uri": stack.redis})), unique("t"), SystemIds())

    async def listen() -> None:
        async with feed.subscribe() as hints:
            async for _ in hints:
                pass

    for number in range(100):
        listening = asyncio.create_task(listen())
        for _ in range(5 + number % 20):
            await asyncio.sleep(0.001)
        listening.cancel()
        done, _ = await asyncio.wait({listening}, timeout=DEADLINE_S)
        assert done, f"subscription {number} goes on after its cancellation"
    await feed.stop()
