"""Clients with the official SDK that continue during restarts, with their results and reconnections."""

# The SDK types states and results as bare dicts.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import httpx
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import LangGraphError
from tests.stack_fixtures import until
from tests.system.several import Several

from agentlog_facts.json_value import JsonObject, as_object, load

KINDS = ("plain", "wait", "stream", "background", "long stream", "long wait")
STEPS = ["one", "two", "three", "four", "five"]


@dataclass
class Load:
    """Clients with the official SDK, and the results of their requests."""

    url: str
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    done: Counter[str] = field(default_factory=Counter[str])
    failed: list[str] = field(default_factory=list[str])

    async def client(self, number: int) -> None:
        """Send request after request until stopped; each must succeed."""
        kinds = [self._long] if number == 0 else [self._wait, self._stream, self._background, self._stateless]
        async with get_client(url=self.url) as sdk:
            while not self.stop.is_set():
                for kind in kinds:
                    try:
                        await kind(sdk)
                    except (httpx.HTTPError, LangGraphError, AssertionError) as error:
                        self.failed.append(f"{kind.__name__}: {type(error).__name__}: {error} {_told_when(error)}")

    async def more(self, count: int) -> None:
        """Wait for this number of further successful requests."""
        before = self.done.total()
        await until(lambda: self.done.total() >= before + count, within_secs=60)

    async def _thread(self, sdk: LangGraphClient) -> str:
        thread_id = str((await sdk.threads.create())["thread_id"])
        await sdk.threads.update(thread_id, metadata={"seen": True})
        self.done["plain"] += 2
        return thread_id

    async def _wait(self, sdk: LangGraphClient) -> None:
        thread_id = await self._thread(sdk)
        values = await sdk.runs.wait(thread_id, "steps", input={"sleep_ms": 120})
        assert plain(values)["done"] == STEPS
        assert plain((await sdk.threads.get_state(thread_id))["values"])["done"] == STEPS
        self.done["wait"] += 1
        self.done["plain"] += 1

    async def _stream(self, sdk: LangGraphClient) -> None:
        thread_id = await self._thread(sdk)
        parts = sdk.runs.stream(
            thread_id, "steps", input={"sleep_ms": 150}, stream_mode="updates", stream_resumable=True
        )
        nodes = [name async for part in parts if part.event == "updates" for name in plain(part.data)]
        assert nodes == STEPS, nodes
        self.done["stream"] += 1

    async def _long(self, sdk: LangGraphClient) -> None:
        """Hold a request open for longer than a stopping gateway waits: the SDK reconnects and misses nothing."""
        thread_id = await self._thread(sdk)
        parts = sdk.runs.stream(
            thread_id, "steps", input={"sleep_ms": 1500}, stream_mode="updates", stream_resumable=True
        )
        nodes = [name async for part in parts if part.event == "updates" for name in plain(part.data)]
        assert list(dict.fromkeys(nodes)) == STEPS, nodes
        self.done["long stream"] += 1
        values = await sdk.runs.wait(thread_id, "steps", input={"sleep_ms": 1000})
        assert plain(values)["done"] == STEPS * 2
        self.done["long wait"] += 1

    async def _background(self, sdk: LangGraphClient) -> None:
        thread_id = await self._thread(sdk)
        run = await sdk.runs.create(thread_id, "steps", input={"sleep_ms": 120})
        assert plain(await sdk.runs.join(thread_id, run["run_id"]))["done"] == STEPS
        assert (await sdk.runs.get(thread_id, run["run_id"]))["status"] == "success"
        self.done["background"] += 1
        self.done["plain"] += 2

    async def _stateless(self, sdk: LangGraphClient) -> None:
        assert plain(await sdk.runs.wait(None, "steps", input={"sleep_ms": 120}))["done"] == STEPS
        self.done["wait"] += 1


@dataclass
class Held:
    """Streams and waits that are open while both gateways restart, and the number of reconnections of each client."""

    running: Several
    url: str
    gate: str = field(default_factory=lambda: f"gate-{uuid4().hex}")
    came_back: Counter[str] = field(default_factory=Counter[str])

    @asynccontextmanager
    async def open(self, count: int) -> AsyncGenerator[None]:
        """Hold this number of each open for the length of the block; then let their runs end, and check the results."""
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._stream(f"stream {number}"))
                group.create_task(self._wait(f"wait {number}"))
            await until(lambda: len(self._standing()) == 2 * count, within_secs=60)
            yield
            (self.running.gates / self.gate).touch()

    def _standing(self) -> set[str]:
        lines = self.running.steps()
        return {line["run_id"] for line in lines if (line["name"], line["step"]) == (self.gate, "two")}

    async def _stream(self, name: str) -> None:
        """Check that every step arrives once."""
        async with self._sdk(name) as (sdk, thread_id):
            parts = sdk.runs.stream(thread_id, "steps", input=self._work, stream_mode="updates", stream_resumable=True)
            assert [node async for part in parts if part.event == "updates" for node in plain(part.data)] == STEPS

    async def _wait(self, name: str) -> None:
        async with self._sdk(name) as (sdk, thread_id):
            assert plain(await sdk.runs.wait(thread_id, "steps", input=self._work))["done"] == STEPS

    @property
    def _work(self) -> dict[str, str | dict[str, str]]:
        return {"name": self.gate, "hold": {"two": self.gate}}

    @asynccontextmanager
    async def _sdk(self, name: str) -> AsyncGenerator[tuple[LangGraphClient, str]]:
        self.came_back[name] = 0

        async def asked(request: httpx.Request) -> None:
            self.came_back[name] += request.method == "GET" and request.url.path.endswith(("/stream", "/join"))

        async with get_client(url=self.url) as sdk:
            sdk.http.client.event_hooks = {"request": [asked]}
            yield sdk, str((await sdk.threads.create())["thread_id"])


def _told_when(error: Exception) -> str:
    """Return the times of all requests, for the message of a failed test."""
    now = time.strftime("%H:%M:%S", time.gmtime())
    return f"{error.request.method} {error.request.url} {now}" if isinstance(error, httpx.RequestError) else now


def plain(answer: object) -> JsonObject:
    """Return an answer of the SDK as plain JSON."""
    return as_object(load(json.dumps(answer)))
