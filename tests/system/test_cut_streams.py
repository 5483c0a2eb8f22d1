"""System tests of cut streams: one that is cut five times and resumed has the ids, events and data of a whole one."""

import asyncio
import random
from contextlib import aclosing

import pytest
from tests.system.api import Api
from tests.system.servers import RunningServer
from tests.system.sse import Event, events

from agentlog_facts.json_value import JsonObject

CUTS = 5
STREAMS, FULL_STREAMS = 4, 100
MODES: JsonObject = {"stream_mode": ["values", "updates", "messages-tuple", "custom"], "stream_resumable": True}
WORKS: list[JsonObject] = [
    {"assistant_id": "chat", "input": {"messages": [{"role": "user", "content": "count to 60"}]}, **MODES},
    {"assistant_id": "chat", "input": {"messages": [{"role": "user", "content": "grüße\u2028\n, 你好"}]}, **MODES},
    {"assistant_id": "steps", "input": {"sleep_ms": 20}, **MODES},
    {"assistant_id": "steps", "input": {"fail_at": "three"}, **MODES},
]


async def cut_and_resumed(url: str, thread_id: str, body: JsonObject, seed: int) -> tuple[str, list[Event]]:
    """Create a run by its stream, cut it CUTS times, and resume each time after the last event."""
    choice = random.Random(seed)
    seen: list[Event] = []
    run_id = ""
    for cut in range(CUTS + 1):
        source = (
            events(f"{url}/threads/{thread_id}/runs/stream", body)
            if not seen
            else events(f"{url}/threads/{thread_id}/runs/{run_id}/stream", last_event_id=seen[-1].id)
        )
        left = choice.randint(1, 8) if cut < CUTS else 10**9
        async with aclosing(source) as stream:
            async for event in stream:
                seen.append(event)
                run_id = run_id or event.data.split('"run_id":"')[1][:36]
                left -= 1
                if left == 0:
                    break
    return run_id, seen


@pytest.mark.timeout(300)
async def test_a_cut_stream_equals_the_run_joined_from_its_start(server: RunningServer, full: bool) -> None:
    api = Api(server.url)

    async def one(seed: int) -> None:
        thread_id = await api.thread()
        body = WORKS[seed % len(WORKS)]
        run_id, seen = await cut_and_resumed(server.url, thread_id, body, seed)
        path = f"{server.url}/threads/{thread_id}/runs/{run_id}/stream"
        whole = [event async for event in events(path, last_event_id="-1")]
        assert seen == whole, f"seed {seed}"
        assert whole[0].event == "metadata"
        assert len({event.id for event in whole}) == len(whole)

    seeds = range(FULL_STREAMS if full else STREAMS)
    for start in range(0, len(seeds), 4):
        await asyncio.gather(*(one(seed) for seed in seeds[start : start + 4]))
