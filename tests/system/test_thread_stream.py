"""System tests of the stream of a thread: runs, their ends, and updates of the state, for raw clients and the SDK."""

# The SDK types states and results as bare dicts.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import islice

import aiohttp
from langgraph_sdk import get_client, get_sync_client
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.runs_env import UNKNOWN, Gate, refused
from tests.system.servers import RunningServer

from agentlog_facts.json_value import JsonObject, as_object, load

Event = tuple[str, JsonObject, str | None]
DEADLINE_S = 30


class ThreadClient:
    """A client of a thread's stream, over raw HTTP."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.beats = 0

    async def next(self) -> Event:
        """Return name, data and id of the next event."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                block = (await self._response.content.readuntil(b"\r\n\r\n")).decode().strip()
                if block.startswith(":"):
                    self.beats += 1
                    continue
                lines = dict(line.split(": ", 1) for line in block.split("\r\n"))
                return lines["event"], as_object(load(lines["data"])), lines.get("id")

    async def until_done(self) -> list[Event]:
        """Return the events up to the end of a run."""
        found = [await self.next()]
        while found[-1][1].get("status") != "run_done":
            found.append(await self.next())
        return found

    async def beat(self) -> None:
        """Wait for a heartbeat; no event may come before it."""
        async with asyncio.timeout(DEADLINE_S):
            assert await self._response.content.readuntil(b"\r\n\r\n") == b": heartbeat\r\n\r\n"


@asynccontextmanager
async def streaming(
    server: RunningServer, thread_id: str, query: str = "", last_event_id: str | None = None
) -> AsyncGenerator[ThreadClient]:
    """Open the stream of a thread; wait until the server listens, which a heartbeat shows."""
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{server.url}/threads/{thread_id}/stream{query}", headers=headers) as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            client = ThreadClient(response)
            if last_event_id is None:
                await client.beat()
            yield client


def names(events: list[Event]) -> list[str]:
    return [event for event, _, _ in events]


async def test_a_thread_tells_all_its_runs_and_their_ends(server: RunningServer) -> None:
    api = Api(server.url)
    thread_id = await api.thread()
    async with streaming(server, thread_id) as client, streaming(server, thread_id, "?stream_mode=lifecycle") as cycle:
        for number in range(2):
            run_id = await api.start_run(thread_id, "steps", {"name": str(number)}, {"stream_mode": ["updates"]})
            told = await client.until_done()
            assert names(told) == ["metadata", *["updates"] * 5, "metadata"]
            assert told[0][1] == {"run_id": run_id, "attempt": 1}
            assert told[-1][1] == {"status": "run_done", "run_id": run_id}
            assert all(event_id is not None for _, _, event_id in told)
            assert [data for _, data, _ in await cycle.until_done()] == [told[0][1], told[-1][1]]


async def test_a_client_that_returns_gets_what_came_meanwhile(server: RunningServer) -> None:
    api = Api(server.url)
    thread_id = await api.thread()
    resumable: JsonObject = {"stream_resumable": True}
    async with streaming(server, thread_id) as client:
        first = await api.start_run(thread_id, "steps", {}, resumable)
        told = await client.until_done()
    hidden = await api.start_run(thread_id, "steps", {})
    await api.join(thread_id, hidden)
    second = await api.start_run(thread_id, "steps", {}, resumable)
    await api.join(thread_id, second)
    async with streaming(server, thread_id, last_event_id=told[2][2]) as again:
        assert await again.until_done() == told[3:]
        later = await again.until_done()
        assert (later[0][1]["run_id"], later[-1][1]["run_id"]) == (second, second)
    async with streaming(server, thread_id, "?stream_modes=lifecycle", last_event_id="-1") as cycle:
        told_runs = [(await cycle.until_done())[-1][1]["run_id"] for _ in range(2)]
        assert told_runs == [first, second]


async def test_an_update_of_the_state_is_told(server: RunningServer) -> None:
    api = Api(server.url)
    thread_id = await api.thread()
    await api.join(thread_id, await api.start_run(thread_id, "steps", {"name": "before"}))
    async with streaming(server, thread_id, "?stream_modes=state_update,run_modes") as client:
        await api.call("POST", f"/threads/{thread_id}/state", {"values": {"name": "after"}})
        event, data, event_id = await client.next()
        state = as_object(data["state"])
        assert (event, as_object(state["values"])["name"]) == ("state_update", "after")
        assert state == await api.get(f"/threads/{thread_id}/state")
        assert event_id is not None
        run_id = await api.start_run(thread_id, "steps", {})
        assert (await client.until_done())[-1][1]["run_id"] == run_id


async def test_cancelled_runs_are_told_whether_they_have_started_or_not(server: RunningServer) -> None:
    api, gate = Api(server.url), Gate(server)
    thread_id = await api.thread()
    path = f"/threads/{thread_id}/runs"
    async with streaming(server, thread_id, "?stream_mode=lifecycle") as client:
        running = await api.start_run(thread_id, "steps", gate.held())
        waiting = await api.start_run(thread_id, "steps", {})
        await until(lambda: gate.began(server))
        assert (await client.next())[1] == {"run_id": running, "attempt": 1}
        await api.raw("POST", f"{path}/{waiting}/cancel")
        assert (await client.next())[1] == {"status": "run_done", "run_id": waiting}
        await api.raw("POST", f"{path}/{running}/cancel?action=rollback")
        assert (await client.next())[1] == {"status": "run_done", "run_id": running}
        delayed = await api.start_run(thread_id, "steps", {}, {"after_seconds": 100})
        last = await api.start_run(thread_id, "steps", {}, {"multitask_strategy": "interrupt"})
        told = [(await client.next())[1] for _ in range(3)]
        assert {"status": "run_done", "run_id": delayed} in told
        assert told[-1] == {"status": "run_done", "run_id": last}
        gate.open()


async def test_a_missing_thread_has_heartbeats_and_a_bad_mode_is_refused(server: RunningServer) -> None:
    api = Api(server.url)
    async with streaming(server, UNKNOWN) as client:
        assert client.beats == 0
    bad = await refused(api, "GET", f"/threads/{UNKNOWN}/stream?stream_modes=values")
    assert bad == (422, "Invalid stream mode: values")
    assert (await refused(api, "GET", "/threads/xx/stream"))[0] == 422


async def test_the_sdk_joins_the_stream_of_a_thread(server: RunningServer) -> None:
    api = Api(server.url)
    thread_id = await api.thread()
    run_id = await api.start_run(thread_id, "steps", {}, {"stream_resumable": True})
    await api.join(thread_id, run_id)
    expected = [
        ("metadata", {"run_id": run_id, "attempt": 1}),
        ("metadata", {"status": "run_done", "run_id": run_id}),
    ]
    async with get_client(url=server.url) as client, asyncio.timeout(DEADLINE_S):
        stream = await client.threads.join_stream(thread_id, stream_mode=["lifecycle"], last_event_id="-1")
        parts = [await anext(stream) for _ in expected]
        assert [(part.event, part.data) for part in parts] == expected

    def in_sync() -> list[tuple[str, object]]:
        with get_sync_client(url=server.url) as sdk:
            found = sdk.threads.join_stream(thread_id, stream_mode=["lifecycle"], last_event_id="-1")
            return [(part.event, part.data) for part in islice(found, len(expected))]

    assert await asyncio.to_thread(in_sync) == expected
