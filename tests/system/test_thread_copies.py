"""System tests of copies of threads: by value, in parts, and independent of their sources from then on."""

from uuid import uuid4

import pytest
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.runs_env import UNKNOWN, Gate, refused
from tests.system.servers import RunningServer

from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load

PAY: JsonObject = {"messages": [{"role": "user", "content": "Pay 25 EUR to Ana"}]}
STEPS = ["one", "two", "three", "four", "five"]


@pytest.fixture
def api(server: RunningServer) -> Api:
    """Return a client of the server."""
    return Api(server.url)


async def run(api: Api, thread_id: Json, **data: Json) -> JsonObject:
    """Run five steps on a thread; return its values."""
    body: JsonObject = {"assistant_id": "steps", "input": data}
    return as_object(await api.call("POST", f"/threads/{thread_id}/runs/wait", body))


async def copied(api: Api, thread_id: Json) -> JsonObject:
    """Copy a thread."""
    return as_object(await api.call("POST", f"/threads/{thread_id}/copy"))


async def past(api: Api, thread_id: Json) -> list[Json]:
    """Return the history of a thread without what names the thread."""
    found = await api.call("GET", f"/threads/{thread_id}/history?limit=1000")
    return load(dump(found).decode().replace(str(thread_id), "THREAD").encode())  # type: ignore[return-value]  # a list


async def test_a_copy_has_the_state_and_the_past_of_its_source_and_a_future_of_its_own(api: Api) -> None:
    source = as_object(await api.call("POST", "/threads", {"metadata": {"a": 1}, "ttl": {"ttl": 60}}))["thread_id"]
    for name in ("x", "y"):
        await run(api, source, name=name)
    shown = await api.get(f"/threads/{source}")
    made = await copied(api, source)
    target = made["thread_id"]
    assert target != source
    expected = {"status": "idle", "values": shown["values"], "metadata": shown["metadata"], "config": {}}
    assert {name: made[name] for name in expected} == expected
    assert await api.get(f"/threads/{target}") == made
    assert as_object((await api.get(f"/threads/{target}?include=ttl"))["ttl"])["ttl_minutes"] == 60
    assert await past(api, target) == await past(api, source)
    assert len(await past(api, target)) > 10
    assert await api.call("GET", f"/threads/{target}/runs") == []
    sizes = [await api.get(f"/threads/{thread_id}/storage") for thread_id in (source, target)]
    assert as_object(sizes[0]["channel_values"])["by_channel"] == as_object(sizes[1]["channel_values"])["by_channel"]
    before = await past(api, source)
    assert (await run(api, target, name="z"))["done"] == STEPS * 3
    assert (await api.raw("DELETE", f"/threads/{source}"))[0] == 204
    assert (await past(api, target))[-len(before) :] == before
    again = await copied(api, target)
    assert await past(api, again["thread_id"]) == await past(api, target)


async def test_a_copy_of_an_interrupted_thread_is_answered_alone(api: Api) -> None:
    source = await api.thread()
    await api.call("POST", f"/threads/{source}/runs/wait", {"assistant_id": "agent", "input": PAY})
    waiting = await api.get(f"/threads/{source}")
    assert waiting["status"] == "interrupted"
    made = await copied(api, source)
    assert made["status"] == "idle"
    target = made["thread_id"]
    shown = await api.get(f"/threads/{target}")
    assert (shown["status"], shown["interrupts"]) == ("interrupted", waiting["interrupts"])
    states = [await api.get(f"/threads/{thread_id}/state") for thread_id in (source, target)]
    assert (states[0]["next"], states[0]["interrupts"]) == (states[1]["next"], states[1]["interrupts"])
    answer: JsonObject = {"assistant_id": "agent", "command": {"resume": {"decisions": [{"type": "approve"}]}}}
    await api.call("POST", f"/threads/{target}/runs/wait", answer)
    assert (await api.get(f"/threads/{target}"))["status"] == "idle"
    assert (await api.get(f"/threads/{source}"))["status"] == "interrupted"


async def test_a_large_thread_is_copied_in_parts(api: Api) -> None:
    source = await api.thread()
    for _ in range(3):
        await run(api, source, grow_bytes=400_000)
    target = (await copied(api, source))["thread_id"]
    assert await past(api, target) == await past(api, source)


async def test_a_copy_keeps_hidden_checkpoints_hidden(api: Api) -> None:
    source = await api.thread()
    for _ in range(2):
        await run(api, source, name="x")
    await api.call("POST", "/threads/prune", {"thread_ids": [source], "strategy": "keep_latest"})
    await run(api, source, name="y")
    target = (await copied(api, source))["thread_id"]
    assert await past(api, target) == await past(api, source)
    assert (await run(api, target, name="z"))["done"] == STEPS * 4


async def test_a_copy_of_a_busy_thread_has_the_state_before_its_run(api: Api, server: RunningServer) -> None:
    source, gate = await api.thread(), Gate(server)
    await run(api, source, name="x")
    before, earlier = await api.get(f"/threads/{source}/state"), await past(api, source)
    run_id = await api.start_run(source, "steps", gate.held())

    async def has_begun() -> bool:
        return await past(api, source) != earlier

    await until(has_begun)
    made = await copied(api, source)
    assert (made["status"], made["values"]) == ("idle", before["values"])
    assert await past(api, made["thread_id"]) == earlier
    gate.open()
    await api.join(source, run_id)
    assert (await run(api, made["thread_id"], name="y"))["done"] == STEPS * 2


async def test_a_retry_of_a_copy_gets_the_first_one(api: Api) -> None:
    source, key = await api.thread(), {"Idempotency-Key": uuid4().hex}
    await run(api, source, name="x")
    first = await api.raw("POST", f"/threads/{source}/copy", None, key)
    await run(api, source, name="y")
    assert await api.raw("POST", f"/threads/{source}/copy", None, key) == first
    await api.raw("DELETE", f"/threads/{source}")
    assert await api.raw("POST", f"/threads/{source}/copy", None, key) == first
    assert first[0] == 200


async def test_a_thread_that_does_not_exist_is_not_copied(api: Api) -> None:
    assert await refused(api, "POST", f"/threads/{UNKNOWN}/copy") == (409, "Conflict")
    assert (await refused(api, "POST", "/threads/x/copy"))[0] == 422
