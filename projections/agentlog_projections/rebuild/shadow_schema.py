"""Shadow schemas of a rebuild: tables next to the live ones, exchanged with them in one transaction.

Statements name `ledger` and `read_v1`; a `ShadowConnection` executes them in `ledger_next` and `read_v1_next`. The
switch renames the schemas: from then on PostgreSQL resolves every statement of every session, also one with an older
plan, to the new tables. The comment on a ledger's schema names the rebuild that made it, and moves with the schema.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import asyncpg

from agentlog_facts.errors import Conflict, Misconfigured, Unavailable
from agentlog_postgres.connection import IDLE_SECS, RESTORABLE, Connection, connect, connect_folding
from agentlog_projections import timeouts
from agentlog_projections.projector.heartbeat import CHANNEL
from agentlog_projections.sql.schema import SCHEMA

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

LEDGER = "ledger"
LEDGER_TABLES = ("positions", "heads", "log_index", "quarantine", "blob_index", "blob_positions", "read_models")
"""Tables of the first release: live rows that lack one are damaged. Tables of a later release may be missing before
`migrate up`, which refuses if a rebuild has to come first."""
PROJECTORS, CRASH_MARKS = f"{LEDGER}.projectors", f"{LEDGER}.crash_marks"
SHADOW, RETIRED = "_next", "_old"
IN_PLACE = " in place"
"""Suffix of the name of a rebuild while it folds into the live tables."""
REBUILD_LOCK = 0x61676C72
"""Advisory lock of the only rebuild that may run; it ends with its connection."""
NAME = "agentlog rebuild"
"""Application name of a rebuild's connections."""

DROP = f"DROP SCHEMA IF EXISTS {LEDGER}, {SCHEMA} CASCADE"
"""Drops all live rows, for a rebuild in place."""

_NAMES = re.compile(rf"\b({LEDGER}|{SCHEMA})(?=\.)|(?<=IF NOT EXISTS )({LEDGER}|{SCHEMA})\b")
_HOLDER = """
SELECT pid FROM pg_locks
 WHERE locktype = 'advisory' AND classid = 0 AND objid = $1 AND objsubid = 1 AND granted
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_END_OTHERS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
 WHERE application_name = $1 AND datname = current_database() AND pid <> pg_backend_pid() AND pid <> ALL($2::int[])
"""
_NAME_OF = "SELECT obj_description(to_regnamespace($1)::oid, 'pg_namespace')"
_FOLDED = (
    (f"{LEDGER}.positions", f"SELECT EXISTS (SELECT FROM {LEDGER}.positions WHERE next_offset > 0)"),
    (f"{LEDGER}.log_index", f"SELECT EXISTS (SELECT FROM {LEDGER}.log_index)"),
)
_POSITIONS = f"SELECT partition, next_offset, digest FROM {LEDGER}{{}}.positions"
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY tablename"
_LOCK_PROJECTORS_OUT = f"""
LOCK TABLE {LEDGER}.blob_index, {LEDGER}.blob_positions, {LEDGER}.positions IN SHARE ROW EXCLUSIVE MODE
"""
_KEEP_PROJECTORS = f"INSERT INTO {LEDGER}{SHADOW}.projectors SELECT * FROM {PROJECTORS}"
_KEEP_MARKS = f"INSERT INTO {LEDGER}{SHADOW}.crash_marks SELECT * FROM {CRASH_MARKS} ON CONFLICT DO NOTHING"
_NOTIFY_REBUILT = f"SELECT pg_notify('{CHANNEL}', 'rebuilt')"
_DISOWN = f"UPDATE {LEDGER}.positions SET owner = 'replaced by a rebuild'"
_KEEP_STATE = f"""
UPDATE {LEDGER}{SHADOW}.positions n
   SET owner = NULL, present = CASE WHEN same THEN l.present ELSE n.present END,
       stopped = CASE WHEN same THEN l.stopped END
  FROM {LEDGER}{SHADOW}.positions o LEFT JOIN {LEDGER}.positions l USING (partition),
       LATERAL (SELECT l.partition IS NOT NULL AND (o.next_offset, coalesce(o.digest, ''))
                                                 = (l.next_offset, coalesce(l.digest, '')) AS same) s
 WHERE n.partition = o.partition
"""


