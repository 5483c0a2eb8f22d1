"""Contract of `StoreReads`, in memory and in PostgreSQL."""

from collections.abc import AsyncGenerator, Sequence

import pytest
from tests.contracts import store_envs
from tests.contracts.store_envs import StoreEnv
from tests.projections.projector_env import migrated_database
from tests.stack_fixtures import RunningStack

from agentlog_facts.errors import Quarantined
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.store import StoreItemDeleted, StoreItemPut
from agentlog_facts.store_ports import Namespace, conditions

KINDS = {"memory": store_envs.memory, "postgres": store_envs.postgres}
ANA = ("users", "ana")


@pytest.fixture(scope="session")
def tables(stack: RunningStack) -> str:
    """Return the address of a database with all tables."""
    return migrated_database(stack.postgres, "store_reads")


@pytest.fixture(params=list(KINDS))
async def store(request: pytest.FixtureRequest, tables: str) -> AsyncGenerator[StoreEnv]:
    async with KINDS[request.param](tables) as env:
        yield env


async def put(store: StoreEnv, namespace: Namespace, key: str, **value: Json) -> None:
    await store.write([StoreItemPut(namespace, key, value)])


async def found(store: StoreEnv, prefix: Namespace, wanted: JsonObject | None = None) -> list[str]:
    return [one.key for one in await store.reads.search(prefix, conditions(wanted), 100, 0)]


async def test_the_last_writer_wins_and_an_item_keeps_when_it_was_created(store: StoreEnv) -> None:
    assert await store.reads.item(ANA, "tea") is None
    await put(store, ANA, "tea", kind="green")
    first = await store.reads.item(ANA, "tea")
    await put(store, ANA, "tea", kind="black", nul="a\0b")
    second = await store.reads.item(ANA, "tea")
    assert first is not None
    assert second is not None
    assert (second.namespace, second.key, second.value) == (ANA, "tea", {"kind": "black", "nul": "a\0b"})
    assert second.created_at == first.created_at == first.updated_at < second.updated_at
    assert await store.reads.item(("users",), "tea") is None


async def test_a_deleted_item_is_gone_and_begins_anew(store: StoreEnv) -> None:
    await put(store, ANA, "tea", kind="green")
    first = await store.reads.item(ANA, "tea")
    await store.write([StoreItemDeleted(ANA, "tea"), StoreItemDeleted(ANA, "never there")])
    assert await store.reads.item(ANA, "tea") is None
    await store.write([StoreItemPut(ANA, "tea", {}), StoreItemDeleted(ANA, "tea"), StoreItemPut(ANA, "tea", {"n": 1})])
    again = await store.reads.item(ANA, "tea")
    assert first is not None
    assert again is not None
    assert (again.value, again.created_at) == ({"n": 1}, again.updated_at)
    assert again.created_at > first.created_at


async def test_a_search_finds_what_lies_under_a_prefix_the_last_one_put_first(store: StoreEnv) -> None:
    await put(store, ANA, "a")
    await put(store, ("users", "anabel"), "b")
    await put(store, (*ANA, "deep"), "c")
    await put(store, ("other",), "d")
    await put(store, ANA, "a", again=True)
    assert await found(store, ()) == ["a", "d", "c", "b"]
    assert await found(store, ("users",)) == ["a", "c", "b"]
    assert await found(store, ANA) == ["a", "c"]
    assert await found(store, ("nobody",)) == []
    assert [one.key for one in await store.reads.search((), [], 2, 1)] == ["d", "c"]


async def test_a_prefix_is_of_whole_labels_whatever_stands_in_them(store: StoreEnv) -> None:
    for label in ("ana", "ana\x01", "ana!", "ana\U0010ffff", "an", "anb"):
        await put(store, ("users", label, "deep"), label)
        await put(store, ("users", label), label)
    for label in ("ana", "ana\x01", "ana\U0010ffff"):
        assert await found(store, ("users", label)) == [label, label]
    assert len(await found(store, ("users",))) == 12


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"n": 2}, ["two"]),
        ({"n": {"$eq": 2}}, ["two"]),
        ({"n": {"$ne": 2}}, ["text", "three", "one"]),
        ({"of": {"$ne": 1}}, ["three"]),
        ({"n": {"$gt": 1, "$lt": 3}}, ["two"]),
        ({"n": {"$gte": 2}}, ["three", "two"]),
        ({"n": {"$lte": 1}}, ["one"]),
        ({"n": 3, "of": {"deep": [1]}}, ["three"]),
        ({"of": {"deep": [2]}}, []),
        ({"n": "2"}, ["text"]),
        ({}, ["text", "none", "three", "two", "one"]),
    ],
)
async def test_a_filter_compares_fields(store: StoreEnv, wanted: JsonObject, expected: Sequence[str]) -> None:
    await put(store, ANA, "one", n=1)
    await put(store, ANA, "two", n=2.0)
    await put(store, ANA, "three", n=3, of={"deep": [1]})
    await put(store, ANA, "none")
    await put(store, ANA, "text", n="2")
    assert await found(store, ANA, wanted) == expected


