"""Assistants over HTTP: each row of the tables of docs/http-api.md, section 4."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

import aiohttp
import pytest
from tests.system.api import TIMEOUT, Api
from tests.system.runs_env import UNKNOWN, refused
from tests.system.servers import RunningServer

from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load

BOTH: JsonObject = {"config": {"configurable": {"a": 1}}, "context": {"b": 2}}


@pytest.fixture
def api(server: RunningServer) -> Api:
    return Api(server.url)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with its headers."""

    status: int
    headers: dict[str, str]
    body: Json

    @property
    def tag(self) -> str:
        """Return the entity tag."""
        return self.headers["etag"]


async def ask(
    server: RunningServer, method: str, path: str, body: Json = None, headers: dict[str, str] | None = None
) -> Answer:
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        data = None if body is None else dump(body)
        async with session.request(method, server.url + path, data=data, headers=headers) as answer:
            content = await answer.read()
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, headers, load(content) if content.strip() else None)


async def made(api: Api, **fields: Json) -> JsonObject:
    return as_object(await api.call("POST", "/assistants", {"graph_id": "steps", **fields}))


def path(assistant: JsonObject) -> str:
    return f"/assistants/{assistant['assistant_id']}"


async def test_an_assistant_is_created_with_defaults_or_with_what_is_given(api: Api) -> None:
    plain = await made(api)
    assert {name: plain[name] for name in ("config", "context", "metadata", "name", "description", "version")} == {
        "config": {},
        "context": {},
        "metadata": {},
        "name": "Untitled",
        "description": None,
        "version": 1,
    }
    assistant_id = str(uuid4())
    config: JsonObject = {"tags": ["x"], "recursion_limit": 7, "other": {"kept": True}}
    given = await made(
        api,
        assistant_id=assistant_id,
        config=config,
        context={"model": "m"},
        metadata={"team": 1},
        name="Ana",
        description="d",
    )
    assert given["config"] == {**config, "configurable": {"model": "m"}}
    assert (given["assistant_id"], given["context"], given["metadata"]) == (assistant_id, {"model": "m"}, {"team": 1})
    assert (given["name"], given["description"], given["created_at"]) == ("Ana", "d", given["updated_at"])
    assert await api.get(path(given)) == given


async def test_the_configurable_of_a_config_fills_the_context(api: Api) -> None:
    assistant = await made(api, config={"configurable": {"model": "m"}})
    assert (assistant["config"], assistant["context"]) == ({"configurable": {"model": "m"}}, {"model": "m"})


async def test_an_id_is_taken_once_and_do_nothing_shows_the_stored_assistant(api: Api) -> None:
    first = await made(api, name="first")
    again: JsonObject = {"graph_id": "steps", "assistant_id": first["assistant_id"], "name": "second"}
    assert await refused(api, "POST", "/assistants", again) == (
        409,
        f"Assistant {first['assistant_id']} already exists",
    )
    assert await api.call("POST", "/assistants", {**again, "if_exists": "do_nothing"}) == first


@pytest.mark.parametrize(
    ("method", "at", "body", "status", "detail"),
    [
        ("POST", "/assistants", {}, 422, "graph_id"),
        ("POST", "/assistants", {"graph_id": None}, 422, "graph_id"),
        ("POST", "/assistants", {"graph_id": "nowhere"}, 404, "Graph 'nowhere' not found. Expected one of: ["),
        ("POST", "/assistants", {"graph_id": "steps", "assistant_id": "x"}, 422, "must be a UUID"),
        ("POST", "/assistants", {"graph_id": "steps", "if_exists": "zz"}, 422, "if_exists"),
        ("POST", "/assistants", {"graph_id": "steps", "metadata": None}, 422, "metadata"),
        ("POST", "/assistants", {"graph_id": "steps", "config": {"recursion_limit": "x"}}, 422, "recursion_limit"),
        ("POST", "/assistants", {"graph_id": "steps", **BOTH}, 400, "Cannot specify both"),
        (
            "POST",
            "/assistants",
            {"graph_id": "steps", "metadata": {"x": "y" * 1_100_000}},
            422,
            "metadata is too large",
        ),
        ("GET", f"/assistants/{UNKNOWN}", None, 404, "Not Found"),
        ("GET", "/assistants/steps", None, 422, "Invalid assistant ID: must be a UUID"),
        ("PATCH", f"/assistants/{UNKNOWN}", {}, 404, f"Assistant {UNKNOWN} not found"),
        ("PATCH", "/assistants/steps", {}, 422, "Invalid assistant ID: must be a UUID"),
        ("PATCH", f"/assistants/{UNKNOWN}", {"graph_id": "nowhere"}, 404, "Graph 'nowhere' not found."),
        ("PATCH", f"/assistants/{UNKNOWN}", {"description": None}, 422, "description"),
        ("POST", f"/assistants/{UNKNOWN}/versions", {}, 404, f"Assistant {UNKNOWN} not found"),
        ("POST", f"/assistants/{UNKNOWN}/versions", {"limit": 0}, 422, "limit"),
        ("POST", f"/assistants/{UNKNOWN}/latest", {"version": 1}, 404, f"Assistant {UNKNOWN} not found"),
        ("POST", f"/assistants/{UNKNOWN}/latest", {}, 422, "version"),
        ("POST", f"/assistants/{UNKNOWN}/latest", {"version": "1"}, 422, "version"),
        ("POST", "/assistants/search", {"graph_id": "nowhere"}, 404, "Graph 'nowhere' not found."),
        ("POST", "/assistants/count", {"graph_id": "nowhere"}, 404, "Graph 'nowhere' not found."),
        ("POST", "/assistants/search", {"sort_by": "version"}, 422, "sort_by"),
        ("POST", "/assistants/search", {"select": ["revision"]}, 422, "select"),
        ("POST", "/assistants/search", {"limit": 1001}, 422, "limit"),
    ],
)
async def test_a_bad_request_is_refused_and_says_why(
    api: Api, method: str, at: str, body: Json, status: int, detail: str
) -> None:
    found, text = await refused(api, method, at, body)
    assert (found, detail in text) == (status, True), text


