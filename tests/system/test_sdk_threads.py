"""System tests of every method of `client.threads` of the official SDK, sync and async, but its streams."""

# The SDK types states and results as bare dicts.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Any
from uuid import uuid4

import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.errors import ConflictError, NotFoundError
from tests.system.servers import RunningServer

STEPS = ["one", "two", "three", "four", "five"]
SUPERSTEPS = [{"updates": [{"values": {"done": ["one"]}, "as_node": "one"}]}]


async def test_the_async_client_does_all_to_threads(server: RunningServer) -> None:
    async with get_client(url=server.url) as client:
        mark = uuid4().hex
        threads: Any = client.threads  # Any: the SDK types rows loosely, and calls of them too narrowly
        made = await threads.create(graph_id="steps", metadata={"mark": mark}, supersteps=SUPERSTEPS, ttl=60)
        thread_id = made["thread_id"]
        assert (made["status"], made["values"]["done"]) == ("interrupted", ["one"])
        shown = await threads.get(thread_id, include=["ttl"])
        assert shown["ttl"]["ttl_minutes"] == 60
        await threads.update(thread_id, metadata={"n": 1}, ttl={"ttl": 5, "strategy": "keep_latest"})
        assert await threads.count(metadata={"mark": mark}, status="interrupted", values={"done": ["one"]}) == 1
        runs: Any = client.runs  # Any: as above
        assert (await runs.wait(thread_id, "steps", input=None))["done"] == STEPS
        found = await threads.search(
            metadata={"mark": mark}, ids=[thread_id], select=["thread_id"], extract={"last": "values.done[-1]"}
        )
        assert found == [{"thread_id": thread_id, "extracted": {"last": "five"}}]
        state = await threads.get_state(thread_id)
        at = await threads.get_state(thread_id, checkpoint=state["checkpoint"])
        assert (at["values"], at["next"]) == (state["values"], [])
        past = await threads.get_history(thread_id, limit=3)
        older = await threads.get_history(thread_id, limit=2, before=past[0]["checkpoint"])
        assert [one["checkpoint"] for one in older] == [one["checkpoint"] for one in past[1:]]
        await threads.update_state(thread_id, {"name": "z"}, as_node="five")
        copied = await threads.copy(thread_id)
        assert copied["thread_id"] != thread_id
        assert await threads.count(metadata={"mark": mark}) == 2
        assert await threads.prune([thread_id], strategy="keep_latest") == {"pruned_count": 1}
        assert len(await threads.get_history(thread_id, limit=9)) == 1
        assert await threads.prune([thread_id, str(uuid4())]) == {"pruned_count": 1}
        with pytest.raises(NotFoundError):
            await threads.delete(thread_id)
        with pytest.raises(ConflictError):
            await threads.copy(thread_id)


def test_the_sync_client_does_all_to_threads(server: RunningServer) -> None:
    with get_sync_client(url=server.url) as client:
        mark = uuid4().hex
        threads: Any = client.threads  # Any: as above
        made = threads.create(graph_id="steps", metadata={"mark": mark}, supersteps=SUPERSTEPS, ttl=60)
        thread_id = made["thread_id"]
        threads.update(thread_id, metadata={"n": 1}, ttl=5)
        assert threads.get(thread_id, include=["ttl"])["ttl"]["ttl_minutes"] == 5
        assert threads.count(metadata={"mark": mark}) == 1
        assert [one["thread_id"] for one in threads.search(metadata={"mark": mark})] == [thread_id]
        state = threads.get_state(thread_id)
        assert state["next"] == ["two"]
        threads.update_state(thread_id, {"done": ["two"]}, as_node="two")
        assert len(threads.get_history(thread_id, limit=9)) == 2
        threads.copy(thread_id)
        assert threads.count(metadata={"mark": mark}) == 2
        assert threads.prune([thread_id]) == {"pruned_count": 1}
        [left] = threads.search(metadata={"mark": mark})
        threads.delete(left["thread_id"])
        assert threads.count(metadata={"mark": mark}) == 0
