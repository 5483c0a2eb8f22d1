"""Responses that need no rows: unknown paths and verbs, CORS, missing features, documents, faults."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import pytest
from httpx2 import ASGITransport, AsyncClient
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from tests.fakes.memory_log import MemoryLog
from tests.gateway.web_env import BODY_BYTES, NOWHERE, dependencies, detail, without_database

from agentlog_facts.errors import DependencyRefused, Misconfigured, Unavailable
from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_facts.version import CONTRACT, VERSION
from agentlog_gateway import routes
from agentlog_gateway.api.dependencies import Dependencies
from agentlog_gateway.application import build_app
from agentlog_gateway.http.cors import Cors, cors_of
from agentlog_gateway.reads.caught_up import CatchUpGate
from agentlog_gateway.routes import NOT_IMPLEMENTED, OPERATIONS
from agentlog_postgres.connection import open_pool
from agentlog_projections.queries.health import ProjectionHealth
from agentlog_projections.queries.run_health import RunHealth

UUID = "019ab000-0000-7000-8000-000000000001"


def concrete(path: str) -> str:
    return re.sub(r"\{\w+\}", UUID, path)


def missing() -> Dependencies:
    raise AssertionError("nothing was to be asked")


async def test_an_unknown_path_is_not_found() -> None:
    async with without_database() as (client, _):
        answer = await client.get("/nowhere")
    assert (answer.status_code, detail(answer.content)) == (404, "Not Found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/threads", {"POST"}),
        ("GET", "/threads/search", {"POST"}),
        ("PUT", f"/threads/{UUID}/state", {"GET", "HEAD", "POST"}),
        ("DELETE", "/ok", {"GET", "HEAD"}),
        ("GET", f"/assistants/{UUID}/versions", {"POST"}),
    ],
)
async def test_a_known_path_with_another_verb_tells_the_allowed_ones(method: str, path: str, allowed: set[str]) -> None:
    async with without_database() as (client, _):
        answer = await client.request(method, path)
    assert (answer.status_code, detail(answer.content)) == (405, "Method Not Allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(("method", "path"), [*NOT_IMPLEMENTED, ("GET", "/ui/agent/entrypoint.js")])
async def test_an_endpoint_that_comes_later_says_so(method: str, path: str) -> None:
    async with without_database() as (client, _):
        answer = await client.request(method, concrete(path))
    assert (answer.status_code, detail(answer.content)) == (404, f"not implemented by agentlog {VERSION}")


@pytest.mark.parametrize("path", ["/threads/{thread_id}", "/threads/{id}"])
def test_an_endpoint_that_is_served_cannot_stay_listed_as_missing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "NOT_IMPLEMENTED", (*NOT_IMPLEMENTED, ("DELETE", path)))
    with pytest.raises(AssertionError, match=re.escape("DELETE /threads/{}")):
        routes.operations_by_path()


@pytest.mark.parametrize("protocols", [[], ["v2.stream"]])
def test_a_websocket_of_the_contract_is_closed_with_a_code_and_a_reason(protocols: list[str]) -> None:
    client = TestClient(build_app(missing, Cors()))
    with client.websocket_connect(f"/threads/{UUID}/stream/events", subprotocols=protocols) as websocket:
        assert (websocket.accepted_subprotocol or None) == (protocols[0] if protocols else None)
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_text()
    assert (closed.value.code, closed.value.reason) == (4404, f"not implemented by agentlog {VERSION}")


@pytest.mark.parametrize("path", ["/nowhere", "/threads", f"/threads/{UUID}"])
def test_a_websocket_to_any_other_path_is_not_found(path: str) -> None:
    with TestClient(build_app(missing, Cors())).websocket_connect(path) as websocket:
        with pytest.raises(WebSocketDisconnect) as closed:
            websocket.receive_text()
    assert (closed.value.code, closed.value.reason) == (4404, "Not Found")


async def test_a_trailing_slash_is_redirected() -> None:
    async with without_database() as (client, _):
        answer = await client.post("/threads/", content=b"{}")
    assert (answer.status_code, answer.headers["location"]) == (307, "http://test/threads")


async def test_health_and_version_need_no_database_and_answer_head_too() -> None:
    async with without_database() as (client, _):
        ok, head, info = await client.get("/ok"), await client.head("/"), await client.get("/info")
        checked = await client.get("/ok", params={"check_db": "1"})
    assert ok.content == b'{"ok":true,"services":{}}'
    assert head.status_code == 200
    found = as_object(info.json())
    assert (found["version"], as_object(found["flags"])["assistants"]) == (CONTRACT, True)
    assert found["server"] == {"name": "agentlog", "version": VERSION}
    assert (checked.status_code, detail(checked.content)) == (500, "no answer from: database")


async def test_a_dependency_that_refuses_a_command_is_shown_as_that_and_not_as_away() -> None:
    async def refuse() -> None:
        raise DependencyRefused("MGET: Redis refuses it: NoPermissionError 10.0.0.7") from PermissionError("10.0.0.7")

    log, pool = MemoryLog(), await open_pool(NOWHERE, 2)
    wired = replace(dependencies(log, pool), checks={"redis": refuse})
    async with AsyncClient(transport=ASGITransport(build_app(lambda: wired, Cors())), base_url="http://test") as client:
        checked, ready = await client.get("/ok", params={"check_db": "1"}), await client.get("/ready")
    await pool.close()
    assert (checked.status_code, detail(checked.content)) == (500, "redis: refuses MGET (PermissionError)")
    assert (ready.status_code, ready.json()["services"]) == (503, {"redis": "refuses MGET (PermissionError)"})


class AllPresent:
    async def caught_up(self) -> Mapping[int, bool]:
        return {0: True}


async def test_what_a_dependency_refuses_after_its_check_is_part_of_the_answer_too() -> None:
    """A user of Redis without ZCOUNT made /ready an internal error."""

    async def fine() -> None: ...

    async def healthy() -> ProjectionHealth:
        return ProjectionHealth(1, (), {}, {})

    async def no_runs() -> RunHealth:
        return RunHealth(0, ())

    async def refuse() -> int:
        raise DependencyRefused("ZCOUNT: Redis refuses it: NoPermissionError") from PermissionError()

    async def unavailable() -> RunHealth:
        raise Unavailable("PostgreSQL does not answer")

    log, pool = MemoryLog(), await open_pool(NOWHERE, 2)
    wired = replace(dependencies(log, pool), checks={"redis": fine}, health=healthy, run_health=no_runs)
    wired = replace(wired, caught_up=CatchUpGate(AllPresent(), log, wired.clock, 1))
    wired.prepared.set()
    found: list[tuple[int, object]] = []
    for one in (wired, replace(wired, worker_deaths=refuse), replace(wired, run_health=unavailable)):
        app = build_app(lambda one=one: one, Cors())  # type: ignore[misc]  # bound now
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            answer = await client.get("/ready")
        found.append((answer.status_code, answer.json()["services"]))
    await pool.close()
    assert found == [
        (200, {"redis": "ok", "database": "ok"}),
        (503, {"redis": "refuses ZCOUNT (PermissionError)", "database": "ok"}),
        (503, {"redis": "ok", "database": "away"}),
    ]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/threads", b"{}"),
        ("GET", f"/threads/{UUID}", b""),
        ("PATCH", f"/threads/{UUID}", b"{}"),
        ("DELETE", f"/threads/{UUID}", b""),
        ("POST", "/threads/search", b"{}"),
        ("POST", "/threads/prune", b'{"thread_ids":["' + UUID.encode() + b'"]}'),
        ("POST", f"/threads/{UUID}/runs", b'{"assistant_id":"agent"}'),
        ("POST", f"/threads/{UUID}/runs/wait", b'{"assistant_id":"agent"}'),
        ("POST", f"/threads/{UUID}/runs/stream", b'{"assistant_id":"agent"}'),
        ("POST", "/runs", b'{"assistant_id":"agent"}'),
        ("GET", f"/threads/{UUID}/runs/{UUID}/join", b""),
        ("GET", f"/threads/{UUID}/runs/{UUID}/stream", b""),
        ("POST", f"/threads/{UUID}/runs/{UUID}/cancel", b""),
        ("GET", f"/threads/{UUID}/state", b""),
        ("POST", "/assistants/search", b"{}"),
    ],
)
async def test_a_database_that_is_away_is_503_with_a_time_to_retry_and_writes_nothing(
    method: str, path: str, body: bytes
) -> None:
    async with without_database() as (client, log):
        answer = await client.request(method, path, content=body)
    assert answer.status_code == 503, answer.content
    assert int(answer.headers["retry-after"]) >= 1
    assert detail(answer.content) == "a dependency of the server is unavailable, retry later"
    assert log.records == []


async def test_ids_that_are_none_are_refused_before_anything_is_read() -> None:
    async with without_database() as (client, _):
        thread, run = await client.get("/threads/x"), await client.get(f"/threads/{UUID}/runs/x")
        assistant = await client.get("/assistants/x")
    assert detail(thread.content) == "Invalid thread ID: must be a UUID"
    assert detail(run.content) == "Invalid run ID: must be a UUID"
    assert detail(assistant.content) == "Invalid assistant ID: must be a UUID"
    assert {thread.status_code, run.status_code, assistant.status_code} == {422}


async def test_a_body_over_the_limit_is_refused_told_or_not() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * (BODY_BYTES // 2)

    async with without_database() as (client, _):
        declared = await client.post("/threads", content=b" " * (BODY_BYTES + 1))
        undeclared = await client.post("/threads", content=chunks())
    assert (declared.status_code, undeclared.status_code) == (413, 413)
    assert (
        detail(declared.content) == detail(undeclared.content) == f"Request body too large (limit: {BODY_BYTES} bytes)"
    )


async def test_an_idempotency_key_or_token_that_is_none_is_refused() -> None:
    async with without_database() as (client, _):
        key = await client.post("/threads", content=b"{}", headers={"Idempotency-Key": "x" * 300})
        token = await client.get(f"/threads/{UUID}", headers={"X-Consistency-Token": "x"})
    assert (key.status_code, token.status_code) == (422, 422)


async def test_browsers_of_any_origin_may_call_and_read_our_headers() -> None:
    preflight = {
        "Origin": "https://studio.example",
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "x-api-key",
        "Access-Control-Request-Private-Network": "true",
    }
    async with without_database() as (client, _):
        asked = await client.options("/threads", headers=preflight)
        answer = await client.get("/ok", headers={"Origin": "https://studio.example"})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == "*"
    assert asked.headers["access-control-allow-private-network"] == "true"
    assert "x-api-key" in asked.headers["access-control-allow-headers"]
    assert "PATCH" in asked.headers["access-control-allow-methods"]
    assert asked.headers["access-control-max-age"] == "600"
    assert answer.headers["access-control-allow-origin"] == "*"
    exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert {
        "x-pagination-total",
        "x-pagination-next",
        "content-location",
        "location",
        "etag",
        "x-request-id",
    } <= exposed


async def test_an_origin_that_is_not_allowed_is_told() -> None:
    async with without_database("https://mine.example") as (client, _):
        headers = {"Origin": "https://other.example", "Access-Control-Request-Method": "GET"}
        answer = await client.options("/ok", headers=headers)
    assert (answer.status_code, answer.text) == (400, "Disallowed CORS origin")


async def test_what_the_project_says_of_cors_wins() -> None:
    document: JsonObject = {
        "http": {
            "cors": {
                "allow_origin_regex": r"https://.*\.example",
                "allow_methods": ["GET"],
                "allow_credentials": True,
                "max_age": 5,
            }
        }
    }
    app = build_app(missing, cors_of(document, ["*"]))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        origin = {"Origin": "https://a.example"}
        asked = await client.options("/ok", headers={**origin, "Access-Control-Request-Method": "GET"})
        post = await client.options("/ok", headers={**origin, "Access-Control-Request-Method": "POST"})
        other = await client.get("/docs", headers={"Origin": "https://b.other"})
    assert (asked.status_code, post.status_code) == (200, 400)
    assert asked.headers["access-control-allow-origin"] == "https://a.example"
    assert asked.headers["access-control-allow-credentials"] == "true"
    assert asked.headers["access-control-max-age"] == "5"
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("cors", ["*", {"allow_origins": "*"}, {"allow_origin": ["*"]}])
def test_a_wrong_cors_is_named(cors: Json) -> None:
    with pytest.raises(Misconfigured, match=r"http\.cors: "):
        cors_of({"http": {"cors": cors}}, ["*"])


async def test_health_names_each_dependency_that_answers() -> None:
    async def fine() -> None: ...

    async def healthy() -> ProjectionHealth:
        return ProjectionHealth(1, (), {}, {})

    log, pool = MemoryLog(), await open_pool(NOWHERE, 2)
    checks = {"database": fine, "redis": fine, "log": fine}
    wired = replace(dependencies(log, pool), checks=checks, health=healthy)
    transport = ASGITransport(build_app(lambda: wired, Cors()))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/ok", params={"check_db": "1"})
    await pool.close()
    assert answer.json() == {"ok": True, "services": {"database": "ok", "redis": "ok", "log": "ok"}}


async def test_the_documents_tell_every_operation_and_every_body() -> None:
    async with without_database() as (client, _):
        document, page = await client.get("/openapi.json"), await client.get("/docs")
    found = as_object(document.json())
    paths = as_object(found["paths"])
    assert found["openapi"] == "3.1.0"
    assert {(method.upper(), path) for path, item in paths.items() for method in as_object(item)} == {
        (operation.method, operation.path) for operation in OPERATIONS
    }
    schemas = as_object(as_object(found["components"])["schemas"])
    named = set(re.findall(r'"#/components/schemas/(\w+)"', document.text))
    assert named <= set(schemas)
    assert {operation.body.__name__ for operation in OPERATIONS if operation.body is not None} <= named
    assert "text/html" in page.headers["content-type"]
    assert all(operation.path in page.text for operation in OPERATIONS)
    assert re.findall(r"(?:src|href)=.(?!/)\S*|@import|https?://", page.text) == [], "it works without the internet"


async def test_a_defect_is_500_in_plain_text_and_keeps_its_secret() -> None:
    def broken() -> Dependencies:
        raise RuntimeError("a secret of the server")

    transport = ASGITransport(build_app(broken, Cors()), raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/ok")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert answer.headers["content-type"].startswith("text/plain")