class RebuildRunning(Conflict):
    """Another rebuild holds the lock; only one may run."""

    code = "rebuild_running"


@lru_cache(maxsize=2048)
def renamed(sql: str) -> str:
    """Return the statement with the names of the shadow tables."""
    return _NAMES.sub(lambda found: found[0] + SHADOW, sql)


class ShadowConnection(_Connection):
    """Connection that executes every statement in the shadow schemas."""

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:  # noqa: ASYNC109 - asyncpg's
        """Execute, renamed."""
        return await super().execute(renamed(query), *args, timeout=timeout)

    async def fetch(  # type: ignore[override]  # record classes are not used
        self,
        query: str,
        *args: object,
        timeout: float | None = None,  # noqa: ASYNC109 - asyncpg's
    ) -> list[asyncpg.Record]:
        """Fetch rows, renamed."""
        return await super().fetch(renamed(query), *args, timeout=timeout)

    async def fetchrow(  # type: ignore[override]  # record classes are not used
        self,
        query: str,
        *args: object,
        timeout: float | None = None,  # noqa: ASYNC109 - asyncpg's
    ) -> asyncpg.Record | None:
        """Fetch a row, renamed."""
        return await super().fetchrow(renamed(query), *args, timeout=timeout)

    async def fetchval(
        self,
        query: str,
        *args: object,
        column: int = 0,
        timeout: float | None = None,  # noqa: ASYNC109 - asyncpg's
    ) -> object:
        """Fetch a value, renamed."""
        found: object = await super().fetchval(renamed(query), *args, column=column, timeout=timeout)
        return found


@dataclass(frozen=True, slots=True)
class Position:
    """Position of a partition, and the digest of its last record."""

    next_offset: int
    digest: str | None


async def connect_shadow(uri: str) -> Connection:
    """Open the connection that folds into the shadow schemas. Raises: Unavailable."""
    return await connect_folding(
        uri, NAME, RESTORABLE, statement_secs=timeouts.REBUILD_STATEMENT_S, connection_class=ShadowConnection
    )


async def connect_plain(uri: str, name: str = NAME) -> Connection:
    """Open a connection for a few long statements. Raises: DatabaseMissing, Unavailable."""
    return await connect(uri, name, statement_secs=timeouts.REBUILD_STATEMENT_S)


async def hold(connection: Connection) -> None:
    """Take the rebuild lock for as long as this connection lives. Raises: RebuildRunning."""
    if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", REBUILD_LOCK):
        holder = await connection.fetchval(_HOLDER, REBUILD_LOCK)
        raise RebuildRunning(
            f"another rebuild is running (connection {holder} of the database); "
            "wait for its end, or cancel it: agentlog rebuild --cancel"
        )


async def hold_after(connection: Connection, patience_secs: float) -> None:
    """Wait until a running rebuild has ended, and take its lock. Raises: TimeoutError."""
    await connection.execute(f"SELECT pg_advisory_lock({REBUILD_LOCK})", timeout=patience_secs)


async def holder(connection: Connection) -> int | None:
    """Return the server process that holds the rebuild lock, None if it is free."""
    found: int | None = await connection.fetchval(_HOLDER, REBUILD_LOCK)
    return found


async def end_others(connection: Connection, *mine: Connection) -> None:
    """End the connections of an earlier rebuild. The caller holds the lock, so they can do no more work."""
    await connection.execute(_END_OTHERS, NAME, [one.get_server_pid() for one in mine])


async def end(connection: Connection, pid: int) -> bool:
    """End a connection by its server process; tell whether it is gone."""
    return bool(await connection.fetchval("SELECT pg_terminate_backend($1, 1000)", pid))


async def has_rows(connection: Connection) -> bool:
    """Tell whether live rows exist: any record was folded, however far behind the log.

    Raises: Misconfigured when they exist, but a table is missing.
    """
    for table, sql in _FOLDED:
        if await _is_there(connection, table) and await connection.fetchval(sql):
            await _demand_ledger(connection)
            return True
    return False


async def _demand_ledger(connection: Connection) -> None:
    for table in (f"{LEDGER}.{name}" for name in LEDGER_TABLES):
        if not await _is_there(connection, table):
            raise Misconfigured(
                f"{table}: live rows exist, but this table is missing; agentlog rebuild --in-place drops them first"
            )


