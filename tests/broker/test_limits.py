"""Limits slow clients down; no request is lost and none is stuck."""

import struct
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.broker.servers import make_topic, read_all
from tests.broker.wire_client import WireClient, make_batch, produce_body, read_produced

from agentlog_broker.errors import Misconfigured
from agentlog_broker.server import Server
from agentlog_broker.settings import BrokerSettings


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncGenerator[str]:
    """Yield the address of a server with very low limits."""
    server = Server(BrokerSettings(tmp_path, max_unwritten_bytes=1, max_pipelined_requests=2))
    port = await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop()


async def test_a_client_that_sends_far_ahead_is_slowed_and_served(narrow: str) -> None:
    topic = await make_topic(narrow)
    clients = [await WireClient.connect(narrow) for _ in range(3)]
    for client in clients:
        for number in range(200):
            client.send(0, 7, produce_body(topic, make_batch([b"%d" % number])))
    offsets: list[int] = []
    for client in clients:
        offsets += [read_produced(topic, (await client.receive())[1]).offset for _ in range(200)]
        await client.close()
    assert sorted(offsets) == list(range(600))
    assert len(await read_all(narrow, topic)) == 600


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"host": "0.0.0.0"}, "loopback"),
        ({"port": 70000}, "port 70000"),
        ({"max_message_bytes": 1 << 30}, "max_request_bytes"),
        ({"partitions_default": 0}, "partitions_default 0"),
        ({"wal_file_bytes": 10}, "wal_file_bytes 10"),
    ],
)
def test_a_setting_that_cannot_work_is_named(tmp_path: Path, wrong: dict[str, str | int], words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        BrokerSettings(tmp_path, **wrong)  # type: ignore[arg-type]  # wrong values are the point


async def test_transactions_are_refused_and_not_advertised(narrow: str) -> None:
    topic, client = await make_topic(narrow), await WireClient.connect(narrow)
    assert (await client.produce(topic, make_batch([b"a"]), transactional=True)).code == 53
    answer = await client.ask(18, 0, b"")
    (count,) = struct.unpack_from(">i", answer, 2)
    keys = {struct.unpack_from(">h", answer, 6 + number * 6)[0] for number in range(count)}
    assert keys.isdisjoint(range(24, 29))
    assert {0, 1, 2, 3, 8, 9, 10, 11, 18, 19, 22} <= keys
    await client.close()
