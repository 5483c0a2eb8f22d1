"""System tests of Idempotency-Keys and consistency tokens: repeated requests have one outcome and the same answer."""

import asyncio
from uuid import uuid4

import aiohttp
import pytest
from tests.stack_fixtures import until
from tests.system.api import TIMEOUT, Api
from tests.system.checker.records import read_topic
from tests.system.runs_env import Gate, done_of, refused
from tests.system.servers import RunningServer

from agentlog_facts.json_value import JsonObject, as_object, dump, load

ALL_STEPS = ["one", "two", "three", "four", "five"]


@pytest.fixture
def api(server: RunningServer) -> Api:
    """Return a client of the server."""
    return Api(server.url)


def key() -> dict[str, str]:
    return {"Idempotency-Key": uuid4().hex}


async def test_a_thread_that_is_created_twice_with_one_key_is_one_thread(api: Api) -> None:
    mine = key()
    body: JsonObject = {"metadata": {"a": 1}}
    first = await api.call("POST", "/threads", body, mine)
    assert await api.call("POST", "/threads", body, mine) == first
    assert await api.call("POST", "/threads", body, key()) != first


async def test_many_retries_at_once_create_one_run(api: Api, server: RunningServer) -> None:
    thread_id, mine, gate = await api.thread(), key(), Gate(server)
    body: JsonObject = {"assistant_id": "steps", "input": {"name": gate.name}}
    path = f"/threads/{thread_id}/runs"
    answers = await asyncio.gather(*(api.call("POST", path, body, mine) for _ in range(8)))
    run = as_object(answers[0])
    assert answers == [run] * 8
    await api.join(thread_id, str(run["run_id"]))
    assert await api.call("POST", path, body, mine) == run
    assert gate.runs_in(server, "one") == [run["run_id"]]


async def test_a_wait_that_is_repeated_joins_the_first_run(api: Api, server: RunningServer) -> None:
    mine, gate = key(), Gate(server)
    body: JsonObject = {"assistant_id": "steps", "input": {"name": gate.name}}
    first = await api.call("POST", "/runs/wait", body, mine)
    assert done_of(first) == ALL_STEPS
    assert await api.call("POST", "/runs/wait", body, mine) == first
    assert len(gate.runs_in(server, "one")) == 1


async def test_a_stream_that_is_repeated_tells_the_first_run_from_its_start(api: Api, server: RunningServer) -> None:
    thread_id, mine, gate = await api.thread(), key(), Gate(server)
    body = dump({"assistant_id": "steps", "input": {"name": gate.name}, "stream_mode": ["updates", "values"]})
    path = f"/threads/{thread_id}/runs/stream"
    first, again = await api.raw("POST", path, body, mine), await api.raw("POST", path, body, mine)
    assert first[0] == 200
    assert first[1].startswith(b"event: metadata\r\n")
    assert again == first
    assert len(gate.runs_in(server, "one")) == 1


async def test_one_key_with_two_bodies_is_refused(api: Api) -> None:
    mine = key()
    await api.call("POST", "/threads", {"metadata": {"a": 1}}, mine)
    status, detail = await refused(api, "POST", "/threads", {"metadata": {"a": 2}}, mine)
    assert (status, "Idempotency-Key" in detail) == (422, True)


async def test_a_key_belongs_to_its_path(api: Api) -> None:
    mine = key()
    body: JsonObject = {"assistant_id": "steps", "input": {}}
    runs = [await api.call("POST", f"/threads/{await api.thread()}/runs", body, mine) for _ in range(2)]
    assert as_object(runs[0])["run_id"] != as_object(runs[1])["run_id"]
    for run in map(as_object, runs):
        await api.join(str(run["thread_id"]), str(run["run_id"]))


async def test_a_key_belongs_to_the_thread_that_a_body_names(api: Api) -> None:
    mine, ids = key(), [str(uuid4()), str(uuid4())]
    made = [as_object(await api.call("POST", "/threads", {"thread_id": one}, mine))["thread_id"] for one in ids]
    assert made == ids
    for one in ids:
        body: JsonObject = {"thread_id": one}
        assert as_object(await api.call("POST", "/threads", body, mine))["thread_id"] == one
        assert (await refused(api, "POST", "/threads", {**body, "metadata": {"a": 1}}, mine))[0] == 422
    assert as_object(await api.call("POST", "/threads", {}, mine))["thread_id"] not in ids


