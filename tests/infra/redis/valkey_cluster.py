"""Valkey in cluster mode, from the wheel that the embedded stack uses: any number of shards on loopback."""

import asyncio
import socket
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import ConnectionError

from agentlog_infra.stack.valkey import valkey_program

SLOTS = 16_384
BUS = 10_000
"""A node talks to the others on its port plus this."""
FORMED_S = 30.0


@contextmanager
def valkey_cluster(folder: Path, shards: int) -> Generator[Sequence[int]]:
    """Yield the ports of a cluster whose shards hold equal parts of the slots."""
    ports = [_port() for _ in range(shards)]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for port in ports:
            (folder / str(port)).mkdir()
            running.append(_start(folder / str(port), port))
        asyncio.run(asyncio.wait_for(_form(ports), FORMED_S))
        yield ports
    finally:
        for process in running:
            process.kill()
            process.wait()


def _port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port + BUS < 2**16:
            return port


def _start(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "cluster-enabled": "yes",
        "cluster-node-timeout": "2000",
        "dir": str(folder),
        "save": "",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return subprocess.Popen([str(valkey_program()), *words], stdout=subprocess.DEVNULL)


async def _form(ports: Sequence[int]) -> None:
    clients = [Redis.from_url(f"redis://127.0.0.1:{port}") for port in ports]
    try:
        for number, client in enumerate(clients):
            await _answers(client)
            first, end = SLOTS * number // len(ports), SLOTS * (number + 1) // len(ports)
            await client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            if number:
                await client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])
        for client in clients:
            while not await _is_formed(client, len(ports)):  # noqa: ASYNC110 - a server sends no event
                await asyncio.sleep(0.05)
    finally:
        for client in clients:
            await client.aclose()


async def _answers(client: Redis) -> None:
    while True:
        try:
            await client.ping()
        except ConnectionError:  # the server has not started yet
            await asyncio.sleep(0.05)
        else:
            return


async def _is_formed(client: Redis, nodes: int) -> bool:
    found = await client.execute_command("CLUSTER", "INFO")
    text = found.decode() if isinstance(found, bytes) else str(found)
    return "cluster_state:ok" in text and f"cluster_known_nodes:{nodes}\r" in text
