"""Tests of the index of blobs: its position never passes its rows, even if its tables were replaced meanwhile."""

from uuid import uuid4

import asyncpg
from tests.projections.projector_env import TABLES, ask, database_uri
from tests.stack_fixtures import RunningStack

from agentlog_infra.kafka.blobs import MOVE
from agentlog_infra.postgres.migrate import upgrade

POSITION = "SELECT next_offset FROM ledger.blob_positions WHERE partition = 0"
CASES = (  # position of the index, start of the reading, position after a reading up to 150
    (None, 0, 150),  # the first time
    (100, 100, 150),  # continued from the position of the index
    (120, 100, 150),  # another process moved it meanwhile
    (200, 100, 200),  # another process moved it further
    (80, 100, 80),  # a rebuild has replaced the index: 80 to 100 are not in it
    (None, 100, None),  # the tables were created again, empty
)


async def test_the_index_moves_on_only_from_where_it_stood_or_further(stack: RunningStack) -> None:
    name = f"blobs_{uuid4().hex}"
    uri = database_uri(stack.postgres, name)
    await upgrade(uri, TABLES)
    connection = await asyncpg.connect(uri)
    try:
        for stands_at, began_at, reached in CASES:
            await connection.execute("DELETE FROM ledger.blob_positions")
            if stands_at is not None:
                await connection.execute("INSERT INTO ledger.blob_positions VALUES (0, $1)", stands_at)
            await connection.execute(MOVE.format(schema="ledger"), 0, 150, began_at)
            assert await connection.fetchval(POSITION) == reached, (stands_at, began_at)
    finally:
        await connection.close()
        await ask(stack.postgres, f"DROP DATABASE {name} WITH (FORCE)")
