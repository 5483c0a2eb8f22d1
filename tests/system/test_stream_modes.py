"""System tests of all stream modes over HTTP: their events, their names below subgraphs, and the filter of a join."""

from collections import Counter
from typing import Any

import aiohttp
import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.schema import RunCreate
from tests.system.api import Api
from tests.system.servers import RunningServer

from agentlog_facts.json_value import Json, JsonObject, as_object, load

PAY: Json = {"messages": [{"role": "user", "content": "Pay 25 EUR to Ana"}]}
COUNT: Json = {"messages": [{"role": "user", "content": "Count to 5"}]}
BATCH: list[RunCreate] = [{"assistant_id": "steps", "input": {}}] * 2  # type: ignore[typeddict-item]  # keys have defaults
EVENTS = {
    "values": {"values"},
    "updates": {"updates"},
    "messages": {"messages/metadata", "messages/partial"},
    "messages-tuple": {"messages"},
    "tasks": {"tasks"},
    "checkpoints": {"checkpoints"},
    "debug": {"debug"},
    "events": {"events"},
    "custom": set[str](),
    "tools": set[str](),
}


async def streamed(server: RunningServer, path: str, body: JsonObject) -> list[tuple[str, Json]]:
    """Return the events of a stream."""
    async with aiohttp.ClientSession() as session, session.post(server.url + path, json=body) as response:
        assert response.status == 200, await response.text()
        text = (await response.read()).decode()
    blocks = [block.split("\r\n") for block in text.split("\r\n\r\n") if block and not block.startswith(":")]
    return [(lines[0].removeprefix("event: "), load(lines[1].removeprefix("data: "))) for lines in blocks]


@pytest.mark.parametrize("mode", EVENTS)
async def test_each_mode_has_its_events(server: RunningServer, mode: str) -> None:
    body: JsonObject = {"assistant_id": "chat", "input": COUNT, "stream_mode": mode}
    told = await streamed(server, "/runs/stream", body)
    assert told[0][0] == "metadata"
    assert {event for event, _ in told[1:]} == EVENTS[mode]


async def test_all_modes_come_together_and_a_join_selects_some(server: RunningServer) -> None:
    api = Api(server.url)
    thread_id = await api.thread()
    body: JsonObject = {
        "assistant_id": "agent",
        "input": PAY,
        "stream_mode": [mode for mode in EVENTS if mode != "messages"],
        "stream_subgraphs": True,
        "stream_resumable": True,
    }
    told = await streamed(server, f"/threads/{thread_id}/runs/stream", body)
    counted = Counter(event.partition("|")[0] for event, _ in told)
    assert {"values", "updates", "messages", "tasks", "checkpoints", "debug", "events"} <= set(counted)
    assert counted["debug"] == counted["tasks"] + counted["checkpoints"]
    [run] = [as_object(run) for run in as_list(await api.call("GET", f"/threads/{thread_id}/runs"))]
    async with get_client(url=server.url) as client:
        joined = client.runs.join_stream(
            thread_id, str(run["run_id"]), stream_mode=["tasks", "debug"], last_event_id="-1"
        )
        parts: list[tuple[str, object]] = []
        async for part in joined:
            shown: Any = part  # Any: of the SDK, whose data has no type
            parts.append((shown.event, shown.data))
    assert parts == [(event, data) for event, data in told if event.partition("|")[0] in ("tasks", "debug")]


def as_list(found: Json) -> list[Json]:
    """Return a list."""
    assert isinstance(found, list)
    return found


async def test_the_sdk_creates_batches_and_cancels_many(server: RunningServer) -> None:
    async with get_client(url=server.url) as client:
        made = await client.runs.create_batch(BATCH)
        assert [run["status"] for run in made] == ["pending"] * 2
        thread_id = (await client.threads.create())["thread_id"]
        late = await client.runs.create(thread_id, "steps", input={}, after_seconds=300)
        await client.runs.cancel_many(thread_id=thread_id, run_ids=[late["run_id"]])
        assert (await client.runs.get(thread_id, late["run_id"]))["status"] == "interrupted"


def test_the_sync_sdk_creates_batches_and_cancels_many(server: RunningServer) -> None:
    with get_sync_client(url=server.url) as client:
        made = client.runs.create_batch(BATCH)
        assert [run["status"] for run in made] == ["pending"] * 2
        thread_id = client.threads.create()["thread_id"]
        late = client.runs.create(thread_id, "steps", input={}, after_seconds=300)
        client.runs.cancel_many(thread_id=thread_id, run_ids=[late["run_id"]])
        assert client.runs.get(thread_id, late["run_id"])["status"] == "interrupted"
