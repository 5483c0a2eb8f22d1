"""Decides how a gateway stops without failing a request: nothing new, what is in flight ends, what stays open is cut.

An answer that stays open (a stream, a blocking call) is cut without its last chunk, so that no client takes the cut for
the end: it comes back by `Location`, at another gateway or at this one's successor. The run goes on.
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

log = logging.getLogger(__name__)

OPEN_S = 3.0
"""How long answers that stay open may still come to their end."""
PLAIN_S = 12.0
"""How long all others may; a verdict takes milliseconds, or as long as a projector's take-over."""
IDLE_S = 1.0
"""How long an idle connection may still bring a request, which is answered with `Connection: close`. A client that was
not told so sends the next one at any moment, so a connection is never closed just behind an answer."""
TICK_S = 0.02
LAST_S = 1
"""What is cancelled then may take so long to end."""
ACCEPTED_AT_MOST = 1_000

_OPEN = "agentlog.stays_open"
_CUT = "agentlog.cut"


def stays_open(scope: Scope) -> None:
    """Note that the answer to a request is sent over a long time, and may be cut when the gateway stops."""
    scope[_OPEN] = True


def was_cut(scope: Scope) -> bool:
    """Tell whether we ended the connection ourselves: its client has not left, it comes back."""
    return _CUT in scope


class DrainingServer(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, and drains; a second SIGINT ends it at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Take signals without raising them again at the end: the caller has more to close."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then close what is left."""
        log.info("gateway.draining", extra={"connections": len(self.server_state.connections)})
        await self._stop_accepting(sockets or [])
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        clock = asyncio.get_running_loop().time
        began, idle_since = clock(), dict[HttpToolsProtocol, float]()
        while self.server_state.connections and clock() - began < PLAIN_S and not self.force_exit:
            for connection in list(self.server_state.connections):
                if isinstance(connection, HttpToolsProtocol):
                    _ease(connection, clock(), began, idle_since)
            await asyncio.sleep(TICK_S)  # uvicorn tells nobody when a connection ends
        await super().shutdown(sockets)

    async def _stop_accepting(self, sockets: list[socket.socket]) -> None:
        """Accept who has connected already, then close: the system would reset whoever waits to be accepted."""
        for _ in range(ACCEPTED_AT_MOST):
            if not select.select(sockets, [], [], 0)[0]:
                break
            await asyncio.sleep(0)  # the loop accepts
        for server in self.servers:
            server.close()
        for each in sockets:
            each.close()


def _ease(connection: HttpToolsProtocol, now: float, began: float, idle_since: dict[HttpToolsProtocol, float]) -> None:
    """Bring a connection nearer to its end."""
    cycle = connection.cycle
    if not cycle or cycle.response_complete:  # None before the first request, whatever its annotation says
        if now - idle_since.setdefault(connection, now) >= IDLE_S:
            connection.transport.close()
        return
    idle_since.pop(connection, None)
    if not cycle.response_started:
        cycle.keep_alive = False
    elif now - began >= OPEN_S and _OPEN in cycle.scope:
        cycle.scope[_CUT] = True  # type: ignore[literal-required]  # servers may add keys of their own
        connection.transport.close()