async def test_a_filter_tells_what_looks_alike_apart(store: StoreEnv) -> None:
    await put(store, ANA, "true", v=True, deep=[{"in": 0}])
    await put(store, ANA, "one", v=1, deep=[{"in": False}])
    await put(store, ANA, "null", v=None)
    await put(store, ANA, "escape", v="\\u0000")
    await put(store, ANA, "nul", **{"a\0": "b\0"})
    assert await found(store, ANA, {"v": True}) == ["true"]
    assert await found(store, ANA, {"v": 1.0}) == ["one"]
    assert await found(store, ANA, {"deep": [{"in": 0}]}) == ["true"]
    assert await found(store, ANA, {"v": None}) == ["null"]
    assert await found(store, ANA, {"v": "\\u0000"}) == ["escape"]
    assert await found(store, ANA, {"a\0": "b\0"}) == ["nul"]


async def test_namespaces_are_listed_by_prefix_suffix_and_depth(store: StoreEnv) -> None:
    for namespace in (("a",), ("a", "x", "end"), ("a", "y", "end"), ("b", "x"), ("b", "x", "more")):
        await put(store, namespace, "k")
    await put(store, ("gone",), "k")
    await store.write([StoreItemDeleted(("gone",), "k")])

    async def listed(
        *prefixes: Namespace, suffixes: Sequence[Namespace] = (), depth: int | None = None, limit: int = 100
    ) -> Sequence[Namespace]:
        return await store.reads.namespaces(prefixes, suffixes, depth, limit, 0)

    everything = [("a",), ("a", "x", "end"), ("a", "y", "end"), ("b", "x"), ("b", "x", "more")]
    assert await listed() == everything
    assert await listed(limit=2) == everything[:2]
    assert await listed(("a",)) == everything[:3]
    assert await listed(("*", "x")) == [everything[1], *everything[3:]]
    assert await listed(suffixes=[("end",)]) == everything[1:3]
    assert await listed(("a",), suffixes=[("x", "*")]) == [("a", "x", "end")]
    assert await listed(depth=1) == [("a",), ("b",)]
    assert await listed(("a", "x", "end", "further")) == []
    assert await listed(("a", "*", "end"), depth=2) == [("a", "x"), ("a", "y")]
    assert await listed(suffixes=[("end",)], depth=1) == [("a",)]
    assert await listed(depth=0) == [()]
    assert await listed(("b",), depth=2) == [("b", "x")]


async def test_namespaces_with_any_labels_are_listed_once_and_in_order(store: StoreEnv) -> None:
    names: list[Namespace] = []
    for label in ("ana", "ana\x01", "ana\x01\x01", "ana!", "ana\U0010ffff", "an", "anb", "é"):
        names += [("users", label), ("users", label, "deep"), (label,)]
    for namespace in names:
        await put(store, namespace, "one")
        await put(store, namespace, "two")
    for depth in (1, 2, 3, None):
        expected = sorted({one[:depth] for one in names})
        assert await store.reads.namespaces([], [], depth, 100, 0) == expected
        assert await store.reads.namespaces([], [], depth, 5, 3) == expected[3:8]
    under = sorted(one for one in names if one[:2] == ("users", "ana"))
    assert await store.reads.namespaces([("users", "ana")], [], None, 100, 0) == under


async def test_puts_into_a_namespace_in_quarantine_are_refused_and_all_others_are_not(store: StoreEnv) -> None:
    await put(store, ANA, "tea")
    await store.reads.check_writable(ANA, store.partition_of(ANA))
    await store.quarantine(ANA)
    with pytest.raises(Quarantined):
        await store.reads.check_writable(ANA, store.partition_of(ANA))
    await store.reads.check_writable(("users",), store.partition_of(("users",)))
