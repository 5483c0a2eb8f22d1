"""Fixture environment of rebuilds: a database with rows of three threads, and both kinds of rebuild."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

from tests.projections.projector_env import (
    TABLES,
    MemoryTail,
    ProjectorEnv,
    WallClock,
    ask,
    database_uri,
    draft,
    env_in,
)
from tests.stack_fixtures import RunningStack

from agentlog_facts.envelope import Draft
from agentlog_facts.ids import ThreadId
from agentlog_facts.ports import EventTail, RawRecord
from agentlog_facts.thread import ThreadCreated
from agentlog_infra.postgres.migrate import schema_statements, upgrade
from agentlog_processors.jobs.rebuild_in_place import rebuild_in_place
from agentlog_processors.jobs.rebuild_progress import Progress
from agentlog_processors.jobs.rebuild_session import RebuildDependencies
from agentlog_processors.jobs.rebuild_shadow import Mode, rebuild_shadow
from agentlog_projections.projector.announcer import NullAnnouncer
from agentlog_projections.projector.session import FoldPorts
from agentlog_projections.rebuild.parity import Parity
from agentlog_projections.rebuild.shadow_schema import connect_plain, has_rows

NEVER = timedelta(days=10_000)
WHICH = "SELECT 'read_v1.threads'::regclass::oid"
SIGNED = "SELECT obj_description('ledger'::regnamespace, 'pg_namespace')"
END_ALL = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
 WHERE application_name = 'agentlog rebuild' AND datname = current_database()
"""
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(ledger|read_v1)' ORDER BY 1"


@asynccontextmanager
async def three_threads(stack: RunningStack) -> AsyncGenerator[ProjectorEnv]:
    """Yield an own database with three threads folded into it."""
    name = f"rebuilt_{uuid4().hex}"
    uri = database_uri(stack.postgres, name)
    await upgrade(uri, TABLES)
    async with env_in(uri) as made:
        await made.given(*(created(f"t{number}") for number in range(3)))
        yield made
    await ask(stack.postgres, f"DROP DATABASE {name} WITH (FORCE)")


def created(thread_id: str) -> Draft:
    return draft(thread_id, ThreadCreated(ThreadId(thread_id), {"of": thread_id}))


def dependencies(
    env: ProjectorEnv, tail: EventTail | None, erased_after: timedelta, printed: list[str]
) -> RebuildDependencies:
    ports = FoldPorts(tail or env.log.reader(), env.log.partition_of, WallClock(), NullAnnouncer())
    name = f"rebuild-{uuid4()}"
    return RebuildDependencies(
        env.uri, ports, schema_statements(TABLES), erased_after, name, Progress(False), printed.append
    )


async def rebuilt(
    env: ProjectorEnv, mode: Mode = "switch", erased_after: timedelta = NEVER, tail: EventTail | None = None
) -> tuple[Parity, list[str]]:
    """Rebuild into a shadow schema; return the comparison and the printed lines."""
    printed: list[str] = []
    return await rebuild_shadow(dependencies(env, tail, erased_after, printed), mode), printed


async def rebuilt_in_place(env: ProjectorEnv, tail: EventTail | None = None, *, dropping: bool) -> None:
    """Rebuild into the live tables."""
    await rebuild_in_place(dependencies(env, tail, NEVER, []), dropping=dropping)


async def rows_are_there(env: ProjectorEnv) -> bool:
    """Return whether a rebuild would keep the live rows."""
    connection = await connect_plain(env.uri)
    try:
        return await has_rows(connection)
    finally:
        await connection.close()


async def schemas(env: ProjectorEnv) -> list[str]:
    return [row[0] for row in await env.pool.fetch(SCHEMAS)]


async def lose_connections(env: ProjectorEnv) -> None:
    """End all connections of rebuilds."""
    await env.pool.execute(END_ALL)


class Interrupting(MemoryTail):
    """Returns records one by one, and runs a callback before the second."""

    def __init__(self, log: MemoryTail, doing: Callable[[], Awaitable[object]]) -> None:
        super().__init__(log.partitions, log.records)
        self.doing = [doing]

    async def poll(self, max_records: int, patience: timedelta) -> Sequence[RawRecord]:
        found = await super().poll(1, patience)
        if self.doing and sum(self.positions.values()) > 1:
            await self.doing.pop()()
        return found
