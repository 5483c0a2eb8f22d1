"""A fixture environment of real processes: embedded stack, projector with housekeeper, workers. Facts make its runs."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import asyncpg
from tests.stack_fixtures import RunningStack, open_folder, read_ready, start_stack, stop_stack

import agentlog_infra
from agentlog_commands.command import Accepted, Decision
from agentlog_commands.identity import digest
from agentlog_commands.runs import CreateRun
from agentlog_commands.submit import Intent, Submitted, Submitter
from agentlog_commands.threads import thread_stream
from agentlog_facts.envelope import ANONYMOUS, Cause
from agentlog_facts.ids import Key, RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject, as_object, load
from agentlog_facts.thread import CancelAction, RunCancelRequested, RunCreated, ThreadState
from agentlog_infra.adapters import open_adapters
from agentlog_infra.kafka import topics
from agentlog_infra.postgres import migrate
from agentlog_infra.process.child import child_environment
from agentlog_infra.redis.client import redis_client
from agentlog_infra.redis.dead_workers import announcer
from agentlog_infra.redis.feed import RedisFeed
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import embedded_login
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_postgres.connection import Pool, open_pool
from agentlog_projections.models.registry import TYPES
from agentlog_projections.projector.ledger import Ledger

LIMIT_S = 40.0
EXAMPLES = Path(agentlog_infra.__file__).parent / "examples" / "langgraph.json"
FAST = {
    "AGENTLOG_LEASE_TTL_SECS": "1",
    "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "1",
    "BG_JOB_MAX_RETRIES": "1",
    "AGENTLOG_PARTITIONS": "2",
    "AGENTLOG_REPLICATION_FACTOR": "1",
    "AGENTLOG_MIN_INSYNC_REPLICAS": "1",
}
"""Times shortened for faults; only durations differ from the defaults."""


@dataclass
class Role:
    """One role process."""

    process: "subprocess.Popen[bytes]"
    name: str

    def kill(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait(LIMIT_S)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Stop the process and return its exit status."""
        self.process.terminate()
        return self.process.wait(LIMIT_S)


@dataclass(frozen=True)
class RolesEnv:
    """Addresses of the servers, and methods that create runs and inspect them."""

    folder: Path
    settings: Settings
    environment: Mapping[str, str]
    pool: Pool
    submitter: Submitter
    feed: RedisFeed
    roles: list[Role] = field(default_factory=list[Role])

    @property
    def trace(self) -> list[dict[str, object]]:
        """Return the trace lines of the steps of the example graph."""
        file = self.folder / "trace"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def open_gate(self, name: str) -> None:
        """Open a gate for the steps that wait for it."""
        (self.folder / "gates" / name).touch()

    def start(self, roles: str, **environment: str) -> Role:
        """Start a process with these roles and wait until it is ready; it ends with the test."""
        role = start_role(roles, {**self.environment, **environment})
        self.roles.append(role)
        return role

    async def create(self, graph_id: str, values: JsonObject, thread_id: str | None = None) -> tuple[ThreadId, RunId]:
        """Queue a run, on a new thread unless one is named."""
        ids = SystemIds()
        thread, run = ThreadId(thread_id or ids.uuid7()), RunId(ids.uuid7())
        assistant: JsonObject = {"assistant_id": graph_id, "graph_id": graph_id, "version": 1, "config": {}}
        created = RunCreated(run, thread, assistant | {"context": {}, "metadata": {}}, {}, kwargs(values), "enqueue")

        async def decide() -> Decision:
            return CreateRun(created, SystemClock().now(), {}).decide(ThreadState(exists=thread_id is not None))

        await self.submit(thread, decide)
        return thread, run

    async def cancel(self, thread: ThreadId, run: RunId, action: CancelAction, within: timedelta) -> None:
        """Request a stop of a claimed run."""
        deadline = SystemClock().now() + within
        error: JsonObject = {"error": "UserInterrupt", "message": "stopped by a test"}
        asked = RunCancelRequested(run, action, deadline, error)

        async def decide() -> Decision:
            version = await self.pool.fetchval("SELECT version FROM read_v1.threads WHERE thread_id = $1", thread)
            return Accepted(thread_stream(thread), (asked,), {thread_stream(thread): version})

        await self.submit(thread, decide)

    async def submit(self, thread: ThreadId, decide: Callable[[], Awaitable[Decision]]) -> None:
        """Append a decision; fail the test unless it is accepted."""
        event_id = SystemIds().uuid7()
        intent = Intent(Key(thread), event_id, digest(event_id.encode()), Cause(ANONYMOUS, event_id))
        outcome = await self.submitter.submit(intent, decide, SystemClock().monotonic() + LIMIT_S)
        assert isinstance(outcome, Submitted), outcome

    async def row(self, run: RunId) -> asyncpg.Record:
        """Return the run's row."""
        found = await self.pool.fetchrow("SELECT * FROM read_v1.runs WHERE run_id = $1", run)
        assert found is not None
        return found

    async def values(self, thread: ThreadId) -> Json:
        """Return the thread's values from its row."""
        found = await self.pool.fetchval('SELECT "values"::text FROM read_v1.threads WHERE thread_id = $1', thread)
        return load(found) if isinstance(found, str) else None

    async def done(self, thread: ThreadId) -> Json:
        """Return the steps of the example graph that the thread's values list."""
        return as_object(await self.values(thread))["done"]

    async def until(self, run: RunId, *statuses: str) -> asyncpg.Record:
        """Wait until the run's row has one of these statuses."""
        never = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(LIMIT_S):
            while (row := await self.row(run))["status"] not in statuses:
                await asyncio.wait({never}, timeout=0.02)
        return row

    async def until_traced(self, run: RunId, step: str, edge: str, times: int = 1) -> None:
        """Wait until a step of the run has started or ended in this number of attempts."""
        await self._until(lambda: len(self._lines(run, step, edge)) >= times)

    async def until_traced_by_others(self, run: RunId, step: str, role: Role) -> None:
        """Wait until a step of the run has started in another process."""
        await self._until(lambda: any(line["pid"] != role.process.pid for line in self._lines(run, step, "start")))

    def _lines(self, run: RunId, step: str, edge: str) -> list[dict[str, object]]:
        wanted = (run, step, edge)
        return [line for line in self.trace if (line["run_id"], line["step"], line["edge"]) == wanted]

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Poll a file until a condition holds; a file sends no event."""
        never = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(LIMIT_S):
            while not holds():
                await asyncio.wait({never}, timeout=0.02)

    async def flush_redis(self) -> None:
        """Empty Redis."""
        client = redis_client(self.settings)
        await client.execute_command("FLUSHALL")
        await client.aclose()

    async def announce_death(self, worker: str) -> None:
        """Announce a dead worker, as a supervisor does."""
        await announcer(self.settings)(worker)

    async def until_saved(self, thread: ThreadId, checkpoints: int) -> None:
        """Wait until the log has accepted this number of checkpoints of a thread."""
        never = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(LIMIT_S):
            while ",".join(types for _, types, _ in await self.facts(thread)).count("CheckpointSaved") < checkpoints:
                await asyncio.wait({never}, timeout=0.05)

    async def facts(self, thread: ThreadId) -> list[tuple[str, str, str]]:
        """Return (stream's category, types, verdict) of every commit of the thread, in order."""
        sql = 'SELECT stream, types, verdict FROM ledger.log_index WHERE key = $1 ORDER BY "offset"'
        rows = await self.pool.fetch(sql, thread)
        return [(row["stream"].partition("-")[0], ",".join(row["types"]), row["verdict"]) for row in rows]


def kwargs(values: JsonObject) -> JsonObject:
    """Return the kwargs of a run as the gateway writes them."""
    return {
        "input": values,
        "command": None,
        "config": {"tags": [], "configurable": {}, "metadata": {}},
        "context": {},
        "stream_mode": ["values"],
        "interrupt_before": None,
        "interrupt_after": None,
        "temporary": False,
        "subgraphs": False,
        "resumable": False,
        "durability": "sync",  # these tests kill workers and count steps: nothing may be unacknowledged
    }


@contextmanager
def servers() -> Generator[RunningStack]:
    """Yield log, PostgreSQL and Valkey in an own folder."""
    folder = open_folder()
    process = start_stack(folder)
    try:
        yield read_ready(process, folder)
    finally:
        stop_stack(process)
        shutil.rmtree(folder)


def start_role(roles: str, environment: Mapping[str, str]) -> Role:
    """Start a process with these roles and wait until it is ready."""
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "agentlog_processors", roles, "--ready-fd", str(write)],
        env=child_environment({**os.environ, **environment}),
        pass_fds=(write,),
        start_new_session=True,
    )
    os.close(write)
    with os.fdopen(read) as ready:
        assert '"pid"' in ready.readline(), f"{roles} did not get ready"
    return Role(process, roles)


