"""System tests of what is done to many threads at once, and of what a thread stores: count, prune, TTL, storage."""

import asyncio
from uuid import uuid4

import pytest
from tests.system.api import Api
from tests.system.runs_env import UNKNOWN, Gate, refused
from tests.system.servers import RunningServer

from agentlog_facts.json_value import Json, JsonObject, as_object, dump


@pytest.fixture
def api(server: RunningServer) -> Api:
    """Return a client of the server."""
    return Api(server.url)


async def marked(api: Api, *metadata: JsonObject) -> tuple[str, list[str]]:
    """Create threads with a mark of their own; return the mark and the ids."""
    mark = uuid4().hex
    made = [await api.call("POST", "/threads", {"metadata": {"mark": mark, **one}}) for one in metadata]
    return mark, [str(as_object(thread)["thread_id"]) for thread in made]


async def ran(api: Api, times: int = 2) -> str:
    """Return a thread with this number of runs of five steps."""
    thread_id = await api.thread()
    for _ in range(times):
        await api.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "steps", "input": {"name": "x"}})
    return thread_id


async def history(api: Api, thread_id: str) -> list[JsonObject]:
    """Return all past states of a thread, the newest first."""
    found = await api.call("GET", f"/threads/{thread_id}/history?limit=1000")
    assert isinstance(found, list)
    return [as_object(one) for one in found]


async def test_a_count_is_the_true_number_whatever_the_filter(api: Api) -> None:
    mark, ids = await marked(api, {"n": 1, "tags": ["a", "b"]}, {"n": 2}, {"n": 3, "deep": {"x": 1, "y": 2}})
    mine: JsonObject = {"mark": mark}
    wait: JsonObject = {"assistant_id": "steps", "input": {"name": mark}}
    await api.call("POST", f"/threads/{ids[0]}/runs/wait", wait)

    async def count(**body: Json) -> Json:
        found = await api.call("POST", "/threads/count", body)
        listed = await api.call("POST", "/threads/search", {**body, "limit": 1000})
        assert isinstance(listed, list)
        assert found == len(listed)
        return found

    assert await count(metadata=mine) == 3
    assert await count(metadata={**mine, "deep": {"y": 2}}) == 1
    assert await count(metadata={**mine, "tags": ["a"]}) == 0
    assert await count(metadata=mine, values={"name": mark}) == 1
    assert await count(metadata=mine, status="busy") == 0
    assert await count(metadata=mine, exclude_metadata={"n": 2}) == 2
    assert await count(metadata=mine, exclude_metadata=[{"n": 2}, {"deep": {"x": 1}}]) == 1
    assert await count(metadata=mine, exclude_metadata={"tags": ["a"]}) == 3
    assert await count(metadata=mine, exclude_metadata={"tags": ["a", "b"]}) == 2
    assert await count(metadata=mine, exclude_metadata={}) == 3
    assert await count(metadata=mine, exclude_metadata=mine) == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/threads/count", {"status": "sleeping"}),
        ("/threads/count", {"exclude_metadata": "x"}),
        ("/threads/count", {"metadata": None}),
        ("/threads/prune", {}),
        ("/threads/prune", {"thread_ids": ["x"]}),
        ("/threads/prune", {"thread_ids": [], "strategy": "forget"}),
        ("/threads", {"ttl": 5}),
        ("/threads", {"ttl": {"ttl": 0}}),
        ("/threads", {"ttl": {"ttl": "5"}}),
        ("/threads", {"ttl": {"ttl": 5, "strategy": "forget"}}),
    ],
)
async def test_bad_bodies_are_refused(api: Api, path: str, body: JsonObject) -> None:
    assert (await refused(api, "POST", path, body))[0] == 422


async def test_a_prune_deletes_the_threads_that_exist_and_counts_them(api: Api) -> None:
    mark, ids = await marked(api, {}, {}, {})
    named: list[Json] = [*ids[:2], ids[0], UNKNOWN]
    body = dump({"thread_ids": named})
    key = {"Idempotency-Key": mark}
    assert await api.raw("POST", "/threads/prune", body, key) == (200, b'{"pruned_count":2}')
    assert await api.raw("POST", "/threads/prune", body, key) == (200, b'{"pruned_count":2}')
    assert await api.raw("POST", "/threads/prune", body) == (200, b'{"pruned_count":0}')
    assert await api.call("POST", "/threads/count", {"metadata": {"mark": mark}}) == 1


async def test_a_prune_with_a_key_that_pruned_one_of_its_threads_otherwise_is_refused_and_prunes_none(api: Api) -> None:
    mark, ids = await marked(api, {}, {}, {})
    key = {"Idempotency-Key": mark}
    assert await api.raw("POST", "/threads/prune", dump({"thread_ids": [ids[0]]}), key) == (200, b'{"pruned_count":1}')
    for other in ([ids[1], ids[0]], [ids[0], ids[2]]):
        named: list[Json] = [*other]
        assert (await refused(api, "POST", "/threads/prune", {"thread_ids": named}, key))[0] == 422
    assert await api.call("POST", "/threads/count", {"metadata": {"mark": mark}}) == 2


