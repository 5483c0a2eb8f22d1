"""Reads of the log of the server under load: ends, counts and stored bytes."""

import struct
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager

from aiokafka import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11

from agentlog_facts.topics import EVENTS
from agentlog_facts.vocabulary import parse_commit
from agentlog_infra.kafka.connection import connection
from agentlog_infra.kafka.reader import KafkaReader, Record
from agentlog_infra.settings import Settings

FETCH_BYTES = 8 * 1024 * 1024
FETCH_WAIT_MS = 1000
BATCH_PREFIX = struct.Struct(">qi")  # base offset, length of what follows. Source: Kafka documentation, "Record Batch"


class LogReads:
    """Reads one topic of a running stack."""

    def __init__(self, reader: KafkaReader, client: AIOKafkaClient, topic: str, partitions: int) -> None:
        self._reader = reader
        self._client = client
        self._topic = topic
        self._partitions = partitions

    async def ends(self) -> Mapping[int, int]:
        """Return the offset after the last record of each partition."""
        return {number: await self._reader.end(number) for number in range(self._partitions)}

    async def records(self, partition: int, start: int, end: int) -> AsyncGenerator[Record]:
        """Yield the records start <= offset < end."""
        async with aclosing(self._reader.read(partition, start, end)) as records:
            async for record in records:
                yield record

    async def stored_bytes(self, partition: int, start: int, end: int) -> int:
        """Return the size of the record batches start <= offset < end as stored: compressed, with headers."""
        size, at = 0, start
        while at < end:
            batches = await self._fetch(partition, at)
            position, before = 0, at
            while position + BATCH_PREFIX.size <= len(batches) and at < end:
                base, length = BATCH_PREFIX.unpack_from(batches, position)
                whole = BATCH_PREFIX.size + length
                if base != at or position + whole > len(batches):
                    break
                (last_delta,) = struct.unpack_from(">i", batches, position + 23)
                size, at, position = size + whole, base + last_delta + 1, position + whole
            if at == before:
                raise RuntimeError(f"{self._topic}-{partition}: no whole batch begins at offset {at}")
        return size

    async def _fetch(self, partition: int, offset: int) -> bytes:
        node = self._client.get_random_node()  # the embedded log has one
        if node is None or not await self._client.ready(node):
            raise RuntimeError(f"{self._topic}: no connection to the log")
        wanted = [(self._topic, [(partition, offset, FETCH_BYTES)])]
        answer = await self._client.send(node, FetchRequest(FETCH_WAIT_MS, 1, FETCH_BYTES, 0, wanted))
        if not isinstance(answer, FetchResponse_v11):  # the newest that both sides know
            raise RuntimeError(f"{self._topic}: the log answered as {type(answer).__name__}")
        _, code, *_, batches = answer.topics[0][1][0]
        if code:
            raise RuntimeError(f"{self._topic}-{partition}: the log answered error {code}")
        return batches


@asynccontextmanager
async def read_log(settings: Settings, topic: str = EVENTS) -> AsyncGenerator[LogReads]:
    """Connect to the log of these settings."""
    reader = KafkaReader(connection(settings), topic, "agentlog-bench")
    client = AIOKafkaClient(**connection(settings), client_id="agentlog-bench")
    try:
        await client.bootstrap()
        yield LogReads(reader, client, topic, settings.partitions)
    finally:
        await client.close()
        await reader.stop()


async def count(settings: Settings) -> tuple[int, int]:
    """Return the number of commits on the log, and of their facts."""
    commits = facts = 0
    async with read_log(settings) as log:
        for partition, end in (await log.ends()).items():
            async for record in log.records(partition, 0, end):
                found = parse_commit(record.value or b"").get("facts")
                commits += 1
                facts += len(found) if isinstance(found, list) else 0
    return commits, facts
