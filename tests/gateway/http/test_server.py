"""Draining of a gateway: requests end, no connection is accepted, long-running responses are cut."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.stack_fixtures import until

from agentlog_gateway.http.long_poll import BlockingResponse
from agentlog_gateway.http.server import DrainingServer
from agentlog_gateway.streaming.sse_response import SseResponse

DRAIN_STREAMS_S = 0.3


class OneEvent:
    """A stream that yields one event and then waits until it is closed."""

    def __init__(self) -> None:
        self.ended = False
        self._closed = asyncio.Event()
        self._events = self._run()

    async def _run(self) -> AsyncGenerator[bytes]:
        yield b"event: metadata\r\ndata: {}\r\n\r\n"
        await self._closed.wait()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._events

    def close(self) -> None:
        self._closed.set()

    async def aclose(self) -> None:
        self.close()
        await self._events.aclose()


class ServedApp:
    """An application with a response of each kind, and the record of their ends."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.entered = 0
        self.gone: list[str] = []
        self.port = 0
        self.server: DrainingServer | None = None
        self.app = Starlette(routes=[Route("/plain", self.plain), Route("/sse", self.sse), Route("/wait", self.wait)])

    async def plain(self, request: Request) -> Response:
        self.entered += 1
        await self.go.wait()
        return Response("done")

    async def sse(self, request: Request) -> Response:
        async def on_gone() -> None:
            self.gone.append("sse")

        self.entered += 1
        return SseResponse(OneEvent(), bytes, on_gone=on_gone)

    async def wait(self, request: Request) -> Response:
        async def document() -> bytes:
            await self.go.wait()
            return b"{}"

        async def on_gone() -> None:
            self.gone.append("wait")

        self.entered += 1
        return BlockingResponse(document(), {}, on_gone)

    async def open(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect and send a request, on a keep-alive connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return reader, writer

    def stop(self) -> None:
        """Stop the server as SIGTERM does."""
        assert self.server is not None
        self.server.should_exit = True


@asynccontextmanager
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[ServedApp]:
    """Serve until the end of the block, and stop the server there if it still runs."""
    monkeypatch.setattr("agentlog_gateway.timeouts.DRAIN_STREAMS_S", DRAIN_STREAMS_S)
    made = ServedApp()
    config = uvicorn.Config(made.app, http="httptools", loop="none", log_config=None, lifespan="off")
    listening = socket.create_server(("127.0.0.1", 0))
    made.port = listening.getsockname()[1]
    made.server = DrainingServer(config)
    serving = asyncio.create_task(made.server.serve(sockets=[listening]))
    try:
        yield made
    finally:
        made.stop()
        made.go.set()
        async with asyncio.timeout(20):
            await serving


async def test_a_request_in_flight_is_answered_and_nobody_is_accepted_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served(monkeypatch) as app:
        reader, writer = await app.open("/plain")
        await until(lambda: app.entered == 1)
        app.stop()

        await until(lambda: app.server is not None and not app.server.servers[0].is_serving())
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", app.port)
        app.go.set()
        answer = await reader.read()  # to the end of the connection: it is closed after the response
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer
        assert answer.endswith(b"done")
        writer.close()
        await writer.wait_closed()


async def test_an_idle_connection_may_bring_one_more_request_and_is_told_to_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agentlog_gateway.timeouts.DRAIN_IDLE_S", 5.0)
    async with served(monkeypatch) as app:
        app.go.set()
        reader, writer = await app.open("/plain")
        first = await reader.readuntil(b"done")
        assert b"connection: close" not in first
        app.stop()
        await until(lambda: app.server is not None and not app.server.servers[0].is_serving())
        writer.write(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
        second = await reader.read()
        assert b"connection: close" in second
        assert second.endswith(b"done")
        writer.close()
        await writer.wait_closed()


async def test_a_connection_whose_answer_began_before_is_not_closed_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client got no `Connection: close`, so it may send the next request at once; that response has it."""
    monkeypatch.setattr("agentlog_gateway.timeouts.DRAIN_IDLE_S", 5.0)
    async with served(monkeypatch) as app:
        reader, writer = await app.open("/wait")
        assert b"connection: close" not in await reader.readuntil(b"\r\n\r\n")
        app.stop()
        await until(lambda: app.server is not None and not app.server.servers[0].is_serving())
        app.go.set()
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("path", ["/sse", "/wait"])
async def test_what_stays_open_is_cut_without_its_end_and_its_client_counts_as_there(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(monkeypatch) as app:
        reader, writer = await app.open(path)
        await reader.readuntil(b"\r\n\r\n")
        app.stop()
        rest = await reader.read()
        assert not rest.endswith(b"0\r\n\r\n"), "the last chunk would say that this was all"
        writer.close()
        await writer.wait_closed()
    assert app.gone == []


@pytest.mark.parametrize("path", ["/sse", "/wait"])
async def test_a_client_that_leaves_is_noticed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(monkeypatch) as app:
        reader, writer = await app.open(path)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await until(lambda: app.gone == [path[1:]])
