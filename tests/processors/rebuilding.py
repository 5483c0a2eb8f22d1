"""A database with rows of three threads, and both ways to rebuild them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

from tests.projections.world import TABLES, MemoryTail, WallClock, World, ask, database_uri, draft, world_in
from tests.stack_fixtures import RunningStack

from agentlog_facts.envelope import Draft
from agentlog_facts.ids import ThreadId
from agentlog_facts.ports import EventTail, RawRecord
from agentlog_facts.thread import ThreadCreated
from agentlog_infra.migrate import upgrade, whole
from agentlog_processors.rebuild_beside import Wish, rebuild_beside
from agentlog_processors.rebuild_in_place import rebuild_in_place
from agentlog_processors.rebuild_progress import Progress
from agentlog_processors.rebuild_tries import Tools
from agentlog_projections.announce import Silent
from agentlog_projections.beside import connect_plain, has_rows
from agentlog_projections.fold import Outside
from agentlog_projections.parity import Parity

NEVER = timedelta(days=10_000)
WHICH = "SELECT 'read_v1.threads'::regclass::oid"
SIGNED = "SELECT obj_description('ledger'::regnamespace, 'pg_namespace')"
END_ALL = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
 WHERE application_name = 'agentlog rebuild' AND datname = current_database()
"""
SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(ledger|read_v1)' ORDER BY 1"


@asynccontextmanager
async def three_threads(stack: RunningStack) -> AsyncGenerator[World]:
    """Give a database of its own, with three threads folded into it."""
    name = f"rebuilt_{uuid4().hex}"
    uri = database_uri(stack.postgres, name)
    await upgrade(uri, TABLES)
    async with world_in(uri) as made:
        await made.given(*(created(f"t{number}") for number in range(3)))
        yield made
    await ask(stack.postgres, f"DROP DATABASE {name} WITH (FORCE)")


def created(thread_id: str) -> Draft:
    return draft(thread_id, ThreadCreated(ThreadId(thread_id), {"of": thread_id}))


def tools(world: World, tail: EventTail | None, erased_after: timedelta, said: list[str]) -> Tools:
    outside = Outside(tail or world.log.reader(), world.log.partition_of, WallClock(), Silent())
    name = f"rebuild-{uuid4()}"
    return Tools(world.uri, outside, whole(TABLES), erased_after, name, Progress(False), said.append)


async def rebuilt(
    world: World, wish: Wish = "switch", erased_after: timedelta = NEVER, tail: EventTail | None = None
) -> tuple[Parity, list[str]]:
    """Rebuild beside the live rows; return what was found and said."""
    said: list[str] = []
    return await rebuild_beside(tools(world, tail, erased_after, said), wish), said


async def rebuilt_in_place(world: World, tail: EventTail | None = None, *, dropping: bool) -> None:
    """Rebuild into the live tables."""
    await rebuild_in_place(tools(world, tail, NEVER, []), dropping=dropping)


async def rows_are_there(world: World) -> bool:
    """Tell whether a rebuild would keep the live rows."""
    connection = await connect_plain(world.uri)
    try:
        return await has_rows(connection)
    finally:
        await connection.close()


async def schemas(world: World) -> list[str]:
    return [row[0] for row in await world.pool.fetch(SCHEMAS)]


async def lose_connections(world: World) -> None:
    """End every connection of a rebuild."""
    await world.pool.execute(END_ALL)


class Interrupting(MemoryTail):
    """Gives records one by one, and does something before it gives the second."""

    def __init__(self, log: MemoryTail, doing: Callable[[], Awaitable[object]]) -> None:
        super().__init__(log.partitions, log.records)
        self.doing = [doing]

    async def poll(self, max_records: int, patience: timedelta) -> Sequence[RawRecord]:
        found = await super().poll(1, patience)
        if self.doing and sum(self.positions.values()) > 1:
            await self.doing.pop()()
        return found
