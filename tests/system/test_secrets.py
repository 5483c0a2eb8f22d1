"""System tests of secrets: after runs of every kind no topic, table, Redis key, response or log shows one in clear."""

import hashlib
import json
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from tests.system.api import Api
from tests.system.checker.judgement import judged_well
from tests.system.checker.records import read_topic
from tests.system.servers import RunningServer, running_server, wait_until

from agentlog_facts.json_value import Json, JsonObject, as_object, dump
from agentlog_facts.secret_values import MASK, SEALED
from agentlog_infra.aes_cipher import FILE_NAME

GRAPHS = Path(__file__).parent / "graphs" / "langgraph.json"
SECRET = "sk-d41d8cd98f00b204e9800998ecf8427e"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
CONTEXT: JsonObject = {"api_key": SECRET, "model": {"apiKey": SECRET}, "tenant_password": SECRET}
BY_CONTEXT: JsonObject = {"context": CONTEXT}
BY_CONFIGURABLE: JsonObject = {"config": {"configurable": {**CONTEXT, "headers": [{"Authorization": SECRET}]}}}
NO_THREAD = "019ab000-0000-7000-8000-000000000001"
HEADERS = {"Authorization": f"Bearer {SECRET}", "x-api-key": SECRET, "Cookie": f"session={SECRET}"}
STREAMED: JsonObject = {"stream_mode": ["values", "updates", "messages-tuple", "custom"], "stream_subgraphs": True}


@pytest.fixture(scope="module")
def server() -> Generator[RunningServer]:
    with running_server({"AGENTLOG_SECRET_KEYS": "*_pin"}, GRAPHS) as running:
        yield running


class Client:
    """Sends requests with secrets in their headers, and keeps every response."""

    def __init__(self, server: RunningServer) -> None:
        self.api = Api(server.url)
        self.responses: list[bytes] = []

    async def ask(self, method: str, path: str, body: Json = None) -> bytes:
        status, content = await self.api.raw(method, path, None if body is None else dump(body), HEADERS)
        assert status < 300, content
        self.responses.append(content)
        return content

    async def refused(self, path: str, body: Json) -> int:
        """Post a request that is refused; return the status."""
        status, content = await self.api.raw("POST", path, dump(body), HEADERS)
        self.responses.append(content)
        return status

    async def json(self, method: str, path: str, body: Json = None) -> JsonObject:
        return as_object(json.loads(await self.ask(method, path, body)))

    async def thread(self) -> str:
        return str((await self.json("POST", "/threads", {}))["thread_id"])


def order(given: JsonObject, graph: str = "keyed", **more: Json) -> JsonObject:
    return {"assistant_id": graph, **given, "input": {"attempts": 1, **more}}


async def digests(client: Client, thread_id: str) -> Json:
    return as_object((await client.json("GET", f"/threads/{thread_id}/state"))["values"])["digests"]


async def runs_of_every_kind(client: Client, server: RunningServer, given: JsonObject, graph: str) -> list[str]:
    """Execute runs of every kind; return their threads."""
    threads = [await client.thread() for _ in range(6)]
    waited, streamed, failed, asked, held, late = threads
    await client.ask("POST", f"/threads/{waited}/runs/wait", order(given, graph) | {"durability": "exit"})
    await client.ask("POST", "/runs/wait", order(given, graph))
    await client.ask("POST", f"/threads/{streamed}/runs/stream", order(given, graph) | STREAMED)
    await client.ask("POST", f"/threads/{failed}/runs/wait", order(given, graph, fail=True))
    await client.ask("POST", f"/threads/{failed}/runs/stream", order(given, graph, fail=True) | STREAMED)
    await client.ask("POST", f"/threads/{asked}/runs/wait", order(given, graph, ask=True))
    resumed: JsonObject = {"assistant_id": graph, **given, "command": {"resume": "yes"}}
    await client.ask("POST", f"/threads/{asked}/runs/wait", resumed)
    gate = f"gate-{held}"
    run = await client.json("POST", f"/threads/{held}/runs", order(given, graph, gate=gate))
    wait_until((server.gates / f"{gate}-reached").exists, 30, "the node waits")
    await client.json("GET", f"/threads/{held}/runs/{run['run_id']}")
    if (given, graph) == (BY_CONTEXT, "keyed"):
        server.kill_role("worker")
    (server.gates / gate).touch()
    await client.ask("GET", f"/threads/{held}/runs/{run['run_id']}/join")
    run = await client.json("POST", f"/threads/{late}/runs", order(given, graph) | {"after_seconds": 0.2})
    await client.ask("GET", f"/threads/{late}/runs/{run['run_id']}/join")
    await client.ask("POST", f"/threads/{waited}/state", {"values": {"attempts": 2}})
    for thread_id in (waited, streamed, asked, held, late):
        assert await digests(client, thread_id) == [DIGEST] * 3, thread_id
    return threads


