"""The store over HTTP: each row of docs/http-api.md, section 16, also with the official clients."""

# The SDK types values as bare dicts.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
from dataclasses import dataclass
from urllib.parse import urlencode
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.errors import BadRequestError, UnprocessableEntityError
from tests.system.api import TIMEOUT, Api
from tests.system.checker.records import read_topic
from tests.system.servers import RunningServer

from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load
from agentlog_facts.store import store_key

ITEMS = "/store/items"
PLACE: JsonObject = {"namespace": ["t"], "key": "k"}
PUT: JsonObject = {**PLACE, "value": {}}
EMPTY, DOT = "a label cannot be empty", "cannot contain periods"
NO_INDEX, NO_TTL = "does not support an index", "this field is not supported yet"

BAD: list[tuple[str, str, Json, int, str]] = [
    ("PUT", ITEMS, {**PUT, "namespace": []}, 400, "Namespace cannot be empty"),
    ("PUT", ITEMS, {**PUT, "namespace": ["langgraph", "a"]}, 400, "langgraph"),
    ("PUT", ITEMS, {**PUT, "namespace": ["a", ""]}, 422, EMPTY),
    ("PUT", ITEMS, {**PUT, "namespace": ["a.b"]}, 422, DOT),
    ("PUT", ITEMS, {**PUT, "namespace": "a"}, 422, "namespace"),
    ("PUT", ITEMS, {**PUT, "namespace": [1]}, 422, "namespace"),
    ("PUT", ITEMS, {**PUT, "namespace": ["x" * 3000]}, 422, "namespace of at most"),
    ("PUT", ITEMS, {**PUT, "key": "x" * 3000}, 422, "key of at most"),
    ("PUT", ITEMS, {**PUT, "key": 1}, 422, "key"),
    ("PUT", ITEMS, {**PUT, "value": []}, 422, "value"),
    ("PUT", ITEMS, PLACE, 422, "value"),
    ("PUT", ITEMS, {**PUT, "index": True}, 422, NO_INDEX),
    ("PUT", ITEMS, {**PUT, "index": 0}, 422, NO_INDEX),
    ("PUT", ITEMS, {**PUT, "index": ["text"]}, 422, NO_INDEX),
    ("PUT", ITEMS, {**PUT, "ttl": 5}, 422, NO_TTL),
    ("GET", ITEMS + "?namespace=a", None, 400, "Key is required"),
    ("GET", ITEMS + "?key=k", None, 422, "namespace"),
    ("GET", ITEMS + "?namespace=&key=k", None, 422, EMPTY),
    ("GET", ITEMS + "?namespace=a..b&key=k", None, 422, EMPTY),
    ("DELETE", ITEMS, {**PLACE, "namespace": []}, 400, "Namespace cannot be empty"),
    ("DELETE", ITEMS, {**PLACE, "namespace": ["langgraph"]}, 400, "langgraph"),
    ("DELETE", ITEMS, {**PLACE, "namespace": ["a.b"]}, 422, DOT),
    ("DELETE", ITEMS, {"namespace": ["a"]}, 422, "key"),
    ("POST", ITEMS + "/search", {"namespace_prefix": ["a.b"]}, 422, DOT),
    ("POST", ITEMS + "/search", {"filter": {"n": {"$in": [1]}}}, 400, "Unsupported operator: $in"),
    ("POST", ITEMS + "/search", {"filter": {"n": {"$gt": "a"}}}, 422, "compares numbers"),
    ("POST", ITEMS + "/search", {"limit": 0}, 422, "limit"),
    ("POST", ITEMS + "/search", {"limit": 1001}, 422, "limit"),
    ("POST", ITEMS + "/search", {"offset": -1}, 422, "offset"),
    ("POST", "/store/namespaces", {"prefix": [""]}, 422, EMPTY),
    ("POST", "/store/namespaces", {"suffix": ["a.b"]}, 422, DOT),
    ("POST", "/store/namespaces", {"max_depth": 0}, 422, "max_depth"),
    ("POST", "/store/namespaces", {"limit": 1001}, 422, "limit"),
    ("POST", "/store/namespaces", {"offset": -1}, 422, "offset"),
]


