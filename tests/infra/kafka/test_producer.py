"""Tests of the producer on real servers: replacement after a fault, and unknown outcomes."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import RecordMetadata
from tests.broker.servers import make_topic, read_all, until
from tests.contracts.conftest import Server, connection_to

from agentlog_facts.envelope import LogPosition
from agentlog_facts.errors import OutcomeUnknown, Unavailable
from agentlog_infra.kafka.producer import MAX_REQUEST_BYTES, DurableProducer

DEADLINE_S = 20.0


@asynccontextmanager
async def connected(bootstrap: str) -> AsyncGenerator[DurableProducer]:
    """Yield a connected producer."""
    made = DurableProducer(connection_to(bootstrap), "test")
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@pytest.fixture
async def producer(kafka: str) -> AsyncIterator[DurableProducer]:
    """Yield a producer on a server that stays up."""
    async with connected(kafka) as made:
        yield made


class BrokenOnce:
    """Makes the sender of the next produce request fail like an error of the library, on request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go_on = asyncio.Event(), asyncio.Event()
        self._monkeypatch = monkeypatch
        monkeypatch.setattr("aiokafka.producer.sender.Sender._send_produce_req", self._fail)

    async def _fail(self, *_: object) -> None:
        self._monkeypatch.undo()
        self.entered.set()
        await self.go_on.wait()
        raise RuntimeError("an error nobody expected")


async def sent(producer: DurableProducer, topic: str, value: bytes) -> LogPosition:
    """Send until the producer accepts the record."""
    until = time.monotonic() + DEADLINE_S
    while True:
        try:
            return await producer.send(topic, b"k", value, 0)
        except Unavailable:
            assert time.monotonic() < until, "the producer was not replaced"
            await asyncio.sleep(0.05)


async def test_a_producer_whose_sender_died_while_nobody_waited_is_replaced(
    kafka: str,
    producer: DurableProducer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    topic = await make_topic(kafka)
    await producer.send(topic, b"k", b"before", 0)
    broken = BrokenOnce(monkeypatch)
    given_up = asyncio.ensure_future(producer.send(topic, b"k", b"lost", 0))
    async with asyncio.timeout(DEADLINE_S):
        await broken.entered.wait()
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    broken.go_on.set()
    await until(lambda: "Unexpected error in sender routine" in caplog.text, "the sender dies")
    assert [record.value for record in await read_all(kafka, topic)] == [b"before"]
    assert (await sent(producer, topic, b"after")).offset == 1
    assert [record.value for record in await read_all(kafka, topic)] == [b"before", b"after"]


async def test_the_new_connection_is_tried_again_whatever_went_wrong(
    kafka: str, producer: DurableProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = await make_topic(kafka)
    faults: list[Exception] = [IllegalStateError("of the library"), RuntimeError("of nobody knows what")]
    start = AIOKafkaProducer.start

    async def fails_first(client: AIOKafkaProducer) -> None:
        if faults:
            raise faults.pop(0)
        await start(client)

    broken = BrokenOnce(monkeypatch)
    sending = asyncio.ensure_future(producer.send(topic, b"k", b"lost", 0))
    async with asyncio.timeout(DEADLINE_S):
        await broken.entered.wait()
    monkeypatch.setattr(AIOKafkaProducer, "start", fails_first)
    broken.go_on.set()
    with pytest.raises(Unavailable):
        await sending
    assert (await sent(producer, topic, b"after")).offset == 0
    assert faults == []


async def test_a_replaced_producer_delivers_nothing_any_more(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batches could come hours after their writers got an unknown outcome."""
    monkeypatch.setattr("agentlog_infra.timeouts.PRODUCER_SILENCE_S", 1.0)
    topic = await make_topic(own_server.bootstrap)
    async with connected(own_server.bootstrap) as producer:
        await producer.send(topic, b"k", b"before", 0)
        before = senders()
        own_server.kill()
        with pytest.raises(OutcomeUnknown):
            await producer.send(topic, b"k", b"lost", 0)
        await until(lambda: not senders() & before, "the old sender ends", DEADLINE_S)
        await asyncio.to_thread(own_server.start)
        assert (await sent(producer, topic, b"after")).offset == 1
        assert len(senders()) == 1


def senders() -> set[asyncio.Task[object]]:
    """Return the sender tasks of aiokafka."""
    return {task for task in asyncio.all_tasks() if "Sender._sender_routine" in repr(task.get_coro())}


@pytest.mark.parametrize("number", [0, 1])
async def test_an_acknowledgement_without_a_place_is_an_unknown_outcome(
    producer: DurableProducer, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Kafka answers DUPLICATE_SEQUENCE_NUMBER for a batch of long ago, and aiokafka 0.14 reports a success."""
    at = TopicPartition("t", 0)
    handed: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
    handed.set_result(RecordMetadata("t", 0, at, -1 + number, -1, 0, -1))  # -1 and the record's index in its batch

    async def send(*_: object, **__: object) -> asyncio.Future[RecordMetadata]:
        return handed

    monkeypatch.setattr(AIOKafkaProducer, "send", send)
    with pytest.raises(OutcomeUnknown):
        await producer.send("t", b"k", b"x", 0)


async def test_a_log_that_gives_no_producer_id_is_unavailable(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def none_yet(*_: object) -> bool:
        return False

    monkeypatch.setattr("aiokafka.producer.sender.Sender._do_init_pid", none_yet)
    monkeypatch.setattr("agentlog_infra.timeouts.PRODUCER_START_S", 0.5)
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(Unavailable):
            await DurableProducer(connection_to(kafka), "test").start()


async def test_a_record_that_is_too_large_costs_no_producer(kafka: str, producer: DurableProducer) -> None:
    topic = await make_topic(kafka)
    with pytest.raises(Unavailable) as caught:
        await producer.send(topic, b"k", b"x" * (MAX_REQUEST_BYTES + 1), 0)
    assert isinstance(caught.value.__cause__, KafkaError)
    await producer.send(topic, b"k", b"next", 0)
