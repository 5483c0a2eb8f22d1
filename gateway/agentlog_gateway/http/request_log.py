"""Log line for each request, for terminals; structured logs leave requests to the proxy in front."""

import logging
import time
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("agentlog.requests")
"""`agentlog_infra.logs` names it too: it is silent where no terminal is."""

NO_RESPONSE = "no response"


class RequestLog:
    """ASGI middleware: logs method, path, status and the milliseconds to the end of the response.

    The path is percent-encoded, so that no request can write control characters to a terminal. The status is `no
    response` if the client left before the response began.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or not log.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status: int | str = NO_RESPONSE

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            status = 500 if status == NO_RESPONSE else status  # Starlette answers it
            raise
        finally:
            fields = {
                "method": scope["method"],
                "path": quote(scope["path"], safe="/:@,"),
                "status": status,
                "took_ms": (time.monotonic() - began) * 1000,
            }
            log.info("request.answered", extra=fields)
