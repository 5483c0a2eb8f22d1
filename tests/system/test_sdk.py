"""System tests with the official SDK, sync and async, unchanged: every endpoint of this release."""

# The SDK types states and results as bare dicts.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError
from langgraph_sdk.schema import StreamMode
from tests.stack_fixtures import until
from tests.system.runs_env import UNKNOWN, Gate, done_of
from tests.system.servers import RunningServer, wait_until

from agentlog_facts.json_value import Json, JsonObject, as_object, load

ALL_STEPS = ["one", "two", "three", "four", "five"]
PAY: dict[str, Any] = {"messages": [{"role": "user", "content": "Pay 25 EUR to Ana"}]}


def seen(answer: object) -> Json:
    """Return an answer of the SDK as plain JSON."""
    return load(json.dumps(answer))


def given(value: JsonObject) -> dict[str, Any]:
    """Return an input as the SDK types it."""
    return {**value}


async def test_the_async_client_keeps_threads_and_finds_assistants(server: RunningServer) -> None:
    async with get_client(url=server.url) as client:
        found = await client.assistants.search(graph_id="steps", metadata={"created_by": "system"})
        assistant = await client.assistants.get(found[0]["assistant_id"])
        assert (assistant["graph_id"], assistant["version"], assistant["name"]) == ("steps", 1, "steps")
        assert await client.assistants.count(graph_id="steps", metadata={"created_by": "system"}) == 1
        mark = uuid4().hex
        made = [await client.threads.create(metadata={"mark": mark, "n": number}) for number in range(3)]
        again = await client.threads.create(thread_id=made[0]["thread_id"], if_exists="do_nothing")
        assert again["thread_id"] == made[0]["thread_id"]
        with pytest.raises(ConflictError):
            await client.threads.create(thread_id=made[0]["thread_id"])
        patched = await client.threads.update(made[0]["thread_id"], metadata={"n": 9})
        assert patched["metadata"] == {"mark": mark, "n": 9}
        page = await client.threads.search(
            metadata={"mark": mark}, sort_by="created_at", sort_order="asc", limit=2, offset=1, select=["thread_id"]
        )
        assert seen(page) == [{"thread_id": thread["thread_id"]} for thread in made[1:]]
        await client.threads.delete(made[1]["thread_id"])
        with pytest.raises(NotFoundError):
            await client.threads.get(made[1]["thread_id"])
        with pytest.raises(UnprocessableEntityError):
            await client.threads.get("x")


async def test_the_async_client_runs_streams_interrupts_and_resumes(server: RunningServer) -> None:
    async with get_client(url=server.url) as client:
        thread_id = (await client.threads.create())["thread_id"]
        created: list[str] = []
        modes: list[StreamMode] = ["values", "updates", "messages-tuple"]
        events: list[str] = []
        async for part in client.runs.stream(
            thread_id,
            "agent",
            input=PAY,
            stream_mode=modes,
            stream_resumable=True,
            on_run_created=lambda run: created.append(f"{run['thread_id']} {run['run_id']}"),
        ):
            events.append(part.event)
        assert events[0] == "metadata"
        assert {"values", "updates", "messages"} <= set(events)
        run_id = created[0].split()[1]
        assert created == [f"{thread_id} {run_id}"]
        joined = [part.event async for part in client.runs.join_stream(thread_id, run_id, last_event_id="-1")]
        assert joined == events
        state = await client.threads.get_state(thread_id, subgraphs=True)
        assert len(state["interrupts"]) == 1
        done = await client.runs.wait(
            thread_id, "agent", command={"resume": {"decisions": [{"type": "approve"}]}}, durability="sync"
        )
        assert "paid 25 EUR" in str(done)
        assert (await client.threads.get(thread_id))["status"] == "idle"
        assert len(await client.threads.get_history(thread_id, limit=50)) >= 5
        assert len(await client.runs.list(thread_id)) == 2


async def test_the_async_client_queues_joins_cancels_and_deletes(server: RunningServer) -> None:
    async with get_client(url=server.url) as client:
        thread_id, gate = (await client.threads.create())["thread_id"], Gate(server)
        run = await client.runs.create(thread_id, "steps", input=given(gate.held()), multitask_strategy="enqueue")
        with pytest.raises(ConflictError):
            await client.runs.create(thread_id, "steps", input={}, multitask_strategy="reject")
        late = await client.runs.create(thread_id, "steps", input={}, after_seconds=60)
        await client.runs.cancel(thread_id, late["run_id"])
        assert (await client.runs.get(thread_id, late["run_id"]))["status"] == "interrupted"
        joining = asyncio.create_task(client.runs.join(thread_id, run["run_id"]))
        gate.open()
        assert done_of(seen(await joining)) == ALL_STEPS
        await client.runs.delete(thread_id, run["run_id"])
        with pytest.raises(NotFoundError):
            await client.runs.get(thread_id, run["run_id"])
        held = Gate(server)
        second = await client.runs.create(thread_id, "steps", input=given(held.held()))
        await until(lambda: held.began(server))
        await client.runs.cancel(thread_id, second["run_id"], wait=True, action="interrupt")
        held.open()
        assert (await client.runs.get(thread_id, second["run_id"]))["status"] == "interrupted"


