"""A rebuild beside the live rows: nobody notices it, it proves that the rows are the same, and it may end anywhere."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest
from tests.system.api import Api
from tests.system.checker.judgement import judge_all
from tests.system.checker.notes import Notes
from tests.system.checker.records import read_topic
from tests.system.rebuilds import rebuilding, rebuilt, schemas
from tests.system.servers import RunningServer, running_server
from tests.system.test_rebuild import answers, live, rows

from agentlog_facts.json_value import as_object

LIVE = ["ledger", "read_v1"]
ROUND_S = 60.0
THREADS = 10
AFTER = 3
"""How many more rounds each writer does behind the switch."""
DAMAGE = """
UPDATE read_v1.threads SET status = 'busy' WHERE thread_id IN (SELECT thread_id FROM read_v1.threads LIMIT 3);
DELETE FROM read_v1.checkpoints WHERE checkpoint_id IN (SELECT checkpoint_id FROM read_v1.checkpoints LIMIT 5);
UPDATE ledger.log_index SET verdict = 'void' WHERE (partition, "offset") = (0, 0)
"""


NEW_THREAD = {"ledger.heads", "ledger.log_index", "ledger.positions", "read_v1.threads"}


class Load:
    """Writers that create, patch, run and read, and note every answer that is no success."""

    def __init__(self, url: str) -> None:
        self._api = Api(url)
        self._stop = asyncio.Event()
        self.failed: list[tuple[int, bytes]] = []
        self.requests = self.rounds = 0
        self.ended = 0

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        status, content = await self._api.raw(method, path, body)
        self.requests += 1
        if status >= 300:
            self.failed.append((status, content[:300]))
        return content

    async def write(self) -> None:
        """Do round after round until told to stop."""
        while not self._stop.is_set():
            async with asyncio.timeout(ROUND_S):
                thread_id = await self._api.thread()
                await self._ask("PATCH", f"/threads/{thread_id}", b'{"metadata":{"a":1}}')
                run = b'{"assistant_id":"steps","input":{"sleep_ms":20}}'
                values = await self._ask("POST", f"/threads/{thread_id}/runs/wait", run)
                state = await self._ask("GET", f"/threads/{thread_id}/state")
                assert len(values) > 2
                assert values in state
                self.rounds, self.ended = self.rounds + 1, self.ended + 1

    @asynccontextmanager
    async def going(self, writers: int) -> AsyncGenerator[None]:
        """Write while the block lasts, and for some rounds longer."""
        async with asyncio.TaskGroup() as group:
            for _ in range(writers):
                group.create_task(self.write())
            await self.until(self.rounds + 2 * writers)
            yield
            await self.until(self.rounds + AFTER * writers)
            self._stop.set()

    async def until(self, rounds: int) -> None:
        """Wait until so many rounds were done."""
        async with asyncio.timeout(ROUND_S):
            while self.rounds < rounds:  # noqa: ASYNC110 - counted by several tasks
                await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Scene:
    """A server on which a bit of everything has happened, and what it said of that."""

    server: RunningServer
    paths: list[str]
    answers: dict[str, tuple[int, bytes]]

    async def says_the_same(self) -> None:
        """Ask again; searches are left out, they find newer threads too."""
        now = await answers(Api(self.server.url), self.paths)
        assert [path for path in self.answers if "search" not in path and now[path] != self.answers[path]] == []

    async def judged(self) -> list[str]:
        """Let the checker judge the whole log."""
        return judge_all(await read_topic(self.server.kafka, "agentlog.events"), Notes()).violations


@pytest.fixture(scope="module")
def scene() -> Generator[Scene]:
    """Give a server with a history."""
    with running_server() as server:
        api = Api(server.url)
        paths = asyncio.run(live(api, THREADS))
        yield Scene(server, paths, asyncio.run(answers(api, paths)))


@pytest.mark.timeout(240)
async def test_a_rebuild_under_load_fails_no_request_and_proves_the_same_rows(scene: Scene, full: bool) -> None:
    server, load = scene.server, Load(scene.server.url)
    async with load.going(8 if full else 3):
        for _ in range(10 if full else 1):
            status, said, told = await rebuilt(server)
            assert (status, "the same: " in said, "switched" in told) == (0, True, True), said + told
    assert load.failed == []
    assert load.rounds >= AFTER + 2
    await scene.says_the_same()
    assert await schemas(server.postgres) == LIVE
    status, said, _ = await rebuilt(server, "--check")
    assert status == 0, said
    assert await scene.judged() == []


@pytest.mark.timeout(240)
async def test_a_rebuild_that_is_killed_cancelled_or_interrupted_leaves_the_live_rows(scene: Scene) -> None:
    server, uri = scene.server, scene.server.postgres
    before = await rows(uri)
    with rebuilding(server) as one:
        await one.paused_in_the_middle(uri)
        status, _, told = await rebuilt(server)
        assert (status, "another rebuild is running" in told) == (1, True), told
        one.kill()
        assert "ledger_next" in await schemas(uri)
    status, told, _ = await rebuilt(server, "--check")  # removes what the killed one left
    assert (status, await schemas(uri)) == (0, LIVE), told
    with rebuilding(server) as one:
        await one.paused_in_the_middle(uri)
        status, _, told = await rebuilt(server, "--cancel")
        assert (status, "cancelled" in told, await schemas(uri)) == (0, True, LIVE), told
        one.tell(signal.SIGCONT)
        status, _, told = await one.ended()
        assert (status, "cancelled" in told, await schemas(uri)) == (130, True, LIVE), told
    with rebuilding(server) as one:
        await one.paused_in_the_middle(uri)
        one.tell(signal.SIGINT, signal.SIGCONT)
        status, _, told = await one.ended()
        assert (status, await schemas(uri)) == (130, LIVE), told
    assert await rows(uri) == before


async def damage(uri: str) -> None:
    connection = await asyncpg.connect(uri)
    try:
        await connection.execute(DAMAGE)
    finally:
        await connection.close()


@pytest.mark.timeout(240)
async def test_rows_that_differ_are_counted_and_replaced_only_when_asked_though_the_projector_dies(
    scene: Scene,
) -> None:
    server, uri = scene.server, scene.server.postgres
    whole = await rows(uri)
    await damage(uri)
    damaged = await rows(uri)
    status, said, told = await rebuilt(server)
    assert (status, "the live rows stay" in told) == (3, True), said + told
    assert "threads: 3 live rows differ (0 missing, 0 too many, 3 changed)" in said
    assert "checkpoints: 5 live rows differ (5 missing, 0 too many, 0 changed)" in said
    assert "log_index: 1 live rows differ" in said
    assert (await rows(uri), await schemas(uri)) == (damaged, LIVE)
    with rebuilding(server, "--accept-differences") as one:
        await one.paused_in_the_middle(uri)
        server.kill_role("projector,housekeeper")
        one.tell(signal.SIGCONT)
        status, said, told = await one.ended()
    assert (status, "switched" in told) == (0, True), said + told
    assert as_object(await Api(server.url).call("POST", "/threads", {}))["status"] == "idle"
    now = await rows(uri)
    assert {table for table in whole if whole[table] != now[table]} == NEW_THREAD
    assert await scene.judged() == []