@pytest.fixture
def api(server: RunningServer) -> Api:
    return Api(server.url)


@pytest.fixture
def root() -> str:
    """Return the first label of the namespaces of one test."""
    return f"r{uuid4().hex}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with its headers, whose names are in lower case."""

    status: int
    headers: dict[str, str]
    content: bytes


async def ask(
    server: RunningServer, method: str, path: str, body: Json = None, headers: dict[str, str] | None = None
) -> Answer:
    data = None if body is None else dump(body)
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        async with session.request(method, server.url + path, data=data, headers=headers) as answer:
            told = {name.lower(): text for name, text in answer.headers.items()}
            return Answer(answer.status, told, await answer.read())


async def put(api: Api, namespace: list[Json], key: str, value: JsonObject) -> None:
    assert await api.call("PUT", ITEMS, {"namespace": namespace, "key": key, "value": value}) is None


async def item(api: Api, namespace: str, key: str, **more: str) -> JsonObject | None:
    found = await api.call("GET", f"{ITEMS}?{urlencode({'namespace': namespace, 'key': key, **more})}")
    return None if found is None else as_object(found)


async def found(api: Api, prefix: list[Json], **more: Json) -> list[Json]:
    """Return the keys of a search."""
    answer = as_object(await api.call("POST", ITEMS + "/search", {"namespace_prefix": prefix, **more}))
    items = answer["items"]
    assert isinstance(items, list)
    return [as_object(one)["key"] for one in items]


async def facts(server: RunningServer, namespace: list[str]) -> list[tuple[Json, Json]]:
    """Return type and actor of each fact of a namespace."""
    name = f"store-{store_key(namespace)}"
    seen = [one.value for one in await read_topic(server.kafka, "agentlog.events") if one.value["stream"] == name]
    return [
        (as_object(fact)["type"], as_object(value["actor"])["kind"])
        for value in seen
        for fact in (value["facts"] if isinstance(value["facts"], list) else [])
    ]


async def test_an_item_is_put_read_at_once_replaced_and_deleted(api: Api, server: RunningServer, root: str) -> None:
    space: list[Json] = [root, "ana"]
    at = f"{root}.ana"
    assert await item(api, at, "tea") is None
    answer = await ask(server, "PUT", ITEMS, {"namespace": space, "key": "tea", "value": {"n": 1}, "index": False})
    assert (answer.status, answer.content) == (204, b"")
    assert answer.headers["x-consistency-token"]
    first = await item(api, at, "tea", refresh_ttl="true")
    assert first is not None
    assert set(first) == {"namespace", "key", "value", "created_at", "updated_at"}
    assert (first["namespace"], first["key"], first["value"]) == (space, "tea", {"n": 1})
    assert str(first["created_at"]).endswith("+00:00")
    await api.call("PUT", ITEMS, {"namespace": space, "key": "tea", "value": {"n": 2}, "index": None, "ttl": None})
    second = await item(api, at, "tea")
    assert second is not None
    assert (second["value"], second["created_at"]) == ({"n": 2}, first["created_at"])
    assert str(second["updated_at"]) > str(first["updated_at"])
    for _ in range(2):
        answer = await ask(server, "DELETE", ITEMS, {"namespace": space, "key": "tea"})
        assert (answer.status, answer.content) == (204, b"")
        assert answer.headers["x-consistency-token"]
    assert await item(api, at, "tea") is None
    kinds = ["StoreItemPut", "StoreItemPut", "StoreItemDeleted", "StoreItemDeleted"]
    assert await facts(server, [root, "ana"]) == [(kind, "user") for kind in kinds]


async def test_an_empty_key_and_a_large_value_are_items_like_others(api: Api, root: str) -> None:
    large: JsonObject = {"text": "x" * 1_500_000}
    await put(api, [root], "", large)
    shown = await item(api, root, "")
    assert shown is not None
    assert shown["value"] == large


