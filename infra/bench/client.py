"""HTTP client of the load: plain aiohttp, as cheap as possible, because it shares the cores with the server."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp

JsonObject = dict[str, "object"]
TRIVIAL: JsonObject = {"assistant_id": "trivial", "input": {"messages": [{"role": "user", "content": "hello"}]}}
PATIENCE_S = 120.0
JSON = {"Content-Type": "application/json"}
STEPS: JsonObject = {"assistant_id": "steps", "input": {}}


class Client:
    """The few requests of the cases; a response that is no success raises."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def call(self, method: str, path: str, body: object = None) -> bytes:
        """Send one request and return the body of the response."""
        data = None if body is None else json.dumps(body).encode()
        async with self._session.request(method, path, data=data, headers=JSON) as answer:
            content = await answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
            return content

    async def thread(self) -> str:
        """Create a thread and return its id."""
        return str(json.loads(await self.call("POST", "/threads", {}))["thread_id"])

    async def run(self, thread_id: str, body: JsonObject) -> bytes:
        """Run to the end and return the final values."""
        answer = await self.call("POST", f"/threads/{thread_id}/runs/wait", body)
        if b"__error__" in answer:
            raise RuntimeError(answer[:300].decode())
        return answer

    async def stream(self, path: str, body: JsonObject | None = None) -> tuple[float, int]:
        """Read a stream to its end; return the seconds to its first `messages` event and their number."""
        started, first, count = time.perf_counter(), 0.0, 0
        method = "GET" if body is None else "POST"
        data = None if body is None else json.dumps(body).encode()
        async with self._session.request(method, path, data=data, headers=JSON) as answer:
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {(await answer.read())[:300]!r}")
            async for line in answer.content:
                if line.startswith(b"event: messages"):
                    first = first or time.perf_counter() - started
                    count += 1
                elif line.startswith(b"event: error"):
                    raise RuntimeError(f"{path}: the stream has an error event")
        return first, count

    async def replay(self, path: str) -> int:
        """Join a run's stream from its start; return the number of its events."""
        count = 0
        async with self._session.get(path, headers={"Last-Event-ID": "-1"}) as answer:
            async for line in answer.content:
                count += line.startswith(b"event: ")
        return count


@asynccontextmanager
async def connect(url: str, connections: int = 128) -> AsyncGenerator[Client]:
    """Yield a client with a pool of kept connections."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout, read_bufsize=2**20) as session:
        yield Client(session)
