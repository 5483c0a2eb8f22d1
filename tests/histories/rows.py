"""All rows that the log determines, as JSON: the expected result of a fold of a recorded log."""

import json

import asyncpg

TABLES = """
SELECT schemaname, tablename FROM pg_tables
 WHERE schemaname IN ('ledger', 'read_v1') AND tablename <> ALL($1::text[]) ORDER BY 1, 2
"""
NOT_OF_THE_LOG = ["alembic_version", "blob_index", "blob_positions", "read_models", "projectors"]
PROCESS_STATE = {"positions": {"owner", "present", "stopped", "moved_at"}, "quarantine": {"attempts"}}


async def rows(uri: str) -> dict[str, list[str]]:
    """Return table -> its rows, each one JSON text with sorted names, in the order of these texts."""
    connection = await asyncpg.connect(uri, server_settings={"TimeZone": "UTC"})
    try:
        found: dict[str, list[str]] = {}
        for schema, table in await connection.fetch(TABLES, NOT_OF_THE_LOG):
            texts = await connection.fetch(f'SELECT row_to_json(t)::text FROM "{schema}"."{table}" t')
            found[table] = sorted(_line(table, row[0]) for row in texts)
        return found
    finally:
        await connection.close()


def _line(table: str, text: str) -> str:
    row = json.loads(text)
    kept = {name: value for name, value in row.items() if name not in PROCESS_STATE.get(table, ())}
    return json.dumps(kept, sort_keys=True, ensure_ascii=False)
