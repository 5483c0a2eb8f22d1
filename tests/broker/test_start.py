"""Start and end of the process: one per directory, on loopback only, ended with its parent."""

import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.broker.servers import ROOT, BrokerProcess, launch, make_topic, until

pytestmark = pytest.mark.slow


def test_a_second_start_names_the_owner_of_the_directory(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker()
    second = launch(broker.data_dir)
    _, errors = second.communicate(timeout=10)
    assert second.returncode == 1
    assert f"in use by process {broker.pid}" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.test"])
def test_only_loopback_is_listened_on(tmp_path: Path, host: str) -> None:
    process = launch(tmp_path / "data", "--host", host)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert host in errors
    assert "loopback" in errors


def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = launch(tmp_path / "data", "--port", str(taken.getsockname()[1]))
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "address already in use" in errors


def test_the_ready_line_goes_where_it_was_asked_to(tmp_path: Path) -> None:
    receive, send = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "agentlog_broker", "--data", str(tmp_path), "--ready-fd", str(send)],
        pass_fds=[send],
        env={**os.environ, "PYTHONPATH": str(ROOT / "infra")},
    )
    os.close(send)
    with os.fdopen(receive) as ready:
        line = json.loads(ready.readline())
    process.terminate()
    assert process.wait(10) == 0
    assert line == {"host": "127.0.0.1", "port": line["port"], "pid": process.pid}


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
async def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, signal\n"
        "subprocess.Popen([sys.executable, '-m', 'agentlog_broker', '--data', sys.argv[1], '--die-with-parent'])\n"
        "signal.pause()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "infra")}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=subprocess.PIPE, env=environment
    )
    assert parent.stdout is not None
    pid = json.loads(await parent.stdout.readline())["pid"]
    parent.kill()
    await parent.wait()
    await until(lambda: not _runs(pid), "the server is gone")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_clean_stop_and_start_keeps_everything(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker()
    topic = await make_topic(broker.bootstrap)
    assert broker.stop() == 0
    broker.start()
    with pytest.raises(AssertionError):  # it is still there
        await _make_again(broker.bootstrap, topic)


async def _make_again(bootstrap: str, topic: str) -> None:
    from aiokafka.admin import NewTopic
    from tests.broker.servers import admin

    async with admin(bootstrap) as client:
        answer = await client.create_topics([NewTopic(topic, 1, 1)])
    assert answer.topic_errors[0][1] == 0


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">i", 1 << 30),
        struct.pack(">i", -1) + bytes(20),
        struct.pack(">ihhih", 10, 999, 0, 1, -1),
        struct.pack(">ihhih", 12, 0, 7, 1, -1) + b"\xff\xff",
        struct.pack(">ihhih", 14, 3, 5, 1, -1) + struct.pack(">i", 1 << 30),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["too large", "negative", "unknown request", "cut short", "absurd count", "not Kafka"],
)
async def test_bytes_that_are_no_request_close_that_connection_only(kafka: str, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", int(kafka.split(":")[1])), 5) as client:
        client.settimeout(5)
        client.sendall(sent)
        assert client.recv(100) == b""
    await make_topic(kafka)


def test_connections_over_the_limit_are_turned_away(start_broker: Callable[..., BrokerProcess]) -> None:
    broker = start_broker("--max-connections", "3")
    ask = struct.pack(">ihhih", 10, 18, 0, 1, -1)
    held = [socket.create_connection(("127.0.0.1", broker.port), 5) for _ in range(3)]
    try:
        for client in held:
            client.sendall(ask)
            assert len(client.recv(4)) == 4
        with socket.create_connection(("127.0.0.1", broker.port), 5) as extra:
            extra.settimeout(5)
            assert extra.recv(4) == b""
    finally:
        for client in held:
            client.close()