async def test_the_async_client_writes_states_and_forks(server: RunningServer) -> None:
    async with get_client(url=server.url) as client:
        thread_id = (await client.threads.create())["thread_id"]
        await client.runs.wait(thread_id, "steps", input={}, interrupt_before=["three"])
        assert (await client.threads.get_state(thread_id))["next"] == ["three"]
        done = await client.runs.wait(thread_id, "steps", input=None)
        assert done_of(seen(done)) == ALL_STEPS
        made = await client.threads.update_state(thread_id, {"name": "by hand"}, as_node="five")
        at = await client.threads.get_state(thread_id, checkpoint=made["checkpoint"])
        assert as_object(seen(at))["checkpoint"] == made["checkpoint"]
        states = await client.threads.get_history(thread_id, limit=20)
        fork = states[-3]["checkpoint"]
        forked = await client.runs.wait(thread_id, "steps", input=None, checkpoint=fork)
        assert done_of(seen(forked)) == ALL_STEPS


async def test_the_async_client_runs_without_a_thread(server: RunningServer) -> None:
    async with get_client(url=server.url) as client:
        assert done_of(seen(await client.runs.wait(None, "steps", input={}))) == ALL_STEPS
        events = [part.event async for part in client.runs.stream(None, "steps", input={}, stream_mode="updates")]
        assert events == ["metadata"] + ["updates"] * 5
        run = await client.runs.create(None, "steps", input={}, on_completion="keep")
        assert done_of(seen(await client.runs.join(run["thread_id"], run["run_id"]))) == ALL_STEPS
        with pytest.raises(NotFoundError):
            await client.runs.create(None, UNKNOWN, input={})
        failed = await client.runs.wait(None, "steps", input={"fail_at": "two"}, raise_error=False)
        assert "__error__" in as_object(seen(failed))


def test_the_sync_client_does_the_same(server: RunningServer) -> None:
    with get_sync_client(url=server.url) as client:
        assistant = client.assistants.search(graph_id="steps")[0]
        assert client.assistants.get(assistant["assistant_id"])["graph_id"] == "steps"
        thread_id = client.threads.create(metadata={"a": 1})["thread_id"]
        assert client.threads.update(thread_id, metadata={"b": 2})["metadata"] == {"a": 1, "b": 2}
        assert [thread["thread_id"] for thread in client.threads.search(ids=[thread_id])] == [thread_id]
        parts = list(client.runs.stream(thread_id, "steps", input={"name": "x"}, stream_mode=["values", "updates"]))
        assert [part.event for part in parts[:2]] == ["metadata", "values"]
        assert done_of(seen(client.runs.wait(thread_id, "steps", input={}))) == ALL_STEPS * 2
        run = client.runs.create(thread_id, assistant["assistant_id"], input={})
        assert done_of(seen(client.runs.join(thread_id, run["run_id"]))) == ALL_STEPS * 3
        assert list(client.runs.join_stream(thread_id, run["run_id"])) == []
        assert [one["run_id"] for one in client.runs.list(thread_id, limit=1)] == [run["run_id"]]
        client.threads.update_state(thread_id, {"name": "by hand"})
        assert as_object(seen(client.threads.get_state(thread_id)["values"]))["name"] == "by hand"
        assert len(client.threads.get_history(thread_id, limit=3)) == 3
        gate = Gate(server)
        held = client.runs.create(thread_id, "steps", input=given(gate.held()))
        wait_until(lambda: gate.began(server), 20, "the run to start")
        client.runs.cancel(thread_id, held["run_id"], wait=True)
        gate.open()
        assert client.runs.get(thread_id, held["run_id"])["status"] == "interrupted"
        client.runs.delete(thread_id, run["run_id"])
        client.threads.delete(thread_id)
        with pytest.raises(NotFoundError):
            client.threads.get(thread_id)
        assert done_of(seen(client.runs.wait(None, "steps", input={}))) == ALL_STEPS