async def test_the_same_idempotency_key_writes_once(api: Api, server: RunningServer, root: str) -> None:
    key = {"Idempotency-Key": root}
    body: JsonObject = {"namespace": [root], "key": "k", "value": {"n": 1}}
    first = await ask(server, "PUT", ITEMS, body, key)
    await put(api, [root], "k", {"n": 2})
    again = await ask(server, "PUT", ITEMS, body, key)
    assert (first.status, again.status) == (204, 204)
    shown = await item(api, root, "k")
    assert shown is not None
    assert shown["value"] == {"n": 2}
    other = await ask(server, "PUT", ITEMS, {**body, "value": {"n": 3}}, key)
    assert (other.status, b"Idempotency-Key" in other.content) == (422, True)
    gone: JsonObject = {"namespace": [root], "key": "k"}
    assert (await ask(server, "DELETE", ITEMS, gone, key)).status == 204
    await put(api, [root], "k", {"n": 4})
    assert (await ask(server, "DELETE", ITEMS, gone, key)).status == 204
    assert await item(api, root, "k") is not None


@pytest.mark.parametrize("case", BAD, ids=lambda case: f"{case[0]} {case[1]} {dump(case[2])[:60].decode()}")
async def test_bad_input_is_refused_and_writes_nothing(
    server: RunningServer, case: tuple[str, str, Json, int, str]
) -> None:
    method, path, body, status, text = case
    before = len(await read_topic(server.kafka, "agentlog.events"))
    answer = await ask(server, method, path, body)
    assert answer.status == status, answer.content
    if text in (EMPTY, DOT):
        assert answer.headers["content-type"].startswith("text/plain")
        assert text in answer.content.decode()
    else:
        told = as_object(load(answer.content))
        assert text in str(told["detail"])
        assert text != "Key is required" or told["error"] == text
    assert len(await read_topic(server.kafka, "agentlog.events")) == before


FILTERS: list[tuple[JsonObject, list[Json]]] = [
    ({}, ["none", "text", "three", "two", "one"]),
    ({"n": 2}, ["two"]),
    ({"n": {"$eq": 2}}, ["two"]),
    ({"n": {"$ne": 2}}, ["text", "three", "one"]),
    ({"n": {"$gt": 1}}, ["three", "two"]),
    ({"n": {"$gte": 2}}, ["three", "two"]),
    ({"n": {"$lt": 2}}, ["one"]),
    ({"n": {"$lte": 2}}, ["two", "one"]),
    ({"n": {"$gt": 1, "$lt": 3}}, ["two"]),
    ({"n": 1, "kind": "a"}, ["one"]),
    ({"n": 1, "kind": "b"}, []),
]


async def test_a_search_filters_pages_and_tells_no_score(api: Api, root: str) -> None:
    values: dict[str, JsonObject] = {
        "one": {"n": 1, "kind": "a"},
        "two": {"n": 2},
        "three": {"n": 3},
        "text": {"n": "2"},
        "none": {},
    }
    for key, value in values.items():
        await put(api, [root, "deep"], key, value)
    for wanted, expected in FILTERS:
        assert await found(api, [root], filter=wanted) == expected, wanted
    assert await found(api, [root], limit=2, offset=1) == ["text", "three"]
    assert await found(api, [root], query="ignored without an index", refresh_ttl=False, limit=1) == ["none"]
    assert await found(api, [root[:-1]]) == []
    answer = as_object(await api.call("POST", ITEMS + "/search", {"namespace_prefix": [root], "limit": 1}))
    assert isinstance(answer["items"], list)
    assert set(as_object(answer["items"][0])) == {"namespace", "key", "value", "created_at", "updated_at", "score"}
    assert as_object(answer["items"][0])["score"] is None
    for everything in ({}, {"namespace_prefix": None, "filter": None, "query": None, "refresh_ttl": None}):
        every = as_object(await api.call("POST", ITEMS + "/search", {**everything, "limit": 1}))["items"]
        assert isinstance(every, list)
        assert as_object(every[0])["key"] == "none"