async def stopped_runs(client: Client, server: RunningServer, given: JsonObject) -> list[str]:
    """Cancel a run, take back another one, and refuse requests with secrets; return the threads."""
    threads = [await client.thread() for _ in range(2)]
    for thread_id, strategy in zip(threads, ("interrupt", "rollback"), strict=True):
        gate = f"never-{thread_id}"
        run = await client.json("POST", f"/threads/{thread_id}/runs", order(given, gate=gate))
        wait_until((server.gates / f"{gate}-reached").exists, 30, "the node waits")
        path = f"/threads/{thread_id}/runs"
        unknown: JsonObject = {"stream_mode": ["no mode"]}
        both: JsonObject = {"context": CONTEXT, "config": {"configurable": CONTEXT}}
        assert await client.refused(path, order(both)) == 400
        assert await client.refused(path, order(given) | {"multitask_strategy": "reject"}) == 409
        assert await client.refused(path, order(given) | unknown) == 422
        assert await client.refused(path, order({"config": {"recursion_limit": "x", "configurable": CONTEXT}})) == 422
        assert await client.refused(f"/threads/{NO_THREAD}/runs", order(given)) == 404
        await client.ask("POST", path, order(given, gate="") | {"multitask_strategy": strategy})
        await client.ask("POST", f"{path}/wait", order(given, gate=""))
        if strategy == "interrupt":
            await client.ask("GET", f"{path}/{run['run_id']}/join")
    return threads


async def assistants_with_secrets(client: Client) -> None:
    """Create assistants with secrets, change them as a client that was shown masks, and use them."""
    for given in (BY_CONTEXT, BY_CONFIGURABLE):
        made = await client.json("POST", "/assistants", {"graph_id": "keyed", **given})
        at = f"/assistants/{made['assistant_id']}"
        run, context = order({}, str(made["assistant_id"])), JsonObject()
        for _ in range(2):
            assert (await client.json("POST", "/runs/wait", run))["digests"] == [DIGEST] * 3
            shown = await client.json("GET", at)
            config, context = as_object(shown["config"]), as_object(shown["context"])
            assert (as_object(config["configurable"])["api_key"], context["api_key"]) == (MASK, MASK)
            await client.ask("PATCH", at, {"config": {**config, "tags": ["new"]}})
        await client.ask("PATCH", at, {"context": context, "metadata": {"kept": True}})
        assert (await client.json("POST", "/runs/wait", run))["digests"] == [DIGEST] * 3
        await client.ask("POST", f"{at}/latest", {"version": 1})
        assert (await client.json("POST", "/runs/wait", run))["digests"] == [DIGEST] * 3
        for method, last in (("POST", "/versions"), ("GET", "/schemas"), ("GET", "/graph")):
            await client.ask(method, at + last, {} if method == "POST" else None)
    await client.ask("POST", "/assistants/search", {})


@pytest.mark.timeout(300)
async def test_no_secret_is_in_clear_anywhere(server: RunningServer) -> None:
    client = Client(server)
    for given in (BY_CONTEXT, BY_CONFIGURABLE):
        for graph in ("keyed", "keyed_by_factory"):
            for thread_id in await runs_of_every_kind(client, server, given, graph):
                for path in ("", "/runs", "/state?subgraphs=true", "/history?limit=100"):
                    await client.ask("GET", f"/threads/{thread_id}{path}")
        await stopped_runs(client, server, given)
    await assistants_with_secrets(client)
    extract: JsonObject = {"config": "config", "key": "config.configurable.api_key"}
    await client.ask("POST", "/threads/search", {"limit": 100, "extract": extract})
    found = [topic async for topic in topics_with(server, SECRET)]
    assert [*found, *await tables_with(server, SECRET), *await redis_keys_with(server, SECRET)] == []
    assert [content for content in client.responses if SECRET.encode() in content] == []
    logs = [server.folder / "dev.log", *(server.folder / "data" / "logs").iterdir()]
    assert [path.name for path in logs if SECRET.encode() in path.read_bytes()] == []
    await judged_well(server.kafka, server.postgres)