async def test_a_get_with_another_verb_on_versions_is_not_allowed(api: Api) -> None:
    assert await refused(api, "GET", f"/assistants/{UNKNOWN}/versions") == (405, "Method Not Allowed")
    assert (await refused(api, "POST", f"/assistants/{UNKNOWN}/latest"))[0] == 422  # no body


async def test_each_patch_is_a_version_that_keeps_what_it_does_not_name(api: Api) -> None:
    first = await made(api, name="a", description="d", config={"tags": ["x"]}, metadata={"one": 1})
    second = as_object(await api.call("PATCH", path(first), {}))
    assert second == {**first, "version": 2, "updated_at": second["updated_at"]}
    assert str(second["updated_at"]) > str(first["updated_at"])
    third = as_object(
        await api.call("PATCH", path(first), {"metadata": {"two": 2}, "context": {"m": 1}, "graph_id": "trivial"})
    )
    assert (third["metadata"], third["context"], third["graph_id"]) == ({"one": 1, "two": 2}, {"m": 1}, "trivial")
    assert third["config"] == {"tags": ["x"], "configurable": {"m": 1}}
    fourth = as_object(await api.call("PATCH", path(first), {"config": {"recursion_limit": 5}, "name": "b"}))
    assert (fourth["config"], fourth["context"], fourth["name"]) == ({"recursion_limit": 5}, {}, "b")
    fifth = as_object(await api.call("PATCH", path(first), {"config": {}, "description": "e"}))
    assert (fifth["config"], fifth["description"], fifth["version"]) == ({"recursion_limit": 5}, "e", 5)
    assert await refused(api, "PATCH", path(first), BOTH) == (
        400,
        "Cannot specify both config.configurable and context: give only one of the two",
    )


async def test_versions_are_listed_newest_first_and_an_earlier_one_can_be_the_latest(api: Api) -> None:
    first = await made(api, name="a", context={"m": 1}, metadata={"n": 1})
    await api.call(
        "PATCH", path(first), {"name": "b", "context": {"m": 2}, "graph_id": "trivial", "metadata": {"n": 2}}
    )
    listed = await api.call("POST", path(first) + "/versions", {})
    assert isinstance(listed, list)
    newest, oldest = map(as_object, listed)
    assert (newest["version"], newest["name"]) == (2, "b")
    assert oldest == {name: value for name, value in first.items() if name != "updated_at"}
    assert await api.call("POST", path(first) + "/versions", {"limit": 1, "offset": 1}) == [oldest]
    assert await api.call("POST", path(first) + "/versions", {"metadata": {"n": 2}}) == [newest]
    assert (await refused(api, "POST", path(first) + "/versions", {"metadata": {"n": 3}}))[0] == 404
    back = as_object(await api.call("POST", path(first) + "/latest", {"version": 1}))
    assert back == {**first, "updated_at": back["updated_at"]}
    assert await api.get(path(first)) == back
    assert await refused(api, "POST", path(first) + "/latest", {"version": 99}) == (
        404,
        f"Version 99 not found for assistant {first['assistant_id']}",
    )
    third = as_object(await api.call("PATCH", path(first), {}))
    assert (third["version"], third["name"], third["graph_id"]) == (3, "a", "steps")


