"""Decides how read models reach PostgreSQL, and which of its faults may pass by themselves."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

import asyncpg

from agentlog_facts.errors import Unavailable

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
PooledConnection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Executor: TypeAlias = "Connection | PooledConnection"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

CONNECT_SECS = 10.0
STATEMENT_SECS = 60.0
IDLE_SECS = 3.0

_MISSING = (
    asyncpg.UndefinedTableError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedColumnError,
    asyncpg.InvalidCatalogNameError,
)
"""Tables or database are not (or no longer) there: migrations or a rebuild bring them back."""

TRANSIENT = (
    OSError,
    TimeoutError,
    ssl.SSLError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.TransactionRollbackError,  # deadlock and serialization failures
    asyncpg.InsufficientResourcesError,  # disk full, out of memory, too many connections
    asyncpg.OperatorInterventionError,  # shut down, restart, database dropped
    asyncpg.PostgresSystemError,
    asyncpg.ObjectInUseError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidTransactionStateError,  # a standby that became reachable first, time-outs of transactions
    asyncpg.InternalServerError,
    asyncpg.OutdatedSchemaCacheError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.InvalidAuthorizationSpecificationError,
    *_MISSING,
)
"""Faults that say nothing about the data: the same statement may succeed later or on another connection."""


@contextmanager
def translated(what: str) -> Generator[None]:
    """Turn faults of the database into Unavailable, naming what was asked."""
    try:
        yield
    except TRANSIENT as error:
        raise Unavailable(f"{what}: PostgreSQL does not answer: {type(error).__name__}: {error}") from error


async def open_pool(uri: str, size: int) -> Pool:
    """Make a pool for reads; it connects with the first question, so the database may still be away.

    `size` is the most connections it opens.
    """
    return await asyncpg.create_pool(
        uri,
        min_size=0,
        max_size=size,
        timeout=CONNECT_SECS,
        command_timeout=STATEMENT_SECS,
        max_cached_statement_lifetime=0,
        reset=_as_it_is,  # reads leave no state behind; asyncpg's own reset is one more round trip a question
        server_settings={"application_name": "agentlog", "jit": "off"},
    )


async def _as_it_is(connection: Connection) -> None:
    """Give a connection back without a word."""


async def connect(uri: str, name: str = "agentlog projector") -> Connection:
    """Open a connection that folds: one plan a statement, whatever its size. Raises: Unavailable."""
    with translated("connect"):
        return await asyncpg.connect(
            uri,
            timeout=CONNECT_SECS,
            command_timeout=STATEMENT_SECS,
            statement_cache_size=500,
            max_cached_statement_lifetime=0,
            max_cacheable_statement_size=0,
            server_settings={
                "application_name": name,
                # A projector that stands still amid a transaction must not keep its rows from who takes over.
                "idle_in_transaction_session_timeout": f"{IDLE_SECS:.0f}s",
                # Every statement looks rows up by key; PostgreSQL would keep plans made for empty tables.
                "plan_cache_mode": "force_generic_plan",
                "enable_seqscan": "off",
                "enable_hashjoin": "off",
                "enable_mergejoin": "off",
                "jit": "off",
            },
        )


async def close(connection: Connection) -> None:
    """Give a connection back; a server that does not answer is left alone."""
    try:
        await connection.close(timeout=1)
    except (TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
        connection.terminate()


@asynccontextmanager
async def reading(pool: Pool, what: str) -> AsyncGenerator[PooledConnection]:
    """Lend a connection for one question; who is cancelled does not wait for the server. Raises: Unavailable."""
    with translated(what):
        async with pool.acquire(timeout=CONNECT_SECS) as connection:
            try:
                yield connection
            except asyncio.CancelledError:
                connection.terminate()  # asyncpg would wait CONNECT_SECS for a word that the question is given up
                raise
