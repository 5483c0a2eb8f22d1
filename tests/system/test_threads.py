"""System tests of threads over HTTP: pages, filters, extracted values, and short answers."""

import asyncio
from uuid import uuid4

import aiohttp
import pytest
from tests.system.api import TIMEOUT, Api
from tests.system.runs_env import refused
from tests.system.servers import RunningServer

from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load


@pytest.fixture
def api(server: RunningServer) -> Api:
    """Return a client of the server."""
    return Api(server.url)


async def page(server: RunningServer, body: JsonObject) -> tuple[list[Json], str, str | None]:
    """Search threads; return the rows, X-Pagination-Total and X-Pagination-Next."""
    async with aiohttp.ClientSession(server.url, timeout=TIMEOUT) as session:
        async with session.post("/threads/search", data=dump(body)) as answer:
            rows = load(await answer.read())
            assert isinstance(rows, list)
            return rows, answer.headers["X-Pagination-Total"], answer.headers.get("X-Pagination-Next")


async def test_pages_tell_whether_there_is_more(api: Api, server: RunningServer) -> None:
    mark = uuid4().hex
    made = [as_object(await api.call("POST", "/threads", {"metadata": {"mark": mark, "n": n}})) for n in range(3)]
    find: JsonObject = {
        "metadata": {"mark": mark},
        "select": ["thread_id"],
        "sort_by": "created_at",
        "sort_order": "asc",
    }
    ids: list[Json] = [{"thread_id": thread["thread_id"]} for thread in made]
    assert await page(server, {**find, "limit": 2}) == (ids[:2], "3", "2")
    assert await page(server, {**find, "limit": 2, "offset": 2}) == (ids[2:], "3", None)
    assert await page(server, {**find, "limit": 3}) == (ids, "3", None)
    assert await page(server, {**find, "sort_order": "desc"}) == (ids[::-1], "3", None)
    assert await page(server, {**find, "metadata": {"mark": mark, "n": 1}}) == (ids[1:2], "1", None)


async def test_threads_are_found_by_their_values_and_parts_of_them_are_lifted_out(api: Api) -> None:
    thread_id, mark = await api.thread(), uuid4().hex
    body: JsonObject = {"assistant_id": "steps", "input": {"name": mark}}
    await api.call("POST", f"/threads/{thread_id}/runs/wait", body)
    find: JsonObject = {
        "values": {"name": mark},
        "select": ["thread_id"],
        "extract": {"last": "values.done[-1]", "graph": "metadata.graph_id", "missing": "values.nothing[0].x"},
    }
    lifted: JsonObject = {"last": "five", "graph": "steps", "missing": None}
    assert await api.call("POST", "/threads/search", find) == [{"thread_id": thread_id, "extracted": lifted}]
    for wrong in ({"a b": "values.x"}, {"a": "status"}, {"a": "values..x"}, {"a": ""}):
        extract: JsonObject = {**wrong}
        assert (await refused(api, "POST", "/threads/search", {"extract": extract}))[0] == 422


async def test_a_patch_merges_keys_and_answers_shortly_where_asked(api: Api) -> None:
    thread = as_object(await api.call("POST", "/threads", {"metadata": {"a": 1, "b": {"c": 1}}}))
    path = f"/threads/{thread['thread_id']}"
    patched = as_object(await api.call("PATCH", path, {"metadata": {"a": None, "b": {"d": 2}}}))
    assert patched["metadata"] == {"a": None, "b": {"d": 2}}
    assert str(patched["updated_at"]) > str(thread["updated_at"])
    assert patched["state_updated_at"] == thread["state_updated_at"]
    assert await api.raw("PATCH", path, b'{"metadata":{"e":3}}', {"Prefer": "return=minimal"}) == (204, b"")
    assert (await api.get(path))["metadata"] == {"a": None, "b": {"d": 2}, "e": 3}


async def test_a_deleted_thread_can_be_created_again_and_is_empty(api: Api) -> None:
    thread_id = str(uuid4())
    await api.call("POST", "/threads", {"thread_id": thread_id, "metadata": {"life": 1}})
    await api.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "steps", "input": {}})
    assert (await api.raw("DELETE", f"/threads/{thread_id}"))[0] == 204
    again = as_object(await api.call("POST", "/threads", {"thread_id": thread_id, "metadata": {"life": 2}}))
    assert (again["metadata"], again["values"]) == ({"life": 2}, None)
    assert await api.call("GET", f"/threads/{thread_id}/runs") == []
    assert await api.call("GET", f"/threads/{thread_id}/history?limit=9") == []
    status, detail = await refused(api, "POST", "/threads", {"thread_id": thread_id})
    assert (status, detail) == (409, f"Thread with ID {thread_id} already exists")


