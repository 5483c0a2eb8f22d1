"""Response of a waiting call: it sends status and headers at once, newlines as heartbeats, then the JSON document.

Source: docs/http-api.md, section 7.6.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentlog_gateway import timeouts
from agentlog_gateway.http.responses import JSON
from agentlog_gateway.http.server import stays_open, was_cut

log = logging.getLogger(__name__)

HEARTBEAT = b"\n"


class BlockingResponse(Response):
    """Send the document once it is ready; await `on_gone` if the client disconnects first."""

    def __init__(
        self,
        document: Awaitable[bytes],
        headers: Mapping[str, str],
        on_gone: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(headers={**headers, "Content-Type": JSON})
        del self.headers["content-length"]
        self._document = document
        self._on_gone = on_gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response. An error of the document cuts the connection, and the client reconnects by `Location`."""
        stays_open(scope)
        document = asyncio.ensure_future(self._document)
        gone = asyncio.ensure_future(_disconnect(receive))
        left = False
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            left = not await self._wait(document, gone, send)
            if not left:
                await send({"type": "http.response.body", "body": document.result(), "more_body": False})
        finally:
            document.cancel()
            gone.cancel()
            await asyncio.gather(document, gone, return_exceptions=True)
        if left and not was_cut(scope) and self._on_gone is not None:
            log.info("wait.client_gone")
            await self._on_gone()

    async def _wait(self, document: asyncio.Future[bytes], gone: asyncio.Future[None], send: Send) -> bool:
        """Return whether the document was ready before the client disconnected."""
        while True:
            both: set[asyncio.Future[bytes] | asyncio.Future[None]] = {document, gone}
            await asyncio.wait(both, timeout=timeouts.HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if document.done():
                return True
            if gone.done():
                return False
            await send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
