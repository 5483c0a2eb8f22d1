"""Minimal Kafka client that sends exactly the bytes of a test, for requests that real clients never send."""

import asyncio
import struct
from typing import NamedTuple

from agentlog_broker.batches import HEADER
from agentlog_broker.checksums import crc32c

NO_LEADER_YET = 6


class Produced(NamedTuple):
    """Response to one batch."""

    code: int
    offset: int
    time_ms: int


def make_batch(
    values: list[bytes], *, producer_id: int = -1, epoch: int = -1, sequence: int = -1, attributes: int = 0
) -> bytes:
    """Return a record batch, with records of less than 60 bytes each."""
    records = b""
    for number, value in enumerate(values):
        body = b"\0\0" + bytes([number << 1]) + b"\x01" + bytes([len(value) << 1]) + value + b"\0"
        records += bytes([len(body) << 1]) + body
    last = len(values) - 1
    covered = struct.pack(">hiqqqhii", attributes, last, 1000, 1000, producer_id, epoch, sequence, last + 1) + records
    return struct.pack(">qiibI", 0, len(covered) + 9, -1, 2, crc32c(covered)) + covered


def flip(batch: bytes, at: int) -> bytes:
    """Return the batch with one bit changed."""
    changed = bytearray(batch)
    changed[at] ^= 1
    return bytes(changed)


assert HEADER.size == 61


class WireClient:
    """One connection; requests may be sent before earlier responses have come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._sent = 0

    @classmethod
    async def connect(cls, bootstrap: str) -> "WireClient":
        """Connect to a server."""
        host, port = bootstrap.split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()

    def send(self, api_key: int, version: int, body: bytes) -> None:
        """Send a request without waiting for its response."""
        self._sent += 1
        head = struct.pack(">hhih", api_key, version, self._sent, 4) + b"test"
        self._writer.write(struct.pack(">i", len(head) + len(body)) + head + body)

    async def receive(self) -> tuple[int, bytes]:
        """Return the correlation id and body of the next response."""
        (size,) = struct.unpack(">i", await self._reader.readexactly(4))
        data = await self._reader.readexactly(size)
        return struct.unpack(">i", data[:4])[0], data[4:]

    async def ask(self, api_key: int, version: int, body: bytes) -> bytes:
        """Send a request and return the body of its response."""
        self.send(api_key, version, body)
        number, answer = await asyncio.wait_for(self.receive(), 10)
        assert number == self._sent
        return answer

    async def produce(self, topic: str, batch: bytes, *, acks: int = -1, transactional: bool = False) -> Produced:
        """Append a batch to partition 0; retry while a new topic has no leader yet (error 6)."""
        body = produce_body(topic, batch, acks=acks, transactional=transactional)
        async with asyncio.timeout(30):
            while (found := read_produced(topic, await self.ask(0, 7, body))).code == NO_LEADER_YET:
                continue
        return found


def produce_body(topic: str, batch: bytes, *, acks: int = -1, transactional: bool = False) -> bytes:
    """Return the body of a Produce request, version 3 to 7, for partition 0."""
    name = topic.encode()
    transaction = struct.pack(">h", 1) + b"x" if transactional else b"\xff\xff"
    head = transaction + struct.pack(">hii", acks, 1000, 1) + struct.pack(">h", len(name)) + name
    return head + struct.pack(">iii", 1, 0, len(batch)) + batch


def read_produced(topic: str, answer: bytes) -> Produced:
    """Return the response to a Produce request of version 5 to 7."""
    _, code, offset, time_ms, _ = struct.unpack_from(">ihqqq", answer, 4 + 2 + len(topic.encode()) + 4)
    return Produced(code, offset, time_ms)
