"""HTTP server that drains: it stops accepting, lets requests end, and cuts long-running responses.

A long-running response (a stream, a waiting call) is cut without its last chunk, so that no client takes the cut for
the end. The client reconnects by `Location`, at another gateway or at this one's successor. The run goes on.
"""

import asyncio
import contextlib
import logging
import select
import signal
import socket
from collections.abc import Generator

import uvicorn
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from agentlog_gateway import timeouts

log = logging.getLogger(__name__)

ACCEPTED_AT_MOST = 1_000

_OPEN = "agentlog.stays_open"
_CUT = "agentlog.cut"


def stays_open(scope: Scope) -> None:
    """Mark the response to a request as long-running: it may be cut when the gateway stops."""
    scope[_OPEN] = True


def was_cut(scope: Scope) -> bool:
    """Return whether the server cut the connection: the client has not disconnected, it will reconnect."""
    return _CUT in scope


class DrainingServer(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, then drains; a second SIGINT ends it at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Handle signals without raising them again at the end: the caller has more to close."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then close the remaining connections."""
        log.info("gateway.draining", extra={"connections": len(self.server_state.connections)})
        await self._stop_accepting(sockets or [])
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        clock = asyncio.get_running_loop().time
        began, idle_since = clock(), dict[HttpToolsProtocol, float]()
        while self.server_state.connections and clock() - began < timeouts.DRAIN_REQUESTS_S and not self.force_exit:
            for connection in list(self.server_state.connections):
                if isinstance(connection, HttpToolsProtocol):
                    _wind_down(connection, clock(), began, idle_since)
            await asyncio.sleep(timeouts.DRAIN_POLL_S)  # uvicorn has no callback for the end of a connection
        await super().shutdown(sockets)

    async def _stop_accepting(self, sockets: list[socket.socket]) -> None:
        """Accept the connections in the backlog, then close: the kernel would reset them otherwise."""
        for _ in range(ACCEPTED_AT_MOST):
            if not select.select(sockets, [], [], 0)[0]:
                break
            await asyncio.sleep(0)  # the loop accepts
        for server in self.servers:
            server.close()
        for each in sockets:
            each.close()


def _wind_down(
    connection: HttpToolsProtocol, now: float, began: float, idle_since: dict[HttpToolsProtocol, float]
) -> None:
    """Close a connection that is idle or over time; end its keep-alive otherwise."""
    cycle = connection.cycle
    if not cycle or cycle.response_complete:  # None before the first request, in spite of its annotation
        if now - idle_since.setdefault(connection, now) >= timeouts.DRAIN_IDLE_S:
            connection.transport.close()
        return
    idle_since.pop(connection, None)
    if not cycle.response_started:
        cycle.keep_alive = False
    elif now - began >= timeouts.DRAIN_STREAMS_S and _OPEN in cycle.scope:
        cycle.scope[_CUT] = True  # type: ignore[literal-required]  # ASGI lets servers add keys
        connection.transport.close()
