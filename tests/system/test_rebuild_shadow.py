"""System tests of a rebuild into a shadow schema: clients do not notice it, rows are equal, it may be interrupted."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import asyncpg
import pytest
from tests.stack_fixtures import until
from tests.system.api import Api
from tests.system.load import Writers
from tests.system.rebuilds import LIVE, Moment, Rebuild, ask, paused, rebuilding, rebuilt, schemas
from tests.system.servers import RunningServer, running_server
from tests.system.test_rebuild import answers, rows, use_most_endpoints

from agentlog_facts.json_value import as_object

THREADS = 10
STALL_S = 10.0
"""The longest time of a request while a rebuild is paused: in its switch, others wait some seconds for it."""
DAMAGE = (
    "UPDATE read_v1.threads SET status = 'busy' WHERE thread_id IN (SELECT thread_id FROM read_v1.threads LIMIT 3)",
    "DELETE FROM read_v1.checkpoints WHERE checkpoint_id IN (SELECT checkpoint_id FROM read_v1.checkpoints LIMIT 5)",
    """UPDATE ledger.log_index SET verdict = 'void' WHERE (partition, "offset") = (0, 0)""",
)
WHICH = "SELECT to_regclass('read_v1.threads')::oid"
NEW_THREAD = {"ledger.heads", "ledger.log_index", "ledger.positions", "read_v1.threads"}


@dataclass(frozen=True, slots=True)
class RebuildEnv:
    """A server with a history of most kinds of requests, and its answers."""

    server: RunningServer
    paths: list[str]
    answers: dict[str, tuple[int, bytes]]

    async def check_answers(self) -> None:
        """Check that the answers are unchanged, except for searches, which find newer threads too."""
        now = await answers(Api(self.server.url), self.paths)
        assert [path for path in self.answers if "search" not in path and now[path] != self.answers[path]] == []

    async def check_rows(self) -> None:
        """Check that no shadow schema is left and that the rows are those of a new fold."""
        status, said, told = await rebuilt(self.server, "--check")
        assert (status, await schemas(self.server.postgres)) == (0, LIVE), said + told

    async def judged(self, writers: Writers | None = None) -> None:
        """Run the checker over the whole log, its rows and the recorded answers."""
        await (writers or Writers([])).judged(self.server.kafka, self.server.postgres)


@pytest.fixture(scope="module")
def env() -> Generator[RebuildEnv]:
    """Yield a server with a history."""
    with running_server() as server:
        api = Api(server.url)
        paths = asyncio.run(use_most_endpoints(api, THREADS))
        yield RebuildEnv(server, paths, asyncio.run(answers(api, paths)))


@pytest.mark.timeout(240)
async def test_a_rebuild_under_load_fails_no_request_and_proves_the_same_rows(env: RebuildEnv, full: bool) -> None:
    server, writers = env.server, Writers([env.server.url])
    many = 8 if full else 3
    async with writers.going(many):
        for _ in range(10 if full else 1):
            before = writers.rounds
            status, said, told = await rebuilt(server)
            assert (status, "the same: " in said, "switched" in told) == (0, True, True), said + told
            assert writers.rounds >= before + many, "nobody wrote while it went on"
    assert writers.failed == []
    await env.check_answers()
    await env.check_rows()
    await env.judged(writers)


@pytest.mark.timeout(240)
async def test_a_rebuild_that_is_killed_cancelled_or_interrupted_leaves_the_live_rows(env: RebuildEnv) -> None:
    server, uri = env.server, env.server.postgres
    before = await rows(uri)
    async with paused(server, "made") as one:
        status, _, told = await rebuilt(server)
        assert (status, "another rebuild is running" in told) == (1, True), told
        one.kill()
        assert "ledger_next" in await schemas(uri)
    await env.check_rows()  # and the leftovers of the killed rebuild are removed
    async with paused(server, "made") as one:
        status, _, told = await rebuilt(server, "--cancel")
        assert (status, "cancelled" in told, await schemas(uri)) == (0, True, LIVE), told
        one.signal(signal.SIGCONT)
        status, _, told = await one.ended()
        assert (status, "cancelled" in told, await schemas(uri)) == (130, True, LIVE), told
    async with paused(server, "made") as one:
        one.signal(signal.SIGINT, signal.SIGCONT)
        status, _, told = await one.ended()
        assert (status, await schemas(uri)) == (130, LIVE), told
    assert await rows(uri) == before


Way: TypeAlias = Literal["kill", "cancel", "interrupt"]
WAYS: tuple[Way, ...] = ("kill", "cancel", "interrupt")
MOMENTS: tuple[Moment, ...] = ("made", "folding", "comparing", "switching", "switched")
FULL: list[tuple[Moment, Way]] = [(moment, way) for moment in MOMENTS for way in WAYS]
SMALL: list[tuple[Moment, Way]] = [
    ("folding", "kill"),
    ("comparing", "interrupt"),
    ("switching", "cancel"),
    ("switching", "kill"),
    ("switched", "cancel"),
]


async def killed(server: RunningServer, one: Rebuild, moment: Moment) -> None:
    one.kill()
    await nothing_is_left(server)


async def nothing_is_left(server: RunningServer) -> None:
    """Remove the leftovers of an ended rebuild, and check that none remain."""
    status, _, told = await rebuilt(server, "--cancel")
    assert (status, await schemas(server.postgres)) == (0, LIVE), told


async def cancelled(server: RunningServer, one: Rebuild, moment: Moment) -> None:
    status, _, told = await rebuilt(server, "--cancel")
    due = "the rebuilt rows are live" if moment == "switched" else "the live rows are as they were"
    assert (status, due in told, await schemas(server.postgres)) == (0, True, LIVE), told
    one.signal(signal.SIGCONT)
    status, _, told = await one.ended()
    due, code = ("switched", 0) if moment == "switched" else ("cancelled", 130)
    assert (status, due in told) == (code, True), told


async def interrupted(server: RunningServer, one: Rebuild, moment: Moment) -> None:
    one.signal(signal.SIGINT, signal.SIGCONT)
    status, _, told = await one.ended()
    assert status == 130, told
    if moment == "switched":  # it may not have noticed the cancel yet, and then does not clean up
        await nothing_is_left(server)
    else:
        assert "switched" not in told
    assert await schemas(server.postgres) == LIVE


End: TypeAlias = Callable[[RunningServer, Rebuild, Moment], Awaitable[None]]
ENDS: dict[Way, End] = {"kill": killed, "cancel": cancelled, "interrupt": interrupted}


@pytest.mark.timeout(400)
async def test_a_rebuild_that_stands_still_and_ends_at_any_moment_under_load_is_noticed_by_nobody(
    env: RebuildEnv, full: bool
) -> None:
    server, writers = env.server, Writers([env.server.url])
    async with writers.going(3):
        for moment, way in FULL if full else SMALL:
            async with paused(server, moment) as one:
                which = await ask(server.postgres, WHICH)
                await writers.more_rounds(3, STALL_S)
                await ENDS[way](server, one, moment)
            assert await ask(server.postgres, WHICH) == which, (moment, way)
    assert writers.failed == []
    await env.check_rows()
    await env.check_answers()
    await env.judged(writers)


HITS = 5
"""The most times that a rebuild may be past the interrupted stage, on a busy machine."""
SERVERS = {"postgres": "/bin/postgres -D ", "broker": "-m agentlog_broker "}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", SERVERS)
async def test_a_rebuild_whose_database_or_log_is_killed_goes_on_and_proves_the_same_rows(
    name: str, env: RebuildEnv, full: bool
) -> None:
    server, writers = env.server, Writers([env.server.url])
    interrupted = 0
    async with writers.going(3):
        for moment in MOMENTS if full else HITS * MOMENTS[1:2]:
            told = await rebuilt_although_killed(server, moment, SERVERS[name])
            interrupted += "interrupted, continuing" in told
            if interrupted and not full:
                break
    assert interrupted, "it was over before it noticed"
    await env.check_rows()
    await env.check_answers()
    await env.judged(writers)


async def rebuilt_although_killed(server: RunningServer, moment: Moment, mark: str) -> str:
    """Kill a server at a stage of a rebuild; return the output of the rebuild, which succeeds all the same."""
    async with paused(server, moment) as one:
        pids = [pid for pid, command in server.family().items() if mark in command]
        os.kill(min(pids), signal.SIGKILL)  # a process that was just forked has no command line of its own yet
        one.signal(signal.SIGCONT)
        status, said, told = await one.ended()
    assert (status, "the same: " in said, "switched" in told) == (0, True, True), said + told
    return told


@pytest.mark.timeout(240)
async def test_rows_that_are_still_caught_up_with_are_compared_and_never_dropped(env: RebuildEnv) -> None:
    server, uri = env.server, env.server.postgres
    which = await ask(uri, WHICH)
    [projector] = server.pids("agentlog_processors", "projector,housekeeper")
    os.kill(projector, signal.SIGSTOP)
    try:
        await ask(uri, "UPDATE ledger.positions SET present = false")
        status, said, told = await rebuilt(server, "--check")
        assert (status, "the same: " in said, await ask(uri, WHICH)) == (0, True, which), said + told
        status, said, told = await rebuilt(server)
        assert (status, "switched" in told) == (0, True), said + told
    finally:
        os.kill(projector, signal.SIGCONT)
    await until(lambda: answers_200(server))


@pytest.mark.timeout(240)
async def test_a_rebuild_in_place_that_is_cancelled_ends_and_the_projector_goes_on_where_it_stopped(
    env: RebuildEnv,
) -> None:
    server, uri = env.server, env.server.postgres
    before = await rows(uri)
    async with paused(server, "in place", "--in-place") as one:
        status, _, told = await rebuilt(server, "--cancel")
        assert (status, "cancelled; it folded in place" in told) == (0, True), told
        await until(lambda: answers_200(server), within_secs=STALL_S)
        one.signal(signal.SIGCONT)
        status, _, told = await one.ended()
        assert (status, "cancelled" in told) == (130, True), told

    async def only_the_new_thread_differs() -> bool:
        now = await rows(uri)
        return {table for table in before if before[table] != now[table]} == NEW_THREAD

    # the answer says that one partition is folded, the others may take a moment longer
    await until(only_the_new_thread_differs, within_secs=STALL_S)
    status, _, told = await rebuilt(server, "--cancel")
    assert (status, "no rebuild to cancel" in told) == (0, True), told
    await env.check_rows()


async def answers_200(server: RunningServer) -> bool:
    status, _ = await Api(server.url).raw("POST", "/threads", b"{}")
    return status == 200


@pytest.mark.full
@pytest.mark.timeout(240)
async def test_a_cancel_that_comes_behind_the_switch_says_so_whoever_still_reads_what_was_replaced(
    env: RebuildEnv,
) -> None:
    server, uri = env.server, env.server.postgres
    reader = await asyncpg.connect(uri)
    try:
        await reader.execute("BEGIN; SELECT FROM read_v1.threads")
        with rebuilding(server) as one:
            assert await one.pause_at(uri, "switched")
            one.signal(signal.SIGCONT)
            status, _, told = await rebuilt(server, "--cancel")
            assert (status, "Traceback" in told) == (6, False), told
            assert "the rebuilt rows are live" in told
            assert "read_v1_old" in told
            status, _, told = await one.ended()
            assert (status, "switched" in told) == (0, True), told
        await reader.execute("ROLLBACK")
    finally:
        await reader.close()
    status, _, told = await rebuilt(server, "--cancel")
    assert (status, await schemas(uri)) == (0, LIVE), told
    await env.check_rows()


@pytest.mark.timeout(240)
async def test_rows_that_differ_are_counted_and_replaced_only_when_asked_though_the_projector_dies(
    env: RebuildEnv,
) -> None:
    server, uri = env.server, env.server.postgres
    whole = await rows(uri)
    for statement in DAMAGE:
        await ask(uri, statement)
    damaged = await rows(uri)
    status, said, told = await rebuilt(server)
    assert (status, "the live rows stay" in told) == (3, True), said + told
    assert "threads: 3 live rows differ (0 missing, 0 too many, 3 changed)" in said
    assert "checkpoints: 5 live rows differ (5 missing, 0 too many, 0 changed)" in said
    assert "log_index: 1 live rows differ" in said
    assert (await rows(uri), await schemas(uri)) == (damaged, LIVE)
    async with paused(server, "made", "--accept-differences") as one:
        server.kill_role("projector,housekeeper")
        one.signal(signal.SIGCONT)
        status, said, told = await one.ended()
    assert (status, "switched" in told) == (0, True), said + told
    assert as_object(await Api(server.url).call("POST", "/threads", {}))["status"] == "idle"
    now = await rows(uri)
    assert {table for table in whole if whole[table] != now[table]} == NEW_THREAD
    await env.judged()