async def test_namespaces_are_listed_by_prefix_suffix_and_depth(api: Api, root: str) -> None:
    spaces: list[list[Json]] = [[root], [root, "a", "end"], [root, "b", "end"], [root, "b", "x"]]
    for space in spaces:
        await put(api, space, "k", {})

    async def listed(**body: Json) -> Json:
        return as_object(await api.call("POST", "/store/namespaces", body))["namespaces"]

    assert await listed(prefix=[root]) == spaces
    assert await listed(prefix=[root], suffix=None, max_depth=None, limit=2, offset=1) == spaces[1:3]
    assert await listed(prefix=[root, "*", "end"]) == spaces[1:3]
    assert await listed(prefix=[root], suffix=["*", "x"]) == spaces[3:]
    assert await listed(prefix=[root], max_depth=2) == [[root], [root, "a"], [root, "b"]]
    assert await listed(prefix=[root], suffix=["end"], max_depth=1) == [[root]]
    everything = await listed(limit=1000)
    assert isinstance(everything, list)
    assert [root, "b", "x"] in everything


async def test_graphs_and_clients_see_the_items_of_each_other(api: Api, root: str) -> None:
    thread_id = await api.thread()
    body: JsonObject = {"assistant_id": "steps", "input": {"remember": root}}
    await api.call("POST", f"/threads/{thread_id}/runs/wait", body)
    assert await found(api, ["steps", root]) == ["five", "four", "three", "two", "one"]
    shown = await item(api, f"steps.{root}", "one")
    assert shown is not None
    assert "run_id" in as_object(shown["value"])


async def test_puts_into_a_namespace_in_quarantine_get_503(api: Api, server: RunningServer, root: str) -> None:
    await put(api, [root], "k", {"n": 1})
    key = store_key([root])
    connection = await asyncpg.connect(server.postgres)
    try:
        row = "'store_items', $1, 0, 0, 'error', 1, 1, 1, '{}'"
        await connection.execute(f"INSERT INTO ledger.quarantine VALUES ({row})", key)
        try:
            writes: list[tuple[str, JsonObject]] = [("PUT", {"value": {}}), ("DELETE", {})]
            for method, body in writes:
                answer = await ask(server, method, ITEMS, {"namespace": [root], "key": "k", **body})
                assert (answer.status, b"quarantine" in answer.content) == (503, True)
                assert answer.headers["retry-after"]
        finally:
            await connection.execute("DELETE FROM ledger.quarantine WHERE key = $1", key)
    finally:
        await connection.close()
    await put(api, [root], "k", {"n": 2})
    assert await facts(server, [root]) == [("StoreItemPut", "user")] * 2


async def test_the_async_client_has_every_method(server: RunningServer, root: str) -> None:
    async with get_client(url=server.url) as client:
        await client.store.put_item([root, "a"], key="k", value={"n": 1}, index=False)
        await asyncio.gather(*(client.store.put_item([root, "b"], key=str(n), value={"n": n}) for n in range(5)))
        assert (await client.store.get_item([root, "a"], key="k", refresh_ttl=False))["value"] == {"n": 1}
        searched = await client.store.search_items([root], filter={"n": {"$gte": 3}}, limit=5, query="q")
        assert {one["key"] for one in searched["items"]} == {"3", "4"}
        listed = await client.store.list_namespaces(prefix=[root], max_depth=2)
        assert listed["namespaces"] == [[root, "a"], [root, "b"]]
        await client.store.delete_item([root, "a"], key="k")
        assert await client.store.get_item([root, "a"], key="k") is None
        with pytest.raises(UnprocessableEntityError):
            await client.store.put_item([root], key="k", value={}, ttl=5)
        with pytest.raises(BadRequestError):
            await client.store.put_item([], key="k", value={})


def test_the_sync_client_has_every_method(server: RunningServer, root: str) -> None:
    with get_sync_client(url=server.url) as client:
        client.store.put_item([root, "a"], key="k", value={"n": 1})
        assert client.store.get_item([root, "a"], key="k")["value"] == {"n": 1}
        assert [one["key"] for one in client.store.search_items([root])["items"]] == ["k"]
        assert client.store.list_namespaces(prefix=[root])["namespaces"] == [[root, "a"]]
        client.store.delete_item([root, "a"], key="k")
        assert client.store.get_item([root, "a"], key="k") is None
        with pytest.raises(UnprocessableEntityError):
            client.store.put_item([root], key="k", value={}, index=["text"])