def surroundings(stack: RunningStack) -> dict[str, str]:
    """Return the environment of the role processes."""
    return {
        **FAST,
        **stack.login,
        "AGENTLOG_KAFKA_BOOTSTRAP": stack.kafka,
        "DATABASE_URI": stack.postgres,
        "REDIS_URI": stack.redis,
        "AGENTLOG_CONFIG": str(EXAMPLES),
        "AGENTLOG_EXAMPLE_TRACE": str(stack.data_dir / "trace"),
        "AGENTLOG_EXAMPLE_GATES": str(stack.data_dir / "gates"),
    }


def settings_of(stack: RunningStack) -> Settings:
    """Return the settings for the test's own connections to the servers."""
    login = embedded_login(stack.data_dir / "broker.secret")
    places = {**login, "kafka_bootstrap": stack.kafka, "database_uri": stack.postgres, "redis_uri": stack.redis}
    return Settings.load({**places, "partitions": 2, "replication_factor": 1, "min_insync_replicas": 1})


async def prepare(stack: RunningStack) -> None:
    """Create topics, tables and the folder of the gates."""
    (stack.data_dir / "gates").mkdir()
    await topics.apply(settings_of(stack))
    await migrate.upgrade(stack.postgres, [migrate.Tables(model.name, model.version, model.ddl) for model in TYPES])


@asynccontextmanager
async def open_roles_env(stack: RunningStack) -> AsyncGenerator[RolesEnv]:
    """Connect to the servers; kill all started roles at the end."""
    settings = settings_of(stack)
    async with _connected(settings) as (pool, feed, submitter):
        env = RolesEnv(stack.data_dir, settings, surroundings(stack), pool, submitter, feed)
        try:
            yield env
        finally:
            for role in env.roles:
                role.kill()


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncGenerator[tuple[Pool, RedisFeed, Submitter]]:
    async with AsyncExitStack() as stack:
        pool = await open_pool(settings.database_uri or "", 4)
        stack.push_async_callback(pool.close)
        adapters = await open_adapters(settings, "test", pool, Ledger(pool), stack)
        yield pool, adapters.feed, adapters.submitter
