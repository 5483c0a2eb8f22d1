"""Tests of LangGraph's store over the log: its operations for graphs, and the facts of its writes."""

import asyncio
from collections.abc import Callable
from datetime import date

import pytest
from langgraph.store.base import BaseStore, GetOp, InvalidNamespaceError, Item, Op, PutOp, SearchOp
from tests.fakes.memory_store import MemoryStore

from agentlog_facts.envelope import ANONYMOUS, Cause
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.store import StoreItemDeleted, StoreItemPut
from agentlog_infra.langgraph.store import LogStore, Writer

THREAD, RUN, EPOCH = ThreadId("t"), RunId("r"), 5
CAUSE = Cause(ANONYMOUS, "r")
ANA = ("users", "ana")


def written(access: MemoryStore) -> LogStore:
    return LogStore(access, Writer(access, THREAD, RUN, EPOCH, CAUSE))


async def test_every_fact_names_the_attempt_that_wrote_it() -> None:
    access = MemoryStore()
    store = written(access)
    await store.aput(ANA, "tea", {"kind": "green"})
    await store.adelete(ANA, "tea")
    assert access.facts == [
        StoreItemPut(ANA, "tea", {"kind": "green"}, THREAD, RUN, EPOCH),
        StoreItemDeleted(ANA, "tea", THREAD, RUN, EPOCH),
    ]
    assert access.causes == [CAUSE, CAUSE]


async def test_items_are_read_searched_and_listed() -> None:
    store = written(MemoryStore())
    await store.aput(ANA, "tea", {"kind": "green", "n": 1})
    await store.aput((*ANA, "deep"), "mug", {"n": 2})
    found = await store.aget(ANA, "tea")
    assert found is not None
    assert (found.namespace, found.key, found.value) == (ANA, "tea", {"kind": "green", "n": 1})
    items = await store.asearch(("users",), filter={"n": {"$gt": 1}}, query="ignored")
    assert [(item.key, item.score) for item in items] == [("mug", None)]
    assert await store.alist_namespaces(prefix=("users",), suffix=("deep",)) == [(*ANA, "deep")]


async def test_a_batch_reads_before_it_writes_and_its_last_put_of_an_item_counts() -> None:
    access = MemoryStore()
    ops: list[Op] = [PutOp(ANA, "a", {"n": 1}), GetOp(ANA, "a"), PutOp(ANA, "a", {"n": 2}), SearchOp(ANA)]
    assert await written(access).abatch(ops) == [None, None, None, []]
    assert access.facts == [StoreItemPut(ANA, "a", {"n": 2}, THREAD, RUN, EPOCH)]


async def test_synchronous_code_reaches_it_from_a_thread_and_never_blocks_its_loop() -> None:
    store = written(MemoryStore())

    def work() -> Item | None:
        store.put(ANA, "tea", {"n": 1})
        return store.get(ANA, "tea")

    found = await asyncio.to_thread(work)
    assert found is not None
    assert found.value == {"n": 1}
    with pytest.raises(RuntimeError, match="use aget, aput"):
        store.get(ANA, "tea")
    assert await asyncio.to_thread(lambda: asyncio.run(store.aget(ANA, "tea"))) is not None  # a loop of its own


async def test_a_value_is_read_as_its_json_says_it() -> None:
    store = written(MemoryStore())
    await store.aput(ANA, "k", {"nan": float("nan"), "day": date(2026, 1, 2), "pair": (1, 2), "large": 2**70})
    found = await store.aget(ANA, "k")
    assert found is not None
    assert found.value == {"nan": None, "day": "2026-01-02", "pair": [1, 2], "large": 2**70}


BAD: dict[str, Callable[[BaseStore], object]] = {
    "NUL in a key": lambda store: store.put(ANA, "a\0", {}),
    "a long key": lambda store: store.put(ANA, "k" * 2001, {}),
    "a long namespace": lambda store: store.put(tuple("label" for _ in range(200)), "k", {}),
    "half a character": lambda store: store.put(ANA, "\ud800", {}),
    "no JSON": lambda store: store.put(ANA, "k", {"value": object()}),
    "half a character in a value": lambda store: store.put(ANA, "k", {"value": "\ud800"}),
    "too deep": lambda store: store.put(ANA, "k", nested(130)),
    "no object": lambda store: store.put(ANA, "k", ["list"]),  # type: ignore[arg-type]  # wrong on purpose
    "an unknown operator": lambda store: store.search(ANA, filter={"n": {"$in": [1]}}),
    "an order of texts": lambda store: store.search(ANA, filter={"n": {"$gt": "a"}}),
    "half a character in a prefix": lambda store: store.search(("\ud800",)),
    "half a character in a pattern": lambda store: store.list_namespaces(suffix=("\ud800",)),
    "less than no items": lambda store: store.search(ANA, limit=-1),
    "a page before the first": lambda store: store.search(ANA, offset=-1),
    "more than there can be": lambda store: store.list_namespaces(limit=2**63),
    "less than no depth": lambda store: store.list_namespaces(max_depth=-1),
    "a depth that no namespace has": lambda store: store.list_namespaces(max_depth=2**31),
    "a field that is no text": lambda store: store.search(ANA, filter={1: 1}),  # type: ignore[dict-item]  # on purpose
    "half a character in a field": lambda store: store.search(ANA, filter={"\ud800": 1}),
    "a filter that is no JSON": lambda store: store.search(ANA, filter={"n": object()}),
    "a number beyond all rows": lambda store: store.search(ANA, filter={"n": {"$gt": 10**5000}}),
    "a time to live in a batch": lambda store: store.batch([PutOp(ANA, "k", {}, ttl=5)]),
    "an empty namespace": lambda store: store.put((), "k", {}),
    "a dot": lambda store: store.batch([PutOp(("a.b",), "k", {})]),
}


def nested(levels: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(levels):
        value = {"in": value}
    return value


@pytest.mark.parametrize("name", BAD)
async def test_what_it_does_not_take_is_an_error_of_the_caller(name: str) -> None:
    access = MemoryStore()
    store = written(access)
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the kind is what LangGraph's stores raise
        await asyncio.to_thread(BAD[name], store)
    assert str(raised.value)
    assert access.facts == []


async def test_one_bad_put_of_a_batch_leaves_all_of_it_unwritten() -> None:
    access = MemoryStore()
    with pytest.raises(InvalidNamespaceError):
        await written(access).abatch([PutOp(ANA, "a", {}), PutOp(("",), "b", {})])
    assert access.facts == []


async def test_without_a_writer_it_can_only_be_read() -> None:
    access = MemoryStore()
    await written(access).aput(ANA, "tea", {"n": 1})
    store = LogStore(access)
    assert await store.aget(ANA, "tea") is not None
    with pytest.raises(ValueError, match="only runs write to it"):
        await store.aput(ANA, "tea", {"n": 2})


async def test_a_time_to_live_is_refused_rather_than_forgotten() -> None:
    with pytest.raises(NotImplementedError):
        await written(MemoryStore()).aput(ANA, "tea", {}, ttl=5)
