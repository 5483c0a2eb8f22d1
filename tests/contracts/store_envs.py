"""Implementations of `StoreReads`: a fold in memory, and a table of PostgreSQL that a real projector fills."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.fakes.memory_store import MemoryStore
from tests.projections.projector_env import draft, env_in

from agentlog_commands.store import WriteItems
from agentlog_facts.store import StoreItemFact, store_key
from agentlog_facts.store_ports import Namespace, StoreRows
from agentlog_projections.models.store import StoreItems

Write = Callable[[Sequence[StoreItemFact]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class StoreEnv:
    """A store to read, a function that commits facts of one namespace to it, and one that quarantines a namespace."""

    reads: StoreRows
    write: Write
    quarantine: Callable[[Namespace], Awaitable[object]]
    partition_of: Callable[[Namespace], int]


@asynccontextmanager
async def memory(database: str) -> AsyncGenerator[StoreEnv]:
    """Yield a fold in memory."""
    store = MemoryStore()

    async def write(facts: Sequence[StoreItemFact]) -> None:
        at = draft("any").occurred_at
        for fact in facts:
            store.fold(fact, at)

    async def quarantine(namespace: Namespace) -> None:
        store.quarantined.add(namespace)

    yield StoreEnv(store, write, quarantine, lambda _: 0)


@asynccontextmanager
async def postgres(database: str) -> AsyncGenerator[StoreEnv]:
    """Yield the table of a projector that folds a log in memory; `database` is the address of a migrated one."""
    async with env_in(database) as env, env.projector():
        await env.until(lambda: env.caught_up(0))
        await env.until(lambda: env.caught_up(1))

        async def write(facts: Sequence[StoreItemFact]) -> None:
            decision = WriteItems(facts[0].namespace, tuple(facts)).decide()
            env.append(draft(store_key(facts[0].namespace), *decision.facts, stream=decision.stream))
            await env.folded()

        async def quarantine(namespace: Namespace) -> None:
            row = "'store_items', $1, 0, 0, 'error', 1, 1, 1, '{}'"
            await env.pool.execute(f"INSERT INTO ledger.quarantine VALUES ({row})", store_key(namespace))

        yield StoreEnv(
            StoreItems(env.pool), write, quarantine, lambda namespace: env.log.partition_of(store_key(namespace))
        )
