"""Connections to PostgreSQL and the one translation of its faults."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

import asyncpg

from agentlog_facts.errors import Unavailable

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
PooledConnection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
Executor: TypeAlias = "Connection | PooledConnection"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Check: TypeAlias = Callable[[Executor], Coroutine[None, None, None]]

CONNECT_SECS = 10.0
STATEMENT_SECS = 60.0
IDLE_SECS = 3.0
PROJECTOR = {"idle_in_transaction_session_timeout": f"{IDLE_SECS:.0f}s"}
"""Server settings of a projector: if it hangs in a transaction, it must not lock out its successor."""
RESTORABLE = {"synchronous_commit": "off"}
"""Server settings of a fold whose commits may be lost in a crash of PostgreSQL: they are folded again."""

MISSING = (
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
    asyncpg.PostgresConnectionError,  # 08
    asyncpg.InvalidTransactionStateError,  # 25: a standby that became reachable first, time-outs of transactions
    asyncpg.InvalidAuthorizationSpecificationError,  # 28
    asyncpg.TransactionRollbackError,  # 40: deadlock and serialization failures
    asyncpg.InsufficientResourcesError,  # 53: disk full, out of memory, too many connections
    asyncpg.ObjectInUseError,  # 55006
    asyncpg.LockNotAvailableError,  # 55P03
    asyncpg.OperatorInterventionError,  # 57: shut down, restart, database dropped, statement cancelled
    asyncpg.PostgresSystemError,  # 58: input and output
    asyncpg.OutdatedSchemaCacheError,
    asyncpg.InvalidCachedStatementError,  # 0A000: a plan of a table that was replaced
    *MISSING,  # 3D000, 3F000, 42P01, 42703, 42883
)
"""Faults that say nothing about the data: the same statement may succeed later or on another connection.

They are the driver's own faults and these classes of SQLSTATE. Every other class is about the statement and its data;
internal errors (XX000) too, because PostgreSQL reports values with them that are too large for it.
"""


def is_transient(error: BaseException) -> bool:
    """Tell whether a fault says nothing about the data; a value that the driver cannot encode is no such fault."""
    unencodable = isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)
    return isinstance(error, TRANSIENT) and not unencodable


class DatabaseMissing(Unavailable):
    """The database does not exist (yet): `agentlog migrate up` or a rebuild makes it."""


@contextmanager
def translated(what: str) -> Generator[None]:
    """Translate faults of PostgreSQL into Unavailable; `what` names the operation."""
    try:
        yield
    except asyncpg.InvalidCatalogNameError as error:
        raise DatabaseMissing(f"{what}: {error}") from error
    except TRANSIENT as error:
        raise Unavailable(f"{what}: PostgreSQL does not answer: {type(error).__name__}: {error}") from error


@contextmanager
def _internal(what: str) -> Generator[None]:
    """Translate an internal error of PostgreSQL into Unavailable: a reader cannot do anything about it."""
    try:
        yield
    except asyncpg.InternalServerError as error:
        raise Unavailable(f"{what}: internal error of PostgreSQL: {error}") from error


async def open_pool(uri: str, size: int, check: Check | None = None) -> Pool:
    """Open a pool for reads. It connects at the first query, so the database may still be away.

    `size` is the maximum number of connections. `check` looks at each new connection; one for which it raises is
    closed, and whoever wanted the connection gets the exception.
    """

    async def prepare(connection: Connection) -> None:
        if check is not None:
            await check(connection)

    return await asyncpg.create_pool(
        uri,
        min_size=0,
        max_size=size,
        timeout=CONNECT_SECS,
        command_timeout=STATEMENT_SECS,
        max_cached_statement_lifetime=0,
        init=prepare,
        reset=_no_reset,  # reads leave no state; asyncpg's own reset is one more round trip per query
        server_settings={"application_name": "agentlog", "jit": "off"},
    )


async def _no_reset(connection: Connection) -> None:
    """Return a connection to the pool without a query."""


async def connect(
    uri: str, name: str, *, database: str | None = None, statement_secs: float = STATEMENT_SECS
) -> Connection:
    """Open a connection for plain statements; `name` shows in `pg_stat_activity`.

    Raises: DatabaseMissing, Unavailable.
    """
    settings = {"application_name": name, "TimeZone": "UTC", "jit": "off"}
    with translated("DATABASE_URI"):
        return await asyncpg.connect(
            uri, timeout=CONNECT_SECS, database=database, command_timeout=statement_secs, server_settings=settings
        )


async def connect_projector(uri: str, name: str = "agentlog projector", *, durable: bool = True) -> Connection:
    """Open a connection of a projector, or of a process that folds in its place. Raises: Unavailable.

    Without `durable`, a commit does not wait for the disk: a crash of PostgreSQL may take back the last ones.
    """
    return await connect_folding(uri, name, PROJECTOR if durable else PROJECTOR | RESTORABLE)


async def connect_folding(
    uri: str,
    name: str,
    more: Mapping[str, str],
    *,
    statement_secs: float = STATEMENT_SECS,
    connection_class: type[Connection] | None = None,
) -> Connection:
    """Open a connection for folding: one plan per statement, whatever its size; `more` adds server settings.

    Raises: DatabaseMissing, Unavailable.
    """
    with translated("DATABASE_URI"):
        return await asyncpg.connect(
            uri,
            connection_class=connection_class or asyncpg.Connection,
            timeout=CONNECT_SECS,
            command_timeout=statement_secs,
            statement_cache_size=500,
            max_cached_statement_lifetime=0,
            max_cacheable_statement_size=0,
            server_settings={
                "application_name": name,
                # Every statement looks rows up by key; PostgreSQL would keep plans made for empty tables.
                "plan_cache_mode": "force_generic_plan",
                "enable_seqscan": "off",
                "enable_hashjoin": "off",
                "enable_mergejoin": "off",
                "jit": "off",
                **more,
            },
        )


async def close(connection: Connection) -> None:
    """Close a connection, without waiting for a server that does not answer."""
    try:
        await connection.close(timeout=1)
    except (TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
        connection.terminate()


@asynccontextmanager
async def reading(pool: Pool, what: str) -> AsyncGenerator[PooledConnection]:
    """Yield a connection for one query; a cancelled caller does not wait for the server. Raises: Unavailable."""
    with translated(what), _internal(what):
        async with pool.acquire(timeout=CONNECT_SECS) as connection:
            try:
                yield connection
            except asyncio.CancelledError:
                connection.terminate()  # asyncpg would wait CONNECT_SECS until the query is cancelled
                raise