async def test_a_search_returns_large_threads_whole_and_in_order(api: Api, server: RunningServer) -> None:
    mark = uuid4().hex
    made: list[str] = []
    for size in (300_000, 0, 200_000):
        thread = as_object(await api.call("POST", "/threads", {"metadata": {"mark": mark}}))
        made.append(str(thread["thread_id"]))
        run: JsonObject = {"assistant_id": "steps", "input": {"grow_bytes": size}}
        await api.call("POST", f"/threads/{made[-1]}/runs/wait", run)
    find: JsonObject = {"metadata": {"mark": mark}, "sort_by": "created_at", "sort_order": "asc"}
    rows, total, following = await page(server, {**find, "limit": 2})
    assert ([as_object(row)["thread_id"] for row in rows], total, following) == (made[:2], "3", "2")
    everything, _, _ = await page(server, find)
    assert everything == [await api.get(f"/threads/{thread_id}") for thread_id in made]
    lengths, _, _ = await page(server, {**find, "select": ["thread_id"], "extract": {"name": "values.name"}})
    assert [as_object(row)["thread_id"] for row in lengths] == made


async def test_a_condition_on_the_version_of_a_thread_is_kept(server: RunningServer, api: Api) -> None:
    path = f"/threads/{await api.thread()}"

    async def answer(method: str, body: JsonObject | None = None, **headers: str) -> tuple[int, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with aiohttp.ClientSession(server.url, timeout=TIMEOUT) as session:
            async with session.request(method, path, data=None if body is None else dump(body), headers=named) as one:
                await one.read()
                return one.status, one.headers.get("ETag", "")

    patch: JsonObject = {"metadata": {"a": 1}}
    _, first = await answer("GET")
    assert await answer("GET", if_none_match=first) == (304, first)
    status, second = await answer("PATCH", patch, if_match=first)
    assert (status, second != first) == (200, True)
    assert (await answer("GET"))[1] == second
    assert (await answer("PATCH", patch, if_match=first))[0] == 412
    assert (await answer("DELETE", if_match=first))[0] == 412
    await api.call("POST", f"{path}/runs/wait", {"assistant_id": "trivial", "input": {}})
    assert (await answer("PATCH", patch, if_match=second))[0] == 412
    third = (await answer("GET", if_none_match=second))[1]
    assert (await answer("PATCH", patch, if_match=f'"x", {third}'))[0] == 200
    assert (await answer("PATCH", patch, if_match="*"))[0] == 200
    assert (await api.get(path))["metadata"] != {}
    last = (await answer("GET"))[1]
    assert (await answer("DELETE", if_match=last))[0] == 204
    assert (await answer("DELETE", if_match=last))[0] == 404


async def test_of_many_patches_of_one_version_one_takes_effect(api: Api, server: RunningServer) -> None:
    path = f"/threads/{await api.thread()}"
    async with aiohttp.ClientSession(server.url, timeout=TIMEOUT) as session:
        async with session.get(path) as found:
            tag = found.headers["ETag"]
    bodies = [dump({"metadata": {"n": number}}) for number in range(8)]
    done = await asyncio.gather(*(api.raw("PATCH", path, body, {"If-Match": tag}) for body in bodies))
    assert sorted(status for status, _ in done) == [200, *[412] * 7]


async def test_a_retry_of_a_patch_or_deletion_gets_its_first_answer(api: Api) -> None:
    path, key = f"/threads/{await api.thread()}", {"Idempotency-Key": uuid4().hex}
    body = dump({"metadata": {"n": 1}})
    assert (await api.raw("PATCH", path, body, key))[0] == 200
    await api.call("PATCH", path, {"metadata": {"n": 2}})
    status, content = await api.raw("PATCH", path, body, key)
    assert (status, as_object(load(content))["metadata"]) == (200, {"n": 2})
    assert [(await api.raw("DELETE", path, None, key))[0] for _ in range(2)] == [204, 204]
    assert (await api.raw("DELETE", path))[0] == 404
