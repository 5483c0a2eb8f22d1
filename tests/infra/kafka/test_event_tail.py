"""Tests of the event tail: after a lost connection it raises before it returns records, as the log may have changed."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from tests.broker.servers import make_topic, producer
from tests.contracts.conftest import Server, connection_to
from tests.stack_fixtures import RunningStack

from agentlog_facts.errors import Diverged, Unavailable
from agentlog_facts.ports import RawRecord
from agentlog_infra.kafka.blobs import KafkaBlobs
from agentlog_infra.kafka.event_tail import KafkaTail
from agentlog_infra.kafka.producer import DurableProducer
from agentlog_infra.kafka.reader import KafkaReader

DEADLINE_S = 20.0
PATIENCE = timedelta(seconds=0.2)


async def append(bootstrap: str, topic: str, *values: bytes) -> None:
    async with producer(bootstrap) as client:
        for value in values:
            await client.send_and_wait(topic, value, b"k", partition=0)


async def polled(tail: KafkaTail, records: int) -> Sequence[RawRecord]:
    """Poll until so many records came; after a lost connection, continue like the projector."""
    found: list[RawRecord] = []
    end = time.monotonic() + DEADLINE_S
    while len(found) < records:
        assert time.monotonic() < end, f"{len(found)} of {records} records came"
        try:
            found += await tail.poll(100, PATIENCE)
        except Unavailable:
            tail.seek(0, len(found))
    return found


@asynccontextmanager
async def tailing(bootstrap: str, stack: RunningStack) -> AsyncGenerator[tuple[KafkaTail, str]]:
    """Yield a tail of a topic of its own, at its start."""
    topic = await make_topic(bootstrap)
    connection = connection_to(bootstrap)
    async with asyncpg.create_pool(stack.postgres, min_size=0) as pool:
        large = KafkaBlobs(DurableProducer(connection, "t"), KafkaReader(connection, topic, "t"), pool, 1, topic)
        made = KafkaTail(connection, large, 1, "test", topic, fetch_wait_ms=50)
        await made.start()
        made.seek(0, 0)
        try:
            yield made, topic
        finally:
            await made.stop()


@pytest.fixture
async def tail(own_server: Server, stack: RunningStack) -> AsyncIterator[tuple[KafkaTail, str]]:
    """Yield a tail on a server that the test may kill and restore."""
    async with tailing(own_server.bootstrap, stack) as made:
        yield made


async def test_no_record_of_a_log_that_was_exchanged_meanwhile_is_given_as_the_next_one(
    own_server: Server, tail: tuple[KafkaTail, str], tmp_path: Path
) -> None:
    reads, topic = tail
    await append(own_server.bootstrap, topic, b"0", b"1")
    own_server.kill()
    older = type(own_server)(tmp_path / "older")
    shutil.copytree(own_server.data_dir, older.data_dir)
    await asyncio.to_thread(own_server.start)
    await append(own_server.bootstrap, topic, b"2")
    assert [record.value for record in await polled(reads, 3)] == [b"0", b"1", b"2"]
    own_server.kill()
    await asyncio.to_thread(older.start)
    await append(older.bootstrap, topic, b"another 2", b"another 3")
    older.stop()
    shutil.rmtree(own_server.data_dir)
    shutil.copytree(older.data_dir, own_server.data_dir)
    await asyncio.to_thread(own_server.start)
    with pytest.raises((Unavailable, Diverged)):
        await given(reads)


async def given(tail: KafkaTail) -> None:
    """Poll until a record or an error comes."""
    end = time.monotonic() + DEADLINE_S
    while not await tail.poll(100, PATIENCE):
        assert time.monotonic() < end, "nothing came"


async def test_a_tail_whose_connection_lasts_reads_on_without_a_word(kafka: str, stack: RunningStack) -> None:
    async with tailing(kafka, stack) as (reads, topic):
        for number in range(5):
            await append(kafka, topic, b"%d" % number)
            found: Sequence[RawRecord] = ()
            while not found:
                found = await reads.poll(100, PATIENCE)
            assert [record.value for record in found] == [b"%d" % number]


async def test_after_a_lost_connection_reading_goes_on_where_it_stood(
    own_server: Server, tail: tuple[KafkaTail, str]
) -> None:
    reads, topic = tail
    await append(own_server.bootstrap, topic, b"0")
    assert len(await polled(reads, 1)) == 1
    own_server.kill()
    await asyncio.to_thread(own_server.start)
    await append(own_server.bootstrap, topic, b"1")
    reads.seek(0, 0)
    assert [record.value for record in await polled(reads, 2)] == [b"0", b"1"]


async def test_a_tail_stops_quietly_while_its_fetches_wait_to_ask_a_log_that_is_away_again(
    own_server: Server, tail: tuple[KafkaTail, str], caplog: pytest.LogCaptureFixture
) -> None:
    reads, topic = tail
    await append(own_server.bootstrap, topic, b"0")
    await polled(reads, 1)
    own_server.kill()
    end = time.monotonic() + DEADLINE_S
    while "Failed fetch messages" not in caplog.text:
        assert time.monotonic() < end, "no fetch has failed"
        with contextlib.suppress(Unavailable):
            await reads.poll(100, timedelta(milliseconds=5))
    await reads.stop()