async def test_a_deletion_that_is_repeated_answers_as_the_first_time(api: Api) -> None:
    thread_id, mine = await api.thread(), key()
    assert (await api.raw("DELETE", f"/threads/{thread_id}", headers=mine))[0] == 204
    assert (await api.raw("DELETE", f"/threads/{thread_id}", headers=mine))[0] == 204
    assert (await api.raw("DELETE", f"/threads/{thread_id}", headers=key()))[0] == 404


async def test_a_state_write_that_is_repeated_makes_one_checkpoint(api: Api) -> None:
    thread_id, mine = await api.thread(), key()
    await api.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "steps", "input": {}})
    body: JsonObject = {"values": {"name": "by hand"}}
    first = await api.call("POST", f"/threads/{thread_id}/state", body, mine)
    assert await api.call("POST", f"/threads/{thread_id}/state", body, mine) == first
    history = await api.call("GET", f"/threads/{thread_id}/history?limit=100")
    assert isinstance(history, list)
    assert len(history) == 8


async def test_a_state_write_is_repeated_where_it_would_be_refused_now(api: Api) -> None:
    thread_id, mine = await api.thread(), key()
    path = f"/threads/{thread_id}"
    body: JsonObject = {"values": {"name": "by hand"}}
    await api.call("POST", f"{path}/runs/wait", {"assistant_id": "steps", "input": {}})
    first = await api.call("POST", f"{path}/state", body, mine)
    await api.call("PATCH", path, {"metadata": {"graph_id": "gone"}})
    assert await api.call("POST", f"{path}/state", body, mine) == first
    assert (await refused(api, "POST", f"{path}/state", body, key()))[0] == 404


async def test_every_mutation_tells_where_it_lies_and_a_read_waits_for_it(api: Api, server: RunningServer) -> None:
    async with aiohttp.ClientSession(server.url, timeout=TIMEOUT) as session:
        async with session.post("/threads", data=b"{}") as answer:
            token = answer.headers["X-Consistency-Token"]
            thread_id = as_object(load(await answer.read()))["thread_id"]
        generation, partition, offset = map(int, token.split(":"))
        records = await read_topic(server.kafka, "agentlog.events")
        assert [(r.key, generation) for r in records if (r.partition, r.offset) == (partition, offset)] == [
            (thread_id, 1)
        ]
        async with session.get(f"/threads/{thread_id}", headers={"X-Consistency-Token": token}) as answer:
            assert answer.status == 200
        ahead = f"{generation}:{partition}:{offset + 1_000_000}"
        async with session.get(f"/threads/{thread_id}", headers={"X-Consistency-Token": ahead}) as answer:
            assert (answer.status, "Retry-After" in answer.headers) == (503, True)


@pytest.mark.parametrize("path", ["wait", "stream"])
@pytest.mark.parametrize("wish", ["cancel", "continue"])
async def test_only_a_client_that_asked_for_it_takes_its_run_with_it(
    api: Api, server: RunningServer, path: str, wish: str
) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    body = dump({"assistant_id": "steps", "input": gate.held(), "on_disconnect": wish})
    async with aiohttp.ClientSession(server.url, timeout=TIMEOUT) as session:
        async with session.post(f"/threads/{thread_id}/runs/{path}", data=body) as answer:
            run_path = answer.headers["Content-Location"]
            await until(lambda: gate.began(server))
            answer.close()

    async def interrupted() -> bool:
        return (await api.get(run_path))["status"] == "interrupted"

    if wish == "cancel":
        await until(interrupted)
    gate.open()
    expected = ["one"] if wish == "cancel" else ALL_STEPS
    assert done_of(await api.get(run_path + "/join")) == expected


async def test_a_joiner_that_asked_for_it_cancels_the_run_by_leaving(api: Api, server: RunningServer) -> None:
    thread_id, gate = await api.thread(), Gate(server)
    run_id = await api.start_run(thread_id, "steps", gate.held())
    await until(lambda: gate.began(server))
    path = f"/threads/{thread_id}/runs/{run_id}"
    async with aiohttp.ClientSession(server.url, timeout=TIMEOUT) as session:
        async with session.get(path + "/join?cancel_on_disconnect=true") as answer:
            answer.close()
    assert done_of(await api.get(path + "/join")) == ["one"]
    gate.open()
