"""What keeps `StoreReads`: a fold in memory, and the projected table in PostgreSQL behind a real projector."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.fakes.memory_store import MemoryStore
from tests.projections.world import draft, world_in

from agentlog_commands.store_items import WriteItems
from agentlog_facts.store_access import StoreReads
from agentlog_facts.store_item import StoreItemFact, store_key
from agentlog_projections.store_items import StoreItems

Write = Callable[[Sequence[StoreItemFact]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class StoreWorld:
    """A store to read, and a way to get facts of one namespace there in one commit."""

    reads: StoreReads
    write: Write


@asynccontextmanager
async def memory(database: str) -> AsyncGenerator[StoreWorld]:
    """Give a fold in memory."""
    store = MemoryStore()

    async def write(facts: Sequence[StoreItemFact]) -> None:
        at = draft("any").occurred_at
        for fact in facts:
            store.fold(fact, at)

    yield StoreWorld(store, write)


@asynccontextmanager
async def postgres(database: str) -> AsyncGenerator[StoreWorld]:
    """Give the table of a projector that folds a log in memory; `database` is the address of a migrated one."""
    async with world_in(database) as world, world.projector():
        await world.until(lambda: world.ledger.present(0))
        await world.until(lambda: world.ledger.present(1))

        async def write(facts: Sequence[StoreItemFact]) -> None:
            decision = WriteItems(facts[0].namespace, tuple(facts)).decide()
            world.append(draft(store_key(facts[0].namespace), *decision.facts, stream=decision.stream))
            await world.folded()

        yield StoreWorld(StoreItems(world.pool), write)
