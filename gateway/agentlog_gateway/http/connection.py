"""HTTP connection with bounds: the size of a request's head, and the time that head and body may take.

uvicorn bounds neither with httptools, and both libraries add each piece of a long line to the earlier ones, which takes
quadratic time on the loop of all clients.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from agentlog_facts.json_value import dump
from agentlog_gateway import timeouts
from agentlog_gateway.http.descriptors import DescriptorGate


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of one request; sizes in bytes, times in seconds.

    A body has `body_s` and one more second for each `body_bytes_per_s` that have arrived.
    """

    head_bytes: int
    head_s: float
    body_s: float
    body_bytes_per_s: int


class _TooLarge(Exception):
    """The head is complete and too large: it ends the parser, which has called us."""


class BoundedConnection(HttpToolsProtocol):
    """Connection of one client; a request beyond its bounds gets 408, 414 or 431, and the connection is closed."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
        gate: DescriptorGate,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url = b""  # uvicorn sets it with the first byte of a request
        self._limits = limits
        self._gate = gate
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = True
        self._in_body = False
        self._refused = False
        self._fed = 0
        """Bytes of the head so far; within a body the bytes since the last piece of it (chunk sizes, trailers)."""
        self._body_bytes = 0
        self._body_began = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Accept a client, which has to send the head of a request in time."""
        super().connection_made(transport)
        self._gate.enter(self, transport, len(self.connections))
        self._time_out(self._limits.head_s, self._late_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._no_time_out()
        self._gate.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass bytes to the parser, at most as many at once as the head may still have.

        Most requests arrive whole, and need no timer: it begins with a part of a head or of a body.
        """
        while data and not self._refused and not self.transport.is_closing():
            room = self._limits.head_bytes - self._fed if self._in_head else len(data)
            part, data = (data, b"") if len(data) <= room else (data[:room], data[room:])
            self._fed += len(part)
            super().data_received(part)
            if self._fed >= self._limits.head_bytes and not self._refused:
                self._refuse_head()
        if self._timer is None and not self._refused and not self.transport.is_closing():
            if self._in_body:
                self._time_out(self._limits.body_s, self._late_body)
            elif self._in_head and self._fed:
                self._time_out(self._limits.head_s, self._late_head)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Start the request. Raises: _TooLarge."""
        if self._head_size() > self._limits.head_bytes:
            raise _TooLarge
        self._gate.leave(self)
        self._no_time_out()
        self._in_head, self._in_body, self._fed = False, True, 0
        self._body_bytes, self._body_began = 0, self.loop.time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._fed = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request; the next one may follow."""
        self._no_time_out()
        self._in_head, self._in_body, self._fed = True, False, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request; uvicorn closes the connection after its keep-alive time."""
        super().on_response_complete()
        if not self.pipeline and not self.transport.is_closing():
            self._gate.enter(self, self.transport, len(self.connections))

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over."""
        self._no_time_out()
        self._in_head = self._in_body = False
        self._gate.leave(self)
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that the parser refuses."""
        if self._head_size() > self._limits.head_bytes:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers or ())

    def _late_head(self) -> None:
        """Close a connection without a complete head in time; say so if it has begun one."""
        self._timer = None
        if self._fed:
            self._refuse(408, f"Request head not complete after {self._limits.head_s:g} s")
        else:
            self.transport.close()

    def _late_body(self) -> None:
        """Close a connection whose body arrives too slowly; time in which we do not read does not count."""
        now = self.loop.time()
        if self.flow.read_paused:
            self._body_began, self._body_bytes = now, 0
        due = self._body_began + self._limits.body_s + self._body_bytes / self._limits.body_bytes_per_s
        if now < due:
            self._time_out(due - now, self._late_body)
            return
        self._refuse(408, f"Request body too slow (expected {self._limits.body_bytes_per_s} bytes per second)")

    def _refuse_head(self) -> None:
        most = self._limits.head_bytes
        if len(self.url) > most // 2:
            self._refuse(414, f"Request line too long (limit of line and headers: {most} bytes)")
        else:
            self._refuse(431, f"Request headers too large (limit of line and headers: {most} bytes)")

    def _refuse(self, status: int, detail: str) -> None:
        """Answer, unless another response is on its way; drop further bytes, and close after a moment.

        A connection that is closed with unread bytes is reset, and the client might not see the response.
        """
        self._refused = True
        self._no_time_out()
        if self.cycle and not self.cycle.response_complete:
            if self.cycle.response_started or self._in_head:
                self.transport.close()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = dump({"detail": detail})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._time_out(timeouts.REFUSED_CONNECTION_S, self.transport.close)

    def _time_out(self, seconds: float, act: Callable[[], None]) -> None:
        self._no_time_out()
        self._timer = self.loop.call_later(seconds, act)

    def _no_time_out(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
