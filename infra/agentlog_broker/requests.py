"""Request of a client: its header, its origin, and the way back for its response."""

from collections.abc import Awaitable, Callable

from .wire import Reader


class Request:
    """Request with a decoded header; `reply` takes the body of the response, None if the protocol has no response."""

    __slots__ = ("api_key", "client_id", "data", "end", "host", "pos", "reply", "version")

    def __init__(
        self,
        api_key: int,
        version: int,
        client_id: str,
        host: str,
        data: bytes,
        pos: int,
        end: int,
        reply: Callable[[bytes | None], None],
    ) -> None:
        self.api_key = api_key
        self.version = version
        self.client_id = client_id
        self.host = host
        self.data = data
        self.pos = pos
        self.end = end
        self.reply = reply

    def reader(self) -> Reader:
        """Return a reader at the start of the body."""
        return Reader(self.data, self.pos, self.end)


Handler = Callable[[Request], Awaitable[bytes] | bytes | None]
"""Handler of a request: it returns the response, an awaitable of it, or None if it calls `reply` itself."""