async def test_a_run_shows_a_mask_and_its_fact_the_sealed_value(server: RunningServer) -> None:
    client = Client(server)
    thread_id = await client.thread()
    body = order({"config": {"configurable": {"card_pin": 1234567, "max_tokens": 5, "api_key": ""}}})
    run = await client.json("POST", f"/threads/{thread_id}/runs", body)
    await client.ask("GET", f"/threads/{thread_id}/runs/{run['run_id']}/join")
    kept = await client.json("GET", f"/threads/{thread_id}/runs/{run['run_id']}")
    for shown in (run, kept):
        configurable = as_object(as_object(as_object(shown["kwargs"])["config"])["configurable"])
        assert [configurable[name] for name in ("card_pin", "max_tokens", "api_key")] == [MASK, 5, ""]
    records = [record for record in await read_topic(server.kafka, "agentlog.events") if record.key == thread_id]
    written = json.dumps([record.value for record in records])
    assert SEALED in written
    assert "1234567" not in written


async def test_a_run_whose_key_was_erased_ends_with_an_error_that_says_so(server: RunningServer) -> None:
    client = Client(server)
    thread_id = await client.thread()
    gate = f"gate-{thread_id}"
    before = await client.json("POST", f"/threads/{thread_id}/runs", order(BY_CONTEXT, gate=gate))
    wait_until((server.gates / f"{gate}-reached").exists, 30, "the node waits")
    after = await client.json("POST", f"/threads/{thread_id}/runs", order(BY_CONTEXT))
    (server.folder / "data" / FILE_NAME).unlink()
    (server.gates / gate).touch()
    assert as_object(json.loads(await client.ask("GET", f"/threads/{thread_id}/runs/{before['run_id']}/join")))
    outcome = await client.json("GET", f"/threads/{thread_id}/runs/{after['run_id']}/join")
    error = as_object(outcome["__error__"])
    assert error["error"] == "SecretUnreadable"
    assert "erased" in str(error["message"])
    again = await client.json("POST", f"/threads/{thread_id}/runs/wait", order(BY_CONTEXT))
    assert again["digests"] == [DIGEST] * 3  # with a new key


async def topics_with(server: RunningServer, text: str) -> AsyncIterator[str]:
    """Yield the place of each record that contains a text."""
    for topic in ("agentlog.events", "agentlog.outputs", "agentlog.blobs"):
        try:
            records = await read_topic(server.kafka, topic)
        except AssertionError:
            assert topic == "agentlog.blobs"  # it may have no record
            continue
        assert records or topic == "agentlog.blobs"
        for record in records:
            if text in json.dumps([record.key, record.value, record.headers]):
                yield f"{topic} {record.partition} {record.offset}"


async def tables_with(server: RunningServer, text: str) -> list[str]:
    """Return the tables with a row that contains a text."""
    connection = await asyncpg.connect(server.postgres)
    try:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        assert len(tables) > 5
        found: list[str] = []
        for name in [row["name"] for row in tables]:
            sql = f"SELECT count(*) FROM {name} t WHERE strpos(t::text, $1) > 0"
            if await connection.fetchval(sql, text):
                found.append(name)
        return found
    finally:
        await connection.close()


async def redis_keys_with(server: RunningServer, text: str) -> list[str]:
    """Return the keys of Redis whose value contains a text."""
    client = Redis.from_url(server.redis)
    try:
        keys = await client.execute_command("KEYS", "*")
        assert isinstance(keys, list)
        return [str(key) for key in keys if isinstance(key, bytes) and text in str(await _value(client, key))]
    finally:
        await client.aclose()


async def _value(client: Redis, key: bytes) -> object:
    kind = await client.execute_command("TYPE", key)
    read = {b"string": ("GET", key), b"list": ("LRANGE", key, 0, -1), b"set": ("SMEMBERS", key)}
    read |= {b"zset": ("ZRANGE", key, 0, -1), b"hash": ("HGETALL", key)}
    assert isinstance(kind, bytes)
    return await client.execute_command(*read[kind]) if kind != b"none" else None  # none: it expired meanwhile
