"""TCP balancer over several gateways: each connection goes to the next one that accepts it, unchanged."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

CHUNK = 64 * 1024


class Balancer:
    """The gateways, with the number of connections and refusals of each."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._places = [(str(urlsplit(url).hostname), int(urlsplit(url).port or 80)) for url in urls]
        self._next = 0
        self.given = dict.fromkeys(urls, 0)
        self.refused = 0
        self._urls = list(urls)
        self._carried: set[asyncio.Task[None]] = set()

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection in the background."""
        task = asyncio.create_task(self.serve(reader, writer))
        self._carried.add(task)
        task.add_done_callback(self._carried.discard)

    async def close(self) -> None:
        """Close all open connections."""
        carried = list(self._carried)
        for task in carried:
            task.cancel()
        await asyncio.gather(*carried, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until its end."""
        there = await self._connect()
        if there is None:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
        finally:
            for end in (writer, there[1]):
                end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        first = self._next
        self._next += 1
        for chosen in ((first + more) % len(self._places) for more in range(len(self._places))):
            try:
                made = await asyncio.open_connection(*self._places[chosen])
            except OSError:
                self.refused += 1
                continue
            self.given[self._urls[chosen]] += 1
            return made
        return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward bytes until one side ends, then close the other."""
    try:
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        writer.transport.abort()  # forward a reset as a reset
    else:
        if not writer.is_closing():
            writer.close()


@asynccontextmanager
async def balancer(urls: Sequence[str]) -> AsyncGenerator[tuple[str, Balancer]]:
    """Listen on an own port; yield the URL."""
    balancing = Balancer(urls)
    server = await asyncio.start_server(balancing.take, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", balancing
        await balancing.close()
