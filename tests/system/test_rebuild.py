"""The database is dropped and rebuilt from the log while the gateway answers: every row and every answer as before."""

import asyncio
import hashlib
from collections.abc import Callable

import aiohttp
import asyncpg
import pytest
from tests.system.api import Api
from tests.system.servers import RunningServer, running_server
from tests.system.test_large_values import rebuild

from agentlog_facts.json_value import JsonObject, as_object

THREADS = 24
ANSWERS = 200
PROCESS_STATE = {("ledger", "positions"): ("owner", "present")}
"""Columns that say which process folds now: the only ones that the log does not determine."""
TABLES = """
SELECT schemaname, tablename FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2
"""
COLUMNS = """
SELECT column_name FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2 ORDER BY column_name
"""
CHAT: JsonObject = {"assistant_id": "chat", "input": {"messages": [{"role": "user", "content": "count to 5"}]}}
ASK: JsonObject = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "pay 25 EUR to Ana"}]}}


async def rows(uri: str) -> dict[str, str]:
    """Return table -> digest over all of its rows."""
    connection = await asyncpg.connect(uri)
    try:
        found: dict[str, str] = {}
        for table in await connection.fetch(TABLES):
            name = (table[0], table[1])
            columns = [row[0] for row in await connection.fetch(COLUMNS, *name)]
            kept = ", ".join(f'"{column}"' for column in columns if column not in PROCESS_STATE.get(name, ()))
            text = await connection.fetch(f'SELECT row({kept})::text AS line FROM "{name[0]}"."{name[1]}" ORDER BY 1')
            lines = "\n".join(row[0] for row in text)
            found[".".join(name)] = f"{len(text)} rows {hashlib.sha256(lines.encode()).hexdigest()}"
        return found
    finally:
        await connection.close()


async def drop_database(uri: str) -> None:
    """Drop the database under the feet of everybody."""
    connection = await asyncpg.connect(uri.replace("/postgres?", "/template1?"))
    try:
        await connection.execute("DROP DATABASE postgres WITH (FORCE)")
    finally:
        await connection.close()


async def live(api: Api) -> list[str]:
    """Do a bit of everything; return the requests whose answers are compared."""
    paths: list[str] = []
    for number in range(THREADS):
        thread_id = await api.thread()
        await api.call("PATCH", f"/threads/{thread_id}", {"metadata": {"number": number}})
        await [chatted, asked, stepped, edited, trimmed][number % 5](api, thread_id)
        paths += [f"/threads/{thread_id}", f"/threads/{thread_id}/state", f"/threads/{thread_id}/runs"]
        paths += [f"/threads/{thread_id}/history?limit={limit}" for limit in (1, 3, 10, 50, 100, 1000)]
    gone = await api.thread()
    await api.call("DELETE", f"/threads/{gone}")
    return [*paths, "/info", f"/threads/{gone}"]


async def chatted(api: Api, thread_id: str) -> None:
    for _ in range(2):
        await api.call("POST", f"/threads/{thread_id}/runs/wait", CHAT)


async def asked(api: Api, thread_id: str) -> None:
    await api.call("POST", f"/threads/{thread_id}/runs/wait", ASK)


async def stepped(api: Api, thread_id: str) -> None:
    body: JsonObject = {"assistant_id": "steps", "input": {"fail_at": "four"}}
    await api.call("POST", f"/threads/{thread_id}/runs/wait", body)


async def edited(api: Api, thread_id: str) -> None:
    await chatted(api, thread_id)
    await api.call("POST", f"/threads/{thread_id}/state", {"values": {"messages": [{"role": "user", "content": "x"}]}})


async def trimmed(api: Api, thread_id: str) -> None:
    await chatted(api, thread_id)
    run_id = await api.start_run(thread_id, "steps", {})
    await api.join(thread_id, run_id)
    await api.call("DELETE", f"/threads/{thread_id}/runs/{run_id}")


async def answers(api: Api, paths: list[str]) -> dict[str, tuple[int, bytes]]:
    """Return what the API says to each request."""
    found = {path: await api.raw("GET", path) for path in paths}
    for status in ("idle", "interrupted", "error", "busy"):
        found[f"search {status}"] = await api.raw(
            "POST", "/threads/search", f'{{"status":"{status}","limit":50}}'.encode()
        )
    found["assistants"] = await api.raw("POST", "/assistants/search", b"{}")
    return found


async def keeps_answering(server: RunningServer, until: Callable[[], bool]) -> set[int]:
    """Ask again and again; return the statuses seen."""
    seen: set[int] = set()
    while not until():
        try:
            status, _ = await Api(server.url).raw("POST", "/threads/search", b"{}")
            seen.add(status)
        except aiohttp.ClientError as error:
            raise AssertionError("the gateway did not answer") from error
    return seen


@pytest.mark.timeout(240)
async def test_the_database_dropped_and_rebuilt_is_the_same_database() -> None:
    with running_server() as server:
        api = Api(server.url)
        paths = await live(api)
        before = await answers(api, paths)
        assert len(before) >= ANSWERS
        rows_before = await rows(server.postgres)
        await drop_database(server.postgres)
        rebuilding = asyncio.ensure_future(asyncio.to_thread(rebuild, server))
        statuses = await keeps_answering(server, rebuilding.done)
        await rebuilding
        assert statuses <= {200, 503}
        assert await rows(server.postgres) == rows_before
        after = await answers(api, paths)
        different = [path for path in before if after[path] != before[path]]
        assert different == []
        assert as_object(await api.call("POST", "/threads", {}))["status"] == "idle"
