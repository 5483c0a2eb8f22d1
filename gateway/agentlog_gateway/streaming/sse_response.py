"""Response of server-sent events; it ends when the client disconnects."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Generic, Protocol, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentlog_gateway.http.server import stays_open, was_cut

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}

Batch = TypeVar("Batch")
BatchRead = TypeVar("BatchRead", covariant=True)


class Events(Protocol[BatchRead]):
    """A stream of events that knows whether it has reached its end."""

    @property
    def ended(self) -> bool:
        """Return whether everything was delivered."""
        ...

    def __aiter__(self) -> AsyncIterator[BatchRead]:
        """Yield batches: the events that are ready at the same time."""
        ...

    def close(self) -> None:
        """Release all resources and end the iteration. May be called at any time."""
        ...

    async def aclose(self) -> None:
        """Close, and wait until the generators have ended; only for the task that iterates."""
        ...


class SseResponse(Response, Generic[Batch]):
    """Sends events, encoded, as they come, until the end or until the client disconnects.

    `on_gone` is awaited if the client disconnects before the end, but not if the server stops: then the run goes on.
    """

    def __init__(
        self,
        events: Events[Batch],
        encode: Callable[[Batch], bytes],
        headers: Mapping[str, str] | None = None,
        on_gone: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(headers={**HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._events = events
        self._encode = encode
        self._on_gone = on_gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; return when the events have ended or the client has disconnected."""
        stays_open(scope)
        gone = asyncio.ensure_future(self._disconnect(receive))
        try:
            await self._send(send)
        finally:
            left = gone.done() and not gone.cancelled() and gone.exception() is None
            gone.cancel()
            await self._events.aclose()
        if left and not self._events.ended and not was_cut(scope) and self._on_gone is not None:
            log.info("stream.client_gone")
            await self._on_gone()

    async def _disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._events.close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for batch in self._events:
            chunk = self._encode(batch)
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
