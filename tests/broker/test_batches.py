"""Batches that are accepted, recognised as repeats, or refused, sent as raw bytes."""

import asyncio
import struct
from collections.abc import AsyncGenerator, Callable

import pytest
from tests.broker.servers import BrokerProcess, make_topic, read_all
from tests.broker.wire_client import Produced, WireClient, flip, make_batch, produce_body, read_produced


@pytest.fixture
async def client(kafka: str) -> AsyncGenerator[WireClient]:
    """Yield a connection for raw bytes."""
    connected = await WireClient.connect(kafka)
    yield connected
    await connected.close()


async def producer_id(client: WireClient) -> int:
    """Return a new producer id; retry while a cluster that has just started is loading (14, 15)."""
    async with asyncio.timeout(30):
        while True:
            answer = await client.ask(22, 0, b"\xff\xff" + struct.pack(">i", 1000))
            _, code, found, epoch = struct.unpack(">ihqh", answer)
            if code not in (14, 15):
                break
    assert (code, epoch) == (0, 0)
    return int(found)


def stored(answer: Produced) -> tuple[int, int]:
    """Return code and offset; the response to a repeat may have the time of its batch or none."""
    return answer.code, answer.offset


async def test_a_repeat_is_answered_with_the_first_offset_and_stored_once(kafka: str, client: WireClient) -> None:
    topic, pid = await make_topic(kafka), await producer_id(client)
    batches = [make_batch([b"a", b"b"], producer_id=pid, epoch=0, sequence=number * 2) for number in range(5)]
    for number, batch in enumerate(batches + batches):
        assert stored(await client.produce(topic, batch)) == (0, number % 5 * 2)
    assert len(await read_all(kafka, topic)) == 10


async def test_a_repeat_sent_before_the_first_answer_waits_for_the_disk_too(kafka: str, client: WireClient) -> None:
    topic, pid = await make_topic(kafka), await producer_id(client)
    body = produce_body(topic, make_batch([b"a"], producer_id=pid, epoch=0, sequence=0))
    for _ in range(3):
        client.send(0, 7, body)
    answers = [read_produced(topic, (await client.receive())[1]) for _ in range(3)]
    assert [stored(answer) for answer in answers] == [(0, 0)] * 3
    assert len(await read_all(kafka, topic)) == 1


async def test_a_gap_in_the_sequence_is_refused(kafka: str, client: WireClient) -> None:
    topic, pid = await make_topic(kafka), await producer_id(client)
    assert (await client.produce(topic, make_batch([b"a"], producer_id=pid, epoch=0, sequence=0))).code == 0
    assert (await client.produce(topic, make_batch([b"c"], producer_id=pid, epoch=0, sequence=2))).code == 45
    assert (await client.produce(topic, make_batch([b"b"], producer_id=pid, epoch=0, sequence=1))).code == 0


async def test_an_older_epoch_is_fenced_and_a_newer_one_starts_again(kafka: str, client: WireClient) -> None:
    topic, pid = await make_topic(kafka), await producer_id(client)
    assert (await client.produce(topic, make_batch([b"a"], producer_id=pid, epoch=1, sequence=0))).code == 0
    assert (await client.produce(topic, make_batch([b"b"], producer_id=pid, epoch=0, sequence=1))).code == 47
    assert (await client.produce(topic, make_batch([b"c"], producer_id=pid, epoch=2, sequence=0))).code == 0


async def test_producers_get_ids_of_their_own(kafka: str, client: WireClient) -> None:
    ids = [await producer_id(client) for _ in range(5)]
    assert len(set(ids)) == 5


async def test_repeats_are_known_after_a_restart_and_ids_are_not_given_twice(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    broker = start_broker("--wal-file-bytes", "65536")
    topic = await make_topic(broker.bootstrap)
    client = await WireClient.connect(broker.bootstrap)
    pid, sequence = await producer_id(client), 0
    batch, first = b"", Produced(-1, -1, -1)
    for _ in range(100):  # several files, so that some of it is in segments and the manifest
        batch = make_batch([b"x" * 50] * 20, producer_id=pid, epoch=0, sequence=sequence)
        first = await client.produce(topic, batch)
        assert first == Produced(0, sequence, -1)
        sequence += 20
    for end in (broker.kill, broker.stop):
        await client.close()
        end()
        broker.start()
        client = await WireClient.connect(broker.bootstrap)
        assert await client.produce(topic, batch) == first
        gap = make_batch([b"x"], producer_id=pid, epoch=0, sequence=sequence + 1)
        assert (await client.produce(topic, gap)).code == 45
        assert await producer_id(client) > pid
    await client.close()
    assert len(await read_all(broker.bootstrap, topic)) == 2000


@pytest.mark.parametrize(
    ("batch", "codes"),  # CORRUPT_MESSAGE 2, UNSUPPORTED_FOR_MESSAGE_FORMAT 43, TRANSACTIONAL_ID 53, INVALID_RECORD 87
    [
        (flip(make_batch([b"a"]), 65), {2}),
        (flip(make_batch([b"a"]), 18), {2}),
        (make_batch([b"a"])[:40], {2, 87}),
        (flip(make_batch([b"a"]), 16), {2, 43}),
        (make_batch([b"a"]) * 2, {87}),
        (make_batch([b"a"], attributes=0x10), {53, 87}),
        (make_batch([b"a"], attributes=0x20), {87}),
    ],
    ids=["value changed", "checksum changed", "cut short", "old format", "two batches", "transactional", "control"],
)
async def test_a_batch_that_is_not_sound_is_refused(
    kafka: str, client: WireClient, batch: bytes, codes: set[int]
) -> None:
    topic = await make_topic(kafka)
    assert (await client.produce(topic, batch)).code in codes
    assert stored(await client.produce(topic, make_batch([b"good"]))) == (0, 0)


async def test_an_unknown_topic_or_partition_is_an_error(client: WireClient) -> None:
    assert (await client.produce("nobody-made-this", make_batch([b"a"]))).code == 3


async def test_no_acks_means_no_answer_and_still_a_record(kafka: str, client: WireClient) -> None:
    topic = await make_topic(kafka)
    client.send(0, 7, produce_body(topic, make_batch([b"a"]), acks=0))
    assert (await client.produce(topic, make_batch([b"b"]), acks=1)).offset == 1
    assert [record.value for record in await read_all(kafka, topic)] == [b"a", b"b"]


async def test_answers_come_in_the_order_of_the_requests(kafka: str, client: WireClient) -> None:
    topic = await make_topic(kafka)
    for number in range(50):
        if number % 2:
            client.send(18, 0, b"")
        else:
            client.send(0, 7, produce_body(topic, make_batch([b"%d" % number])))
    assert [(await client.receive())[0] for _ in range(50)] == list(range(1, 51))


async def test_a_client_from_the_future_is_told_which_versions_there_are(client: WireClient) -> None:
    answer = await client.ask(18, 99, b"\0")
    code, count = struct.unpack_from(">hi", answer)
    assert code == 35
    assert len(answer) == 6 + count * 6
