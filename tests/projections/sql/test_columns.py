"""Columns declared once: rows written by a declaration are read back by it."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime

from tests.projections.projector_env import ProjectorEnv

from agentlog_facts.json_value import JsonObject, load_object
from agentlog_projections.models import runs, threads
from agentlog_projections.models.run_fold import RunOrigin, RunRow
from agentlog_projections.models.thread_fold import ThreadRow
from agentlog_projections.sql.columns import Column, Columns, texts

COLUMNS = Columns(
    Column("name", "text PRIMARY KEY"),
    Column("seen_at", "timestamptz NOT NULL"),
    Column("values", "json", load_object),
    Column("next", "json", texts),
    Column("count", "bigint"),
)
AT = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    name: str
    seen_at: datetime
    values: JsonObject | None = None
    next: tuple[str, ...] | None = None
    count: int | None = None
    loaded: bool = False


@dataclass(frozen=True)
class Shown:
    name: str
    values: JsonObject | None


async def test_rows_are_read_back_as_they_were_written_and_written_again_only_where_that_is_said(
    env: ProjectorEnv,
) -> None:
    kept = COLUMNS.without("count")
    insert = f"""INSERT INTO pg_temp.declared ({COLUMNS.names}) SELECT {COLUMNS.names} FROM {COLUMNS.unnested}
                 ON CONFLICT (name) DO UPDATE SET {kept.without("name").assigned("excluded")}"""
    first = [Row("a", AT, {"x": 1}, ("n",), 1), Row("b", AT)]
    async with env.pool.acquire() as connection:
        await connection.execute(f"CREATE TEMP TABLE declared ({COLUMNS.definitions})")
        await connection.execute(insert, *COLUMNS.arguments(first))
        await connection.execute(insert, *COLUMNS.arguments([Row("b", AT, {}, (), 7)], next=['["given"]']))
        rows = await connection.fetch(f"SELECT {COLUMNS.names} FROM pg_temp.declared ORDER BY name")
        await connection.execute("DROP TABLE pg_temp.declared")
    assert [COLUMNS.read(Row, row) for row in rows] == [first[0], Row("b", AT, {}, ("given",))]
    assert COLUMNS.read(Row, rows[0], values=None, loaded=True) == Row("a", AT, None, ("n",), 1, loaded=True)
    assert COLUMNS.of(Shown).read(Shown, rows[0]) == Shown("a", {"x": 1})


def test_parts_of_a_declaration_keep_its_order() -> None:
    assert [*COLUMNS.only("count", "name")] == ["name", "count"]
    assert [*(COLUMNS.only("count") + COLUMNS.only("name"))] == ["count", "name"]
    assert len(COLUMNS.without("count")) == 4


def names_of(cls: type) -> set[str]:
    return {field.name for field in fields(cls)}


def test_every_column_is_a_field_of_a_row_and_everything_shown_is_a_column() -> None:
    assert {*threads.COLUMNS} == names_of(ThreadRow) - {"loaded", "change"}
    assert names_of(threads.Thread) <= {*threads.COLUMNS}
    assert {*runs.COLUMNS} == (names_of(RunRow) - {"origin", "changed", "touched"}) | names_of(RunOrigin)
    assert names_of(runs.Run) - {"thread_deleted"} <= {*runs.COLUMNS}
