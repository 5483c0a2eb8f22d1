"""Bounds of a connection: the size of the head, the time for head and body, and the number of descriptors."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from agentlog_gateway.http.connection import BoundedConnection, ConnectionLimits
from agentlog_gateway.http.descriptors import DescriptorGate
from agentlog_gateway.http.server import DrainingServer

LIMITS = ConnectionLimits(head_bytes=4096, head_s=0.4, body_s=0.4, body_bytes_per_s=1000)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"


class Served:
    """A server with an application that returns the length of the body."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.left = 0

    async def answer(self, request: Request) -> Response:
        try:
            return Response(str(len(await request.body())))
        except ClientDisconnect:
            self.left += 1
            raise

    async def open(self, *parts: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        for part in parts:
            writer.write(part)
        return reader, writer

    async def send(self, *parts: bytes) -> bytes:
        """Send bytes on a connection of their own; return all that comes until the server closes it."""
        reader, writer = await self.open(*parts)
        async with asyncio.timeout(20):
            found = await reader.read()
        writer.close()
        return found


@asynccontextmanager
async def served(limits: ConnectionLimits = LIMITS, descriptors: int = 1 << 16) -> AsyncGenerator[Served]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    made = Served(listening.getsockname()[1])
    app = Starlette(routes=[Route("/{rest:path}", made.answer, methods=["GET", "POST"])])
    factory = partial(BoundedConnection, limits=limits, gate=DescriptorGate(descriptors))
    config = uvicorn.Config(
        app,
        http=factory,  # type: ignore[arg-type]  # uvicorn only calls it
        loop="none",
        log_config=None,
        lifespan="off",
        timeout_keep_alive=1,
    )
    server = DrainingServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield made
    finally:
        server.should_exit = True
        async with asyncio.timeout(20):
            await serving


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([b"GET /" + b"a" * 5000], 414),
        ([b"GET /", *[b"a" * 100] * 60], 414),
        ([b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"], 414),
        ([GET + b"X: " + b"a" * 5000], 431),
        ([GET + b"X: ", *[b"a" * 100] * 60], 431),
        ([GET + b"X: 1\r\n" * 1000], 431),
        ([GET + b"X: " + b"a" * 5000 + b"\r\n\r\n"], 431),
        ([GET + b"a" * 5000], 431),
        ([b"\r\n" * 3000], 431),
        ([b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * 20_000], 431),
        ([b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ", b"a" * 20_000], 431),
    ],
)
async def test_a_head_that_is_too_large_is_refused_whether_it_ends_or_not(parts: list[bytes], status: int) -> None:
    async with served() as app:
        found = await app.send(*parts)
        assert b"HTTP/1.1 %d " % status in found, found[:200]
        assert b'{"detail":"Request ' in found
        assert await app.send(GET + b"Connection: close\r\n\r\n")


async def test_a_client_that_sends_on_sees_why_it_was_refused_and_others_are_served_meanwhile() -> None:
    async with served() as app:
        reader, writer = await app.open(b"GET /")
        for _ in range(64):
            writer.write(b"a" * (1 << 16))
        async with asyncio.timeout(20):
            assert (await reader.readline()).startswith(b"HTTP/1.1 414 ")
            assert b"200 OK" in await app.send(GET + b"Connection: close\r\n\r\n")
        writer.close()


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (b"", b""),
        (b"GET /ok HTTP/1.1\r\nHo", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n1234", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 408 "),
    ],
    ids=["nothing", "half a head", "half a body", "no chunk"],
)
async def test_a_connection_without_a_whole_request_is_closed(sent: bytes, found: bytes) -> None:
    async with served() as app:
        answer = await app.send(sent)
    assert answer[: len(found) or 1] == found


async def test_a_body_that_drips_is_refused_and_a_slow_one_that_keeps_the_rate_is_not() -> None:
    async def body(app: Served, pieces: int, size: int, pause: float) -> bytes:
        reader, writer = await app.open(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (pieces * size))
        for number in range(pieces):
            asyncio.get_running_loop().call_later(number * pause, writer.write, b"x" * size)
        async with asyncio.timeout(20):
            first = await reader.readline()
        writer.close()
        return first

    async with served() as app:
        dripped, slow = await asyncio.gather(body(app, 40, 1, 0.05), body(app, 20, 1000, 0.05))
        assert app.left == 1
    assert (dripped[:13], slow[:13]) == (b"HTTP/1.1 408 ", b"HTTP/1.1 200 ")


async def test_requests_within_the_bounds_follow_each_other_on_one_connection() -> None:
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000
    async with served() as app:
        found = await app.send(post + (GET + b"\r\n") * 50 + post, GET + b"Connection: close\r\n\r\n")
    assert found.count(b"HTTP/1.1 200 OK") == 53


async def test_when_descriptors_run_out_the_connection_that_waits_longest_makes_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(replace(LIMITS, head_s=60), descriptors=130) as app:
        held = [await app.open(b"GET / HTTP/1.1\r\nHo") for _ in range(80)]
        assert b"200 OK" in await app.send(GET + b"Connection: close\r\n\r\n")
        for _, writer in held:
            writer.close()
    assert "gateway.out_of_descriptors" in [record.message for record in caplog.records]