async def test_a_prune_to_the_latest_keeps_the_state_and_what_can_be_built_on_it(api: Api) -> None:
    thread_id = await ran(api)
    before = await history(api, thread_id)
    used = await api.get(f"/threads/{thread_id}/storage")
    prune: JsonObject = {"thread_ids": [thread_id, UNKNOWN], "strategy": "keep_latest"}
    assert await api.call("POST", "/threads/prune", prune) == {"pruned_count": 1}
    assert await history(api, thread_id) == before[:1]
    assert await api.get(f"/threads/{thread_id}/state") == before[0]
    kept = await api.get(f"/threads/{thread_id}/storage")
    assert as_object(kept["checkpoints"])["count"] == 1
    assert 0 < int(str(kept["total_bytes"])) < int(str(used["total_bytes"]))
    assert await api.call("POST", "/threads/prune", prune) == {"pruned_count": 1}  # it is pruned already
    more: JsonObject = {"assistant_id": "steps", "input": {"name": "y"}}
    values = as_object(await api.call("POST", f"/threads/{thread_id}/runs/wait", more))
    assert values["done"] == ["one", "two", "three", "four", "five"] * 3
    assert len(await history(api, thread_id)) == len(before) // 2 + 1


async def test_a_prune_leaves_a_busy_thread_alone(api: Api, server: RunningServer) -> None:
    thread_id, gate = await ran(api, 1), Gate(server)
    run_id = await api.start_run(thread_id, "steps", gate.held())
    prune: JsonObject = {"thread_ids": [thread_id], "strategy": "keep_latest"}
    assert await api.call("POST", "/threads/prune", prune) == {"pruned_count": 0}
    gate.open()
    await api.join(thread_id, run_id)
    assert await api.call("POST", "/threads/prune", prune) == {"pruned_count": 1}


async def test_storage_counts_what_the_checkpoints_of_a_thread_use(api: Api) -> None:
    thread_id = await ran(api, 1)
    found = await api.get(f"/threads/{thread_id}/storage")
    checkpoints, channels = as_object(found["checkpoints"]), as_object(found["channel_values"])
    writes, by_channel = as_object(found["pending_writes"]), as_object(channels["by_channel"])
    assert found["thread_id"] == thread_id
    assert checkpoints["count"] == len(await history(api, thread_id))
    assert found["total_bytes"] == sum(int(str(part["bytes"])) for part in (checkpoints, channels, writes))
    assert channels["count"] == sum(int(str(as_object(one)["versions"])) for one in by_channel.values())
    assert as_object(by_channel["done"])["versions"] == 5
    empty = await api.get(f"/threads/{await api.thread()}/storage")
    assert (empty["total_bytes"], as_object(empty["channel_values"])["by_channel"]) == (0, {})
    assert await refused(api, "GET", f"/threads/{UNKNOWN}/storage") == (404, f"Thread with ID {UNKNOWN} not found")


async def test_a_ttl_is_shown_on_request_and_begins_again_with_each_update(api: Api) -> None:
    made = as_object(await api.call("POST", "/threads", {"ttl": {"ttl": 60, "strategy": "keep_latest"}}))
    path = f"/threads/{made['thread_id']}"
    assert "ttl" not in made
    assert "ttl" not in await api.get(path)
    first = as_object((await api.get(path + "?include=ttl&include=other"))["ttl"])
    assert (first["strategy"], first["ttl_minutes"]) == ("keep_latest", 60)
    await api.call("PATCH", path, {"metadata": {"a": 1}})
    second = as_object((await api.get(path + "?include=ttl"))["ttl"])
    assert str(second["expires_at"]) > str(first["expires_at"])
    await api.call("PATCH", path, {"ttl": {"ttl": 1.5}})
    shown = await api.get(path + "?include=ttl")
    third = as_object(shown["ttl"])
    assert (third["strategy"], third["ttl_minutes"], shown["metadata"]) == ("delete", 1.5, {"a": 1})
    assert str(third["expires_at"]) < str(first["expires_at"])
    assert "ttl" not in await api.get(f"/threads/{await api.thread()}?include=ttl")


async def test_many_prunes_of_the_same_threads_delete_each_once(api: Api) -> None:
    _, ids = await marked(api, *(JsonObject() for _ in range(6)))
    named: list[Json] = [*ids]
    done = await asyncio.gather(*(api.call("POST", "/threads/prune", {"thread_ids": named}) for _ in range(4)))
    assert sum(int(str(as_object(one)["pruned_count"])) for one in done) == 6
