"""System tests of a lost database that is rebuilt from the log while the gateway answers: equal rows and answers."""

import asyncio
import hashlib
import time
from collections.abc import Callable

import aiohttp
import asyncpg
import pytest
from tests.projections.projector_env import TABLES
from tests.system.api import Api
from tests.system.checker.judgement import judged_well
from tests.system.rebuilds import rebuilt
from tests.system.runs_env import Gate, run_status
from tests.system.servers import RunningServer, running_server
from tests.system.sse import Event, events
from tests.system.test_large_values import rebuild

from agentlog_facts.json_value import JsonObject, as_object, load
from agentlog_infra.postgres.migrate import make_database, upgrade
from agentlog_postgres.connection import connect_projector
from agentlog_projections.projector.ownership import fence_off
from agentlog_projections.rebuild.shadow_schema import DROP

THREADS = 24
ANSWERS = 200
LOOKS_S = 5.0
"""Workers, streams and waits read the rows at least every two seconds."""
PARTITIONS = 8
ENDS_S = 20.0
"""The longest time from the rebuild to the end of runs in flight: less than that of a lost run."""
PROCESS_STATE = {("ledger", "positions"): ("owner", "present", "moved_at")}
"""Columns that name the folding process or the time of its progress: the only ones that the log does not determine."""
TABLE_NAMES = """
SELECT schemaname, tablename FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> 'projectors' ORDER BY 1, 2
"""
"""All tables but the one that names the folding processes only."""
COLUMNS = """
SELECT column_name FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2 ORDER BY column_name
"""
CHAT: JsonObject = {"assistant_id": "chat", "input": {"messages": [{"role": "user", "content": "count to 5"}]}}
ASK: JsonObject = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "pay 25 EUR to Ana"}]}}


async def rows(uri: str) -> dict[str, str]:
    """Return table -> digest of all its rows."""
    connection = await asyncpg.connect(uri)
    try:
        found: dict[str, str] = {}
        for table in await connection.fetch(TABLE_NAMES):
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
    """Drop the database while it is in use."""
    connection = await asyncpg.connect(uri.replace("/postgres?", "/template1?"))
    try:
        await connection.execute("DROP DATABASE postgres WITH (FORCE)")
    finally:
        await connection.close()


async def use_most_endpoints(api: Api, threads: int = THREADS) -> list[str]:
    """Use most endpoints; return the requests whose answers are compared."""
    paths: list[str] = []
    for number in range(threads):
        thread_id = await api.thread()
        await api.call("PATCH", f"/threads/{thread_id}", {"metadata": {"number": number}})
        await [chatted, interrupt, stepped, edited, trimmed][number % 5](api, thread_id)
        paths += [f"/threads/{thread_id}", f"/threads/{thread_id}/state", f"/threads/{thread_id}/runs"]
        paths += [f"/threads/{thread_id}/history?limit={limit}" for limit in (1, 3, 10, 50, 100, 1000)]
    gone = await api.thread()
    await api.call("DELETE", f"/threads/{gone}")
    return [*paths, "/info", f"/threads/{gone}"]


async def chatted(api: Api, thread_id: str) -> None:
    for _ in range(2):
        await api.call("POST", f"/threads/{thread_id}/runs/wait", CHAT)


async def interrupt(api: Api, thread_id: str) -> None:
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
    """Return the API's answer to each request."""
    found = {path: await api.raw("GET", path) for path in paths}
    for status in ("idle", "interrupted", "error", "busy"):
        found[f"search {status}"] = await api.raw(
            "POST", "/threads/search", f'{{"status":"{status}","limit":50}}'.encode()
        )
    found["assistants"] = await api.raw("POST", "/assistants/search", b"{}")
    return found


async def keeps_answering(server: RunningServer, until: Callable[[], bool]) -> set[int]:
    """Send requests repeatedly; return the seen statuses."""
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
        paths = await use_most_endpoints(api)
        before = await answers(api, paths)
        assert len(before) >= ANSWERS
        rows_before = await rows(server.postgres)
        await drop_database(server.postgres)
        status, _, told = await rebuilt(server, "--check")
        assert (status, "there are no rows" in told) == (1, True), told
        rebuilding = asyncio.ensure_future(asyncio.to_thread(rebuild, server))
        statuses = await keeps_answering(server, rebuilding.done)
        await rebuilding
        assert statuses <= {200, 503}
        assert await rows(server.postgres) == rows_before
        after = await answers(api, paths)
        different = [path for path in before if after[path] != before[path]]
        assert different == []
        assert as_object(await api.call("POST", "/threads", {}))["status"] == "idle"
        await judged_well(server.kafka, server.postgres)


