"""Response of server-sent events: sent as they come, and given up when the client goes away."""

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
    """A stream of events that knows whether it came to its end."""

    @property
    def ended(self) -> bool:
        """Tell whether everything was delivered."""
        ...

    def __aiter__(self) -> AsyncIterator[BatchRead]:
        """Yield batches: the events that are ready at the same time."""
        ...

    def close(self) -> None:
        """Give everything back; the iteration ends. May be called at any time."""
        ...

    async def aclose(self) -> None:
        """Close and wait until nothing of it runs; for the task that iterates."""
        ...


class SseResponse(Response, Generic[Batch]):
    """Send events, encoded, as they come; notice at once when the client goes away.

    `on_gone` is awaited when it went away before the end. It is not when the server stops: then the run goes on.
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
        """Answer; returns when the events ended or the client is gone."""
        stays_open(scope)
        gone = asyncio.ensure_future(self._leaves(receive))
        try:
            await self._send(send)
        finally:
            left = gone.done() and not gone.cancelled() and gone.exception() is None
            gone.cancel()
            await self._events.aclose()
        if left and not self._events.ended and not was_cut(scope) and self._on_gone is not None:
            log.info("stream.client_gone")
            await self._on_gone()

    async def _leaves(self, receive: Receive) -> None:
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
