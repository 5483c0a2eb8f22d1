"""Migrations of the database: Alembic's revisions for the ledger, each read model's own DDL for its tables."""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from agentlog_facts.errors import Misconfigured
from agentlog_postgres.connection import Connection, DatabaseMissing, connect

log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x61676C67  # one migration at a time
_NAME = "agentlog migrate"


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables of a read model: their DDL (statements that may run twice) and the version of their schema."""

    name: str
    version: int
    ddl: str


async def upgrade(database_uri: str, read_models: Sequence[Tables]) -> list[str]:
    """Migrate the database in one transaction and return the steps done; create the database if it is missing.

    Raises: Unavailable, and Misconfigured for a version that only a rebuild can reach.
    """
    connection = await _connect_or_create(database_uri)
    try:
        outdated = await _pending(connection, read_models)
        _refuse_other_versions(outdated)
        if not outdated:
            return []
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            return await _upgrade(connection, read_models)
    finally:
        await connection.close()


async def pending(database_uri: str, read_models: Sequence[Tables]) -> list[str]:
    """Return the steps that `upgrade` would do, in order. Raises: Unavailable."""
    try:
        connection = await connect(database_uri, _NAME)
    except DatabaseMissing:
        return [f"database {_database_of(database_uri)}: create it", *_all(read_models)]
    try:
        return await _pending(connection, read_models)
    finally:
        await connection.close()


async def make_database(database_uri: str) -> None:
    """Create the database if it is missing. Raises: Unavailable."""
    await (await _connect_or_create(database_uri)).close()


def schema_statements(read_models: Sequence[Tables]) -> list[str]:
    """Return the statements that create all tables in their newest version, for a rebuild."""
    names = ", ".join(f"('{model.name}', {model.version})" for model in read_models)
    made = f"INSERT INTO ledger.read_models VALUES {names}"
    return ["CREATE SCHEMA IF NOT EXISTS ledger", _alembic_sql(None), *(model.ddl for model in read_models), made]


def _refuse_other_versions(outdated: Sequence[str]) -> None:
    """Refuse a read model whose tables have another version: it can only be folded again."""
    for line in outdated:
        if line.endswith("agentlog rebuild"):
            raise Misconfigured(line)


def _all(read_models: Sequence[Tables]) -> list[str]:
    return [
        *(f"ledger: revision {revision}" for revision in _revisions()),
        *(f"read model {model.name}: create version {model.version}" for model in read_models),
    ]


def _revisions() -> list[str]:
    """Return the revisions in order, by the names of their files: importing Alembic is slow."""
    return sorted(path.name.partition("_")[0] for path in (_FOLDER / "versions").glob("[0-9]*_*.py"))


async def _current(connection: Connection) -> tuple[str | None, dict[str, int]]:
    if await connection.fetchval("SELECT to_regclass('ledger.alembic_version')") is None:
        return None, {}
    revision = await connection.fetchval("SELECT version_num FROM ledger.alembic_version")
    rows = await connection.fetch("SELECT name, version FROM ledger.read_models")
    return revision, {row["name"]: row["version"] for row in rows}


async def _pending(connection: Connection, read_models: Sequence[Tables]) -> list[str]:
    revision, made = await _current(connection)
    lines = [f"ledger: revision {name}" for name in _revisions() if revision is None or name > revision]
    for model in read_models:
        found = made.get(model.name)
        if found is None:
            lines.append(f"read model {model.name}: create version {model.version}")
        elif found != model.version:
            lines.append(f"read model {model.name}: expected version {model.version}, found {found}: agentlog rebuild")
    return lines


async def _upgrade(connection: Connection, read_models: Sequence[Tables]) -> list[str]:
    todo = await _pending(connection, read_models)  # again, under the lock
    revision, made = await _current(connection)
    if revision != _revisions()[-1]:
        await connection.execute("CREATE SCHEMA IF NOT EXISTS ledger")
        await connection.execute(_alembic_sql(revision))
    for model in read_models:
        if model.name not in made:
            await connection.execute(model.ddl)
            await connection.execute("INSERT INTO ledger.read_models VALUES ($1, $2)", model.name, model.version)
    for line in todo:
        log.info("migrate.done", extra={"step": line})
    return todo


def _alembic_sql(revision: str | None) -> str:
    """Return Alembic's SQL from a revision to the newest one."""
    from alembic import command  # 0.4 s to import, and needed only when there is something to do
    from alembic.config import Config

    config = Config(output_buffer=(buffer := io.StringIO()))
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, f"{revision}:head" if revision else "head", sql=True)
    return buffer.getvalue()


async def _connect_or_create(database_uri: str) -> Connection:
    try:
        return await connect(database_uri, _NAME)
    except DatabaseMissing:
        await _create(database_uri)
        return await connect(database_uri, _NAME)


async def _create(database_uri: str) -> None:
    name = _database_of(database_uri)
    connection = await connect(database_uri, _NAME, database="template1" if name == "postgres" else "postgres")
    try:
        await connection.execute('CREATE DATABASE "{}" TEMPLATE template0'.format(name.replace('"', '""')))
    except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):  # another process created it meanwhile
        log.info("migrate.database_exists", extra={"database": name})
    finally:
        await connection.close()


def _database_of(database_uri: str) -> str:
    parts = urlsplit(database_uri)
    return parts.path.lstrip("/") or parts.username or "postgres"
