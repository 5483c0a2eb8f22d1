"""Tests of migrations: a database is created, migrated once, and refused if only a rebuild can help."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from tests.stack_fixtures import RunningStack

from agentlog_facts.errors import Misconfigured, Unavailable
from agentlog_infra.postgres import migrate
from agentlog_infra.postgres.migrate import Tables, pending, upgrade

NOTES = Tables("notes", 1, "CREATE SCHEMA IF NOT EXISTS read_v1; CREATE TABLE IF NOT EXISTS read_v1.notes (n int)")


VERSIONS = Path(migrate.__file__).parent / "migrations" / "versions"
REVISIONS = [f"ledger: revision {path.name[:4]}" for path in sorted(VERSIONS.glob("0*.py"))]


@pytest.fixture
async def uri(stack: RunningStack) -> AsyncGenerator[str]:
    """Yield the URI of a database that does not exist yet."""
    name = f"migrate_{uuid4().hex}"
    yield stack.postgres.replace("/postgres?", f"/{name}?")
    admin = await asyncpg.connect(stack.postgres)
    await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await admin.close()


async def test_a_missing_database_is_made_and_brought_up_once(uri: str) -> None:
    todo = await pending(uri, [NOTES])
    assert todo[1:] == [*REVISIONS, "read model notes: create version 1"]
    assert await upgrade(uri, [NOTES]) == todo[1:]
    assert await upgrade(uri, [NOTES]) == []
    assert await pending(uri, [NOTES]) == []


async def test_a_new_read_model_is_made_beside_the_others(uri: str) -> None:
    await upgrade(uri, [NOTES])
    other = Tables("others", 1, "CREATE TABLE read_v1.others (n int)")
    assert await upgrade(uri, [NOTES, other]) == ["read model others: create version 1"]


async def test_migrations_at_the_same_time_do_the_work_once(uri: str) -> None:
    await upgrade(uri, [])
    done = await asyncio.gather(*(upgrade(uri, [NOTES]) for _ in range(4)))
    assert sorted(done) == [[], [], [], ["read model notes: create version 1"]]


async def test_another_version_of_a_read_model_needs_a_rebuild(uri: str) -> None:
    await upgrade(uri, [NOTES])
    newer = replace(NOTES, version=2)
    with pytest.raises(Misconfigured, match="expected version 2, found 1: agentlog rebuild"):
        await upgrade(uri, [newer])
    connection = await asyncpg.connect(uri)
    await connection.execute("DROP SCHEMA ledger, read_v1 CASCADE")
    await connection.close()
    assert "read model notes: create version 2" in await upgrade(uri, [newer])


async def test_a_failed_migration_leaves_nothing_behind(uri: str) -> None:
    broken = Tables("broken", 1, "CREATE TABLE read_v1.broken (n nonsense)")
    with pytest.raises(asyncpg.UndefinedObjectError):
        await upgrade(uri, [NOTES, broken])
    assert await pending(uri, [NOTES]) == [*REVISIONS, "read model notes: create version 1"]


async def test_a_server_that_is_away_is_unavailable(uri: str) -> None:
    with pytest.raises(Unavailable):
        await upgrade("postgresql://postgres@/x?host=/nowhere", [NOTES])


OLD_ASSISTANTS = """
CREATE SCHEMA IF NOT EXISTS read_v1;
CREATE FUNCTION read_v1.searchable(stored json) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT stored::text::jsonb';
CREATE TABLE read_v1.runs (assistant_id text, status text);
CREATE TABLE read_v1.assistants (
    assistant_id text PRIMARY KEY, version int NOT NULL, graph_id text NOT NULL, name text NOT NULL, description text,
    config json NOT NULL, context json NOT NULL, metadata json NOT NULL, created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL, deleted bool NOT NULL
);
INSERT INTO read_v1.assistants VALUES ('a', 3, 'g', 'n', 'told', '{}', '{}', '{}', now(), now(), false);
"""


async def test_assistants_of_an_earlier_release_get_the_versions_that_the_log_would_give(uri: str) -> None:
    await upgrade(uri, [])
    connection = await asyncpg.connect(uri)
    try:
        await connection.execute(OLD_ASSISTANTS)
        await connection.execute("UPDATE ledger.alembic_version SET version_num = '0006'")
        assert "ledger: revision 0007" in await pending(uri, [])
        await upgrade(uri, [])
        row = await connection.fetchrow("SELECT newest, revision, system_description, deletion FROM read_v1.assistants")
        assert row is not None
        assert tuple(row) == (3, 2, "told", None)
        indexes = await connection.fetch("SELECT indexname FROM pg_indexes WHERE schemaname = 'read_v1'")
        assert {"assistants_metadata", "runs_active_of_assistant"} <= {one["indexname"] for one in indexes}
    finally:
        await connection.close()
