"""One request on its way through the server: where it came from and how its answer goes back."""

from collections.abc import Awaitable, Callable

from .wire import Reader


class Request:
    """A decoded request header; `reply` takes the answer's body, None where the protocol wants no answer."""

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
"""Answers at once, later through an awaitable, or (None) by calling `reply` itself."""
