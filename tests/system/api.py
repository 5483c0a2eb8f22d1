"""HTTP client of tests: plain requests, typed JSON answers, and an error for every unexpected status."""

import asyncio
import io

import aiohttp

from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load

TIMEOUT = aiohttp.ClientTimeout(total=120)


class Api:
    """Requests to one server, each on its own connection, so that a restart of the server breaks none."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def call(self, method: str, path: str, body: Json = None, headers: dict[str, str] | None = None) -> Json:
        """Send a request; return the JSON of its answer, None for an empty one."""
        status, content = await self.raw(method, path, None if body is None else dump(body), headers)
        assert status < 300, f"{method} {path}: {status} {content[:1000]!r}"
        return load(content) if content.strip() else None

    async def raw(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send bytes; return status and body."""
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
            async with session.request(
                method, self._url + path, data=None if body is None else io.BytesIO(body), headers=headers
            ) as answer:
                return answer.status, await answer.read()

    async def thread(self) -> str:
        """Create a thread and return its id."""
        return str(as_object(await self.call("POST", "/threads", {}))["thread_id"])

    async def start_run(self, thread_id: str, assistant: str, data: JsonObject, more: JsonObject | None = None) -> str:
        """Create a background run and return its id."""
        body: JsonObject = {"assistant_id": assistant, "input": data, **(more or {})}
        return str(as_object(await self.call("POST", f"/threads/{thread_id}/runs", body))["run_id"])

    async def join(self, thread_id: str, run_id: str, opened: asyncio.Event | None = None) -> JsonObject:
        """Wait for a run's end and return its values; `opened` is set when the server has sent its headers."""
        path = f"{self._url}/threads/{thread_id}/runs/{run_id}/join"
        async with aiohttp.ClientSession(timeout=TIMEOUT) as session, session.get(path) as answer:
            assert answer.status == 200, await answer.text()
            if opened is not None:
                opened.set()
            return as_object(load(await answer.read()))

    async def get(self, path: str) -> JsonObject:
        """Read an object."""
        return as_object(await self.call("GET", path))