async def everything(url: str, body: JsonObject | None = None, opened: asyncio.Event | None = None) -> list[Event]:
    """Read a stream to its end."""
    return [event async for event in events(url, body, opened=opened)]


async def tables_stay_empty(server: RunningServer) -> None:
    """Create empty tables without a projector, while workers, streams and waits read them twice."""
    await make_database(server.postgres)
    connection = await connect_projector(server.postgres)
    try:
        await fence_off(connection, range(PARTITIONS), "a rebuild that has just begun")
        await upgrade(server.postgres, TABLES)
        end = time.monotonic() + LOOKS_S
        assert await keeps_answering(server, lambda: time.monotonic() > end) == {503}
        await connection.execute(DROP)
    finally:
        await connection.close()


class InFlight:
    """A run at a gate, with a stream and two blocking calls that wait for its end."""

    def __init__(self, server: RunningServer) -> None:
        self.server, self.api, self.gate = server, Api(server.url), Gate(server)
        self.thread_id = self.run_id = ""

    async def begin(self) -> None:
        """Start a run on a thread with a state, and wait until the stream and all calls are open."""
        self.thread_id = await self.api.thread()
        await self.api.call("POST", f"/threads/{self.thread_id}/runs/wait", {"assistant_id": "steps", "input": {}})
        body: JsonObject = {"assistant_id": "steps", "input": self.gate.held(), "stream_resumable": True}
        body["stream_mode"] = ["values"]
        self.stream = asyncio.create_task(everything(f"{self._runs}/stream", body))
        await self.until(lambda: self.gate.began(self.server))
        [self.run_id] = self.gate.runs_in(self.server, "two")
        opened = asyncio.Event(), asyncio.Event()
        self.join = asyncio.create_task(self.api.join(self.thread_id, self.run_id, opened[0]))
        self.joined = asyncio.create_task(everything(f"{self._runs}/{self.run_id}/stream", opened=opened[1]))
        async with asyncio.timeout(ENDS_S):
            await asyncio.gather(*(event.wait() for event in opened))

    @property
    def _runs(self) -> str:
        return f"{self.server.url}/threads/{self.thread_id}/runs"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Poll until a condition holds."""
        async with asyncio.timeout(ENDS_S):
            while not condition():  # noqa: ASYNC110 - a file of another process sends no event
                await asyncio.sleep(0.02)

    def waiting(self) -> bool:
        """Return whether the stream and all calls are still open."""
        return not (self.stream.done() or self.join.done() or self.joined.done())

    async def ended(self) -> None:
        """Check that the stream and all calls get the one end of the run, which was executed once."""
        async with asyncio.timeout(ENDS_S):
            values = await self.join
            streamed, joined = await self.stream, await self.joined
        assert [event.data for event in streamed + joined if event.event == "error"] == []
        assert as_object(load(streamed[-1].data)) == values
        assert await run_status(self.api, self.thread_id, self.run_id) == "success"
        for step in ("one", "two", "three"):
            assert self.gate.runs_in(self.server, step) == [self.run_id]
        shown = await self.api.get(f"/threads/{self.thread_id}/state")
        assert shown["values"] == values


@pytest.mark.timeout(240)
async def test_runs_streams_and_waits_in_flight_outlive_a_database_that_is_dropped_and_rebuilt() -> None:
    with running_server({"AGENTLOG_LEASE_TTL_SECS": "3"}) as server:
        held, passing = InFlight(server), InFlight(server)
        await held.begin()
        await passing.begin()
        await drop_database(server.postgres)
        await tables_stay_empty(server)
        assert held.waiting()
        passing.gate.open()  # its steps and its end come in the time without rows
        await passing.until(lambda: bool(passing.gate.runs_in(server, "three")))
        await asyncio.to_thread(rebuild, server)
        assert held.waiting()
        await passing.ended()
        assert held.waiting()
        held.gate.open()
        await held.ended()
        await judged_well(server.kafka, server.postgres)