async def test_a_search_filters_sorts_selects_and_pages(server: RunningServer, api: Api) -> None:
    team = str(uuid4())
    for name, size in (("Beta", 2), ("alpha", 1), ("Gamma", 3)):
        await made(api, name=f"{name} {team}", metadata={"team": team, "nested": {"size": size, "more": True}})
    mine: JsonObject = {"metadata": {"team": team}}

    async def names(more: JsonObject) -> Sequence[Json]:
        found = await api.call("POST", "/assistants/search", {**mine, **more})
        assert isinstance(found, list)
        return [str(as_object(one)["name"]).split()[0] for one in found]

    assert await names({}) == ["Gamma", "alpha", "Beta"]
    assert await names({"sort_order": "asc"}) == ["Beta", "alpha", "Gamma"]
    assert await names({"sort_by": "updated_at", "sort_order": "asc"}) == ["Beta", "alpha", "Gamma"]
    assert sorted(map(str, await names({"sort_by": "assistant_id"}))) == ["Beta", "Gamma", "alpha"]
    assert await names({"name": "LPH"}) == ["alpha"]
    assert await names({"metadata": {"team": team, "nested": {"size": 3}}}) == ["Gamma"]
    assert await names({"graph_id": "trivial"}) == []
    assert await api.call("POST", "/assistants/count", mine) == 3
    assert await api.call("POST", "/assistants/count", {"name": team}) == 3
    page = await ask(server, "POST", "/assistants/search", {**mine, "limit": 2, "select": ["name", "version"]})
    assert isinstance(page.body, list)
    assert [set(as_object(one)) for one in page.body] == [{"name", "version"}] * 2
    assert (page.headers["x-pagination-total"], page.headers["x-pagination-next"]) == ("3", "2")
    last = await ask(server, "POST", "/assistants/search", {**mine, "limit": 2, "offset": 2})
    assert (last.headers["x-pagination-total"], "x-pagination-next" in last.headers) == ("3", False)


async def test_an_entity_tag_changes_with_every_change_and_guards_it(server: RunningServer, api: Api) -> None:
    assistant = await made(api)
    at = path(assistant)
    first = await ask(server, "GET", at)
    known = await ask(server, "GET", at, headers={"If-None-Match": first.tag})
    assert (known.status, known.body) == (304, None)
    second = await ask(server, "PATCH", at, {}, {"If-Match": first.tag})
    assert (second.status, second.tag == first.tag) == (200, False)
    assert (await ask(server, "GET", at)).tag == second.tag
    changes: list[tuple[str, str, JsonObject]] = [("PATCH", "", {}), ("POST", "/latest", {"version": 1})]
    for method, more, body in changes:
        late = await ask(server, method, at + more, body, {"If-Match": first.tag})
        assert (late.status, late.tag) == (412, second.tag), late.body
    third = await ask(server, "POST", at + "/latest", {"version": 1}, {"If-Match": f'"x", {second.tag}'})
    assert (third.status, third.tag in (first.tag, second.tag)) == (200, False)
    assert (await ask(server, "PATCH", at, {}, {"If-Match": "*"})).status == 200
    assert (await ask(server, "PATCH", f"/assistants/{UNKNOWN}", {}, {"If-Match": "*"})).status == 404


async def test_a_retry_with_the_same_key_gets_the_first_answer(server: RunningServer, api: Api) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    first = await ask(server, "POST", "/assistants", {"graph_id": "steps"}, key)
    again = await ask(server, "POST", "/assistants", {"graph_id": "steps"}, key)
    assert (again.status, again.body, again.tag) == (200, first.body, first.tag)
    at = path(as_object(first.body))
    patched = await ask(server, "PATCH", at, {"name": "b"}, {**key, "If-Match": first.tag})
    await api.call("PATCH", at, {"name": "c"})
    repeated = await ask(server, "PATCH", at, {"name": "b"}, {**key, "If-Match": first.tag})
    assert (repeated.status, repeated.body, repeated.tag) == (200, patched.body, patched.tag)
    assert (await ask(server, "PATCH", at, {"name": "d"}, key)).status == 422
    assert as_object(await api.call("GET", at))["version"] == 3
    token = {"X-Consistency-Token": patched.headers["x-consistency-token"]}
    assert (await ask(server, "GET", at, headers=token)).status == 200


async def test_patches_at_the_same_time_are_versions_of_their_own(api: Api) -> None:
    assistant = await made(api)
    done = await asyncio.gather(
        *(api.call("PATCH", path(assistant), {"metadata": {str(number): number}}) for number in range(12))
    )
    assert sorted(str(as_object(one)["version"]).zfill(2) for one in done) == [
        f"{number:02}" for number in range(2, 14)
    ]
    kept = await api.get(path(assistant))
    assert kept["metadata"] == {str(number): number for number in range(12)}