async def _is_there(connection: Connection, table: str) -> bool:
    return await connection.fetchval("SELECT to_regclass($1)", table) is not None


async def sign(connection: Connection, schema: str, name: str | None) -> None:
    """Mark a schema with the name of a rebuild, or remove the mark."""
    text = "NULL" if name is None else f"'{name}'"
    await connection.execute(f"COMMENT ON SCHEMA {schema} IS {text}")


async def signed(connection: Connection, schema: str) -> str | None:
    """Return the name of the rebuild that made a schema; None where none did, or there is no such schema."""
    found: str | None = await connection.fetchval(_NAME_OF, schema)
    return found


async def exists(connection: Connection, suffix: str) -> bool:
    """Tell whether there are schemas with this suffix."""
    names = [name + suffix for name in (LEDGER, SCHEMA)]
    sql = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = ANY($1::text[]))"
    return bool(await connection.fetchval(sql, names))


async def make(connection: Connection, ddl: Sequence[str], schema: str, name: str) -> None:
    """Create the tables of the rebuild `name`; over a connection of `connect_shadow`, in the shadow schemas."""
    async with connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit = on")  # lost in a crash, it would look like a cancel
        for statements in ddl:
            await connection.execute(statements)
        await sign(connection, schema, name)


async def remove(connection: Connection, *suffixes: str) -> None:
    """Drop the schemas with these suffixes, table by table, so that a reader of one table blocks no other.

    Raises: Unavailable when a reader holds one for longer than `REBUILD_READERS_S`, TRANSIENT.
    """
    await connection.execute(f"SET lock_timeout = '{timeouts.REBUILD_READERS_S:g}s'; SET client_min_messages = warning")
    for schema in (name + suffix for suffix in suffixes for name in (SCHEMA, LEDGER)):
        try:
            for row in await connection.fetch(_TABLES, schema):
                await connection.execute(f'DROP TABLE IF EXISTS "{schema}"."{row["tablename"]}" CASCADE')
            await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
        except asyncpg.LockNotAvailableError as error:
            raise Unavailable(
                f"{schema}: a reader has held it for {timeouts.REBUILD_READERS_S:g}s; the next agentlog rebuild, "
                "or agentlog rebuild --cancel, removes it"
            ) from error


async def positions(connection: Connection, suffix: str = "") -> Mapping[int, Position]:
    """Return the position of each partition."""
    rows = await connection.fetch(_POSITIONS.format(suffix))
    return {row["partition"]: Position(row["next_offset"], row["digest"]) for row in rows}


async def analyze(connection: Connection) -> None:
    """Analyze the new tables before the first query."""
    for schema in (LEDGER + SHADOW, SCHEMA + SHADOW):
        for row in await connection.fetch(_TABLES, schema):
            await connection.execute(f'ANALYZE "{schema}"."{row["tablename"]}"')


@asynccontextmanager
async def projector_paused(connection: Connection) -> AsyncGenerator[None]:
    """Keep the live positions unchanged for the length of the block, which is one transaction.

    Reads continue. A projector waits, but never for a hung rebuild: PostgreSQL ends this connection once it has been
    idle for `IDLE_SECS`. Raises: asyncpg.LockNotAvailableError, TRANSIENT.
    """
    async with connection.transaction():
        await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_SECS:.0f}s'")
        await connection.execute(f"SET LOCAL lock_timeout = '{timeouts.REBUILD_SWITCH_LOCK_S:g}s'")
        await connection.execute(_LOCK_PROJECTORS_OUT)
        yield


async def exchange(connection: Connection) -> None:
    """Replace the live tables by the new ones, inside `projector_paused`; projectors must take partitions again."""
    await connection.execute(_DISOWN)
    await connection.execute(_KEEP_STATE)
    if await _is_there(connection, PROJECTORS):
        await connection.execute(_KEEP_PROJECTORS)
    if await _is_there(connection, CRASH_MARKS):
        await connection.execute(_KEEP_MARKS)
    for schema in (LEDGER, SCHEMA):
        if await connection.fetchval("SELECT to_regnamespace($1)", schema) is not None:
            await connection.execute(f"ALTER SCHEMA {schema} RENAME TO {schema}{RETIRED}")
        await connection.execute(f"ALTER SCHEMA {schema}{SHADOW} RENAME TO {schema}")
    await connection.execute(_NOTIFY_REBUILT)
