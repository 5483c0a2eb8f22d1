"""Read model of store items: given facts, applied twice, then rows."""

import pytest
from tests.projections.models.applying import Applying
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.envelope import Draft
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json
from agentlog_facts.store import StoreItemDeleted, StoreItemFact, StoreItemPut, store_key
from agentlog_projections.models.store import SEARCH, StoreItems, end_of, namespaces_query

SPACE = ("users", "ana")
ROWS = "SELECT item_key, value::text, created_at, updated_at, thread_id, run_id, epoch FROM read_v1.store_items"


def commit(*facts: StoreItemFact) -> Draft:
    key = store_key(facts[0].namespace)
    return draft(key, *facts, stream=f"store-{key}")


def put(key: str, number: Json, epoch: int | None = None) -> StoreItemPut:
    if epoch is None:
        return StoreItemPut(SPACE, key, {"n": number})
    return StoreItemPut(SPACE, key, {"n": number}, ThreadId("t"), RunId("r"), epoch)


async def test_a_row_is_what_was_put_last_and_says_by_which_attempt(given: Applying, env: ProjectorEnv) -> None:
    drafts = [
        commit(put("a", 1, 7), put("b", 1)),
        commit(put("a", 2, 9), StoreItemDeleted(SPACE, "b")),
        commit(put("b", 2), put("c", 1)),
        commit(StoreItemDeleted(SPACE, "c")),
    ]
    await given(*drafts)
    at = [one.occurred_at for one in drafts]
    rows = [tuple(row) for row in await env.pool.fetch(f"{ROWS} ORDER BY item_key")]
    assert rows == [("a", '{"n":2}', at[0], at[1], "t", "r", 9), ("b", '{"n":2}', at[2], at[2], None, None, None)]


async def test_items_are_not_told_while_the_rows_are_being_built(env: ProjectorEnv) -> None:
    with pytest.raises(Unavailable):
        await StoreItems(env.pool).item(SPACE, "a")


async def test_a_search_reads_no_items_of_other_namespaces(given: Applying, env: ProjectorEnv) -> None:
    await given(*(commit(StoreItemPut(("users", f"u{number:03}"), "k", {})) for number in range(200)))
    await env.pool.execute("ANALYZE read_v1.store_items")
    prefix = ("users", "u100")
    arguments: tuple[object, ...] = ([*prefix], [], [], [], 10, 0, end_of(prefix))
    plan = await env.pool.fetch(f"EXPLAIN (ANALYZE) {SEARCH}", *arguments)
    assert "Rows Removed by Filter" not in "\n".join(row[0] for row in plan)


async def test_a_list_of_namespaces_reads_the_index_once_for_each_that_it_shows(
    given: Applying, env: ProjectorEnv
) -> None:
    for number in range(60):
        space = (f"u{number // 6:03}", f"n{number:03}")
        await given(commit(*(StoreItemPut(space, str(item), {}) for item in range(40))))
    await env.pool.execute("ANALYZE read_v1.store_items")
    for asked, steps in (
        (namespaces_query([], [], None, 5, 0), 6),
        (namespaces_query([], [], 1, 5, 0), 6),
        (namespaces_query([("u003",)], [], None, 100, 0), 7),
    ):
        sql, arguments = asked
        rows = await env.pool.fetch(f"EXPLAIN (ANALYZE, FORMAT TEXT) {sql}", *arguments)
        plan = [row[0] for row in rows]
        assert not any("Seq Scan on store_items" in line for line in plan), plan
        read = [int(line.split("loops=")[1].rstrip(")")) for line in plan if "store_items_namespace" in line]
        assert 0 < sum(read) <= steps + 1, plan
