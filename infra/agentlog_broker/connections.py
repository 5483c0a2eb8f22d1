"""Client connections: requests run concurrently, responses are sent in the order of the requests.

Reading pauses while too many responses are outstanding, too many bytes wait for the disk, or the client does not read.
"""

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Awaitable, Mapping

from .errors import BrokerError, MalformedRequest
from .login import Login, Secret
from .requests import Handler, Request
from .settings import BrokerSettings
from .versions import API_VERSIONS, LOGIN, SASL_HANDSHAKE, api_versions, is_supported

log = logging.getLogger("agentlog_broker")

_HEAD = struct.Struct(">ihhih")  # size, api key, version, correlation id, length of the client id
_ANSWER = struct.Struct(">ii")


class Hub:
    """State that all connections share: handlers, limits, and whether the disk is behind."""

    def __init__(self, settings: BrokerSettings, handlers: Mapping[int, Handler], secret: Secret | None = None) -> None:
        self.settings = settings
        self.secret = secret
        self.handlers = handlers
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.congested = False

    def run(self, work: Awaitable[bytes], slot: "Slot") -> None:
        """Run a request in a task and send its response."""
        task = asyncio.ensure_future(self._finish(work, slot))
        self.tasks.add(task)
        task.add_done_callback(lambda done: self._finished(done, slot))

    async def _finish(self, work: Awaitable[bytes], slot: "Slot") -> None:
        try:
            slot.reply(await work)
        except BrokerError as error:
            slot.connection.abandon(error)

    def _finished(self, task: asyncio.Task[None], slot: "Slot") -> None:
        """Remove a task; an unexpected fault closes the connection, so that the client does not wait."""
        self.tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            log.error("request.failed", exc_info=fault)
            slot.connection.abandon(fault)

    def set_congested(self, congested: bool) -> None:
        """Pause or resume reading on all connections, as the queue for the disk fills and drains."""
        if congested != self.congested:
            self.congested = congested
            for connection in self.connections:
                connection.update_reading()


class Slot:
    """Place of one response in the order of a connection."""

    __slots__ = ("body", "connection", "correlation", "ready")

    def __init__(self, connection: "Connection", correlation: int) -> None:
        self.connection = connection
        self.correlation = correlation
        self.body: bytes | None = None
        self.ready = False

    def reply(self, body: bytes | None) -> None:
        """Set the response; it is sent after all earlier responses."""
        self.body = body
        self.ready = True
        self.connection.flush()


class Connection(asyncio.Protocol):
    """Connection of one client."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._login = None if hub.secret is None else Login(hub.secret)
        self._transport: asyncio.Transport | None = None
        self._slots: deque[Slot] = deque()
        self._buffer = bytearray()
        self._host = ""
        self._writable = True
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept a client, or close its connection if there are too many."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's transport is no subclass of asyncio's
        if len(self._hub.connections) >= self._hub.settings.max_connections:
            log.warning("connection.refused", extra={"limit": self._hub.settings.max_connections})
            transport.close()
            return
        peer = transport.get_extra_info("peername")
        self._host = str(peer[0]) if peer else ""
        self._hub.connections.add(self)
        if self._hub.congested:
            self.update_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client; its requests still run, and their responses are dropped."""
        self._hub.connections.discard(self)
        self._transport = None
        self._slots.clear()

    def data_received(self, data: bytes) -> None:
        """Split the stream into requests and start them."""
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < 4 or len(buffer) < int.from_bytes(buffer[:4], "big") + 4:
                self._check_size(buffer)
                return
            data = bytes(buffer)
            buffer.clear()
        at, total = 0, len(data)
        try:
            while total - at >= 14:
                size = int.from_bytes(data[at : at + 4], "big")
                if total - at - 4 < size:
                    break
                self._request(data, at, at + 4 + size)
                at += 4 + size
        except (MalformedRequest, struct.error) as error:
            self.abandon(error)
            return
        if at < total:
            buffer += data[at:]
            self._check_size(buffer)

    def _check_size(self, buffer: bytearray) -> None:
        if len(buffer) >= 4:
            size = int.from_bytes(buffer[:4], "big", signed=True)
            if not 10 <= size <= self._hub.settings.max_request_bytes:
                self.abandon(MalformedRequest(f"request of {size} bytes"))

    def _request(self, data: bytes, at: int, end: int) -> None:
        size, api_key, version, correlation, client_size = _HEAD.unpack_from(data, at)
        if size > self._hub.settings.max_request_bytes:
            raise MalformedRequest(f"request of {size} bytes")
        slot = Slot(self, correlation)
        self._slots.append(slot)
        body = at + 14 + max(client_size, 0)
        if body > end:
            raise MalformedRequest("client id longer than the request")
        client_id = data[at + 14 : body].decode(errors="replace")
        request = Request(api_key, version, client_id, self._host, data, body, end, slot.reply)
        if api_key == API_VERSIONS:
            slot.reply(api_versions(request, login=self._login is not None))
            return
        handler = self._handler(api_key)
        if handler is None or not is_supported(api_key, version):
            raise MalformedRequest(f"request {api_key} version {version} is not supported")
        answer = handler(request)
        if isinstance(answer, bytes):
            slot.reply(answer)
        elif answer is not None:
            self._hub.run(answer, slot)
        if len(self._slots) >= self._hub.settings.max_pipelined_requests:
            self.update_reading()

    def _handler(self, api_key: int) -> Handler | None:
        """Return the handler of a request. Raises: MalformedRequest if the client has not logged in."""
        login = self._login
        if login is not None:
            if api_key in LOGIN:
                return login.handshake if api_key == SASL_HANDSHAKE else login.authenticate
            if not login.done:
                raise MalformedRequest("a login is needed first")
        return self._hub.handlers.get(api_key)

    def flush(self) -> None:
        """Send the responses that are ready, in order."""
        slots, transport = self._slots, self._transport
        if transport is None:
            return
        out: list[bytes] = []
        while slots and slots[0].ready:
            slot = slots.popleft()
            if slot.body is not None:
                out += (_ANSWER.pack(len(slot.body) + 4, slot.correlation), slot.body)
        if out:
            transport.write(b"".join(out))
        if self._paused:
            self.update_reading()

    def abandon(self, error: BaseException) -> None:
        """Close the connection because of an error."""
        log.warning("connection.abandoned", extra={"error": str(error)})
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def close(self) -> None:
        """Close the connection after the responses that are set have been sent."""
        if self._transport is not None:
            self._transport.close()

    def pause_writing(self) -> None:
        """Pause reading: the client reads too slowly."""
        self._writable = False
        self.update_reading()

    def resume_writing(self) -> None:
        """Resume reading: the client reads again."""
        self._writable = True
        self.update_reading()

    def update_reading(self) -> None:
        """Pause or resume reading, as the limits require."""
        if self._transport is None:
            return
        full = len(self._slots) >= self._hub.settings.max_pipelined_requests
        pause = full or self._hub.congested or not self._writable
        if pause != self._paused:
            self._paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
