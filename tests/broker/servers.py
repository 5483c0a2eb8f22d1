"""Servers and clients of the Kafka protocol for tests: starts, kills, stops."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from agentlog_broker.disk import Disk
from agentlog_broker.server import Server
from agentlog_broker.settings import BrokerSettings

ROOT = Path(__file__).parents[2]
SHOWN_S = 40.0
Record = ConsumerRecord[bytes, bytes]


class BrokerProcess:
    """`agentlog_broker` as a process of its own; it may start again on the same directory after a kill."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.start_s = 0.0

    @property
    def bootstrap(self) -> str:
        """Return the address for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Return the pid of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> "BrokerProcess":
        """Start and wait for the ready line; a second start keeps the port."""
        began = time.monotonic()
        self._process = launch(self.data_dir, "--port", str(self.port), *self._options)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate(timeout=10)
            raise RuntimeError(errors)
        self.port = int(json.loads(line)["port"])
        self.start_s = time.monotonic() - began
        return self

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Stop the server with SIGTERM; return its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        process.communicate(timeout=20)
        return process.returncode


def launch(data_dir: Path, *options: str) -> subprocess.Popen[str]:
    """Run `python -m agentlog_broker` with its output captured."""
    return subprocess.Popen(
        [sys.executable, "-m", "agentlog_broker", "--data", str(data_dir), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "infra")},
    )


@asynccontextmanager
async def serving(settings: BrokerSettings, disk: Disk | None = None) -> AsyncGenerator[tuple[Server, str]]:
    """Run a server in this process; yield it and its address."""
    server = Server(settings, disk)
    port = await server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        await server.stop()


def unique(name: str) -> str:
    """Return a unique name."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncGenerator[AIOKafkaAdminClient]:
    """Yield an admin client that is closed afterwards."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def producer(
    bootstrap: str,
    *,
    compression: Literal["gzip", "snappy", "lz4", "zstd"] | None = None,
    linger_ms: int = 0,
    max_request_size: int = 1 << 20,
) -> AsyncGenerator[AIOKafkaProducer]:
    """Yield an idempotent producer with acks=all that is stopped afterwards."""
    client = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        compression_type=compression,
        linger_ms=linger_ms,
        max_request_size=max_request_size,
        request_timeout_ms=10_000,
        retry_backoff_ms=20,
    )
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def reader(
    bootstrap: str, *partitions: TopicPartition, wait_ms: int = 500, reset: Literal["earliest", "none"] = "earliest"
) -> AsyncGenerator[AIOKafkaConsumer]:
    """Yield a consumer that reads these partitions from their start, without a group."""
    client = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset=reset, fetch_max_wait_ms=wait_ms
    )
    try:
        await client.start()
        client.assign(partitions)
        yield client
    finally:
        await client.stop()


async def make_topic(bootstrap: str, name: str = "t", partitions: int = 1, **configs: str) -> str:
    """Create a topic of a unique name, and wait until the server shows it; setting names with `_` for `.`.

    Some clients look for a topic once, at their start: the consumer of Faust would read nothing for five minutes.
    """
    topic = unique(name)
    settings = {key.replace("_", "."): value for key, value in configs.items()}
    async with admin(bootstrap) as client, asyncio.timeout(SHOWN_S):
        answer = await client.create_topics([NewTopic(topic, partitions, 1, topic_configs=settings)])
        assert [error[1] for error in answer.topic_errors] == [0], answer
        while True:
            (shown,) = await client.describe_topics([topic])
            if len([part for part in shown["partitions"] if part["leader"] >= 0]) == partitions:
                return topic
            await asyncio.sleep(0.05)


async def read_all(bootstrap: str, topic: str, partitions: int = 1) -> list[Record]:
    """Return all records that are in a topic now, partition by partition in offset order."""
    parts = [TopicPartition(topic, number) for number in range(partitions)]
    found: list[Record] = []
    async with reader(bootstrap, *parts) as client:
        ends = await client.end_offsets(parts)
        starts = await client.beginning_offsets(parts)
        waiting = {part for part in parts if starts[part] < ends[part]}
        while waiting:
            batches = await client.getmany(*waiting, timeout_ms=5000)
            assert batches, f"{len(found)} records read, {ends} expected"
            for part, records in batches.items():
                found += records
                if records[-1].offset + 1 >= ends[part]:
                    waiting.discard(part)
    return sorted(found, key=lambda record: (record.partition, record.offset))


async def until(condition: Callable[[], bool], what: str, deadline_s: float = 10.0) -> None:
    """Wait for a condition; fail if it does not become true in time."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not in {deadline_s} s: {what}"
        await asyncio.sleep(0.01)
