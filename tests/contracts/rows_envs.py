"""Implementations of `WorkerQueries` and `CommandContexts`: rows in memory, and in PostgreSQL by a real projector."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from tests.facts.commits import Log
from tests.fakes.memory_command_contexts import MemoryCommandContexts
from tests.fakes.memory_rows import MemoryRows, at_once
from tests.fakes.memory_worker_queries import MemoryWorkerQueries
from tests.projections.projector_env import MemoryTail, ProjectorEnv, env_in

from agentlog_facts.envelope import Draft, LogPosition
from agentlog_facts.ids import Key
from agentlog_projections.queries.command_context import CommandContexts
from agentlog_projections.queries.postgres_command_context import PostgresCommandContexts
from agentlog_projections.queries.postgres_worker import PostgresWorkerQueries
from agentlog_projections.queries.worker import WorkerQueries


class RowsEnv(Protocol):
    """Both ports over the same rows, and functions that append facts or make rows unusable."""

    queries: WorkerQueries
    contexts: CommandContexts

    def partition_of(self, thread: str) -> int:
        """Return the partition of a thread."""
        ...

    async def given(self, *drafts: Draft) -> list[LogPosition]:
        """Append commits and wait until they are projected."""
        ...

    async def build_anew(self, partition: int) -> None:
        """Mark the rows of a partition as being built."""
        ...

    async def quarantine(self, thread: str) -> None:
        """Mark the rows of a thread as quarantined."""
        ...

    async def expect(self, partitions: int) -> None:
        """Set the number of partitions."""
        ...


@dataclass
class MemoryEnv:
    """Rows in memory, folded under the real guard."""

    rows: MemoryRows = field(default_factory=lambda: MemoryRows(partitions={0: True, 1: True}))
    tail: MemoryTail = field(default_factory=MemoryTail)
    logs: defaultdict[Key, Log] = field(default_factory=lambda: defaultdict[Key, Log](Log))

    def __post_init__(self) -> None:
        asking = at_once(lambda: self.rows)
        self.queries: WorkerQueries = MemoryWorkerQueries(asking)
        self.contexts: CommandContexts = MemoryCommandContexts(asking)

    def partition_of(self, thread: str) -> int:
        return self.tail.partition_of(Key(thread))

    async def given(self, *drafts: Draft) -> list[LogPosition]:
        places = [self.tail.append(draft) for draft in drafts]
        for place, draft in zip(places, drafts, strict=True):
            self.rows.fold(place, draft, self.logs[draft.key].append(draft))
        return places

    async def build_anew(self, partition: int) -> None:
        self.rows.partitions[partition] = False

    async def quarantine(self, thread: str) -> None:
        self.rows.quarantined.add(thread)

    async def expect(self, partitions: int) -> None:
        self.rows.expected = partitions


class PostgresEnv:
    """The tables of PostgreSQL."""

    def __init__(self, env: ProjectorEnv) -> None:
        self._env = env
        self.queries: WorkerQueries = PostgresWorkerQueries(env.pool)
        self.contexts: CommandContexts = PostgresCommandContexts(env.pool)

    def partition_of(self, thread: str) -> int:
        return self._env.log.partition_of(Key(thread))

    async def given(self, *drafts: Draft) -> list[LogPosition]:
        places = self._env.append(*drafts)
        async with self._env.projector():
            await self._env.folded()
            await self._env.until(lambda: self._env.caught_up(0))
            await self._env.until(lambda: self._env.caught_up(1))
        return places

    async def build_anew(self, partition: int) -> None:
        await self._env.pool.execute("UPDATE ledger.positions SET present = false WHERE partition = $1", partition)

    async def quarantine(self, thread: str) -> None:
        row = "'threads', $1, 0, 0, 'error', 1, 1, 1, '{}'"
        await self._env.pool.execute(f"INSERT INTO ledger.quarantine VALUES ({row})", thread)

    async def expect(self, partitions: int) -> None:
        await self._env.pool.execute("UPDATE ledger.positions SET partitions = $1", partitions)


@asynccontextmanager
async def memory(database: str) -> AsyncGenerator[RowsEnv]:
    """Yield rows in memory."""
    yield MemoryEnv()


@asynccontextmanager
async def postgres(database: str) -> AsyncGenerator[RowsEnv]:
    """Yield tables; `database` is the address of a migrated one."""
    async with env_in(database) as env:
        yield PostgresEnv(env)


Made = Callable[[str], AbstractAsyncContextManager[RowsEnv]]
KINDS: dict[str, Made] = {"memory": memory, "postgres": postgres}
