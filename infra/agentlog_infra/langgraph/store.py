"""LangGraph's store over the log, which the code of a graph gets as `runtime.store`."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    validate_op_namespace,
)

from agentlog_facts.envelope import Cause
from agentlog_facts.execution_port import AttemptLost
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.store import StoreItemDeleted, StoreItemFact, StoreItemPut
from agentlog_facts.store_ports import (
    BadItem,
    Namespace,
    StoredItem,
    StoreReads,
    StoreWrites,
    check_depth,
    check_page,
    check_paths,
    check_place,
    checked_value,
    conditions,
)
from agentlog_infra.langgraph.loop_bridge import blocking, here

_INSTEAD = "a synchronous call of the store inside async code would block its own loop: use aget, aput, asearch there"


@dataclass(frozen=True, slots=True)
class Writer:
    """The attempt that writes, with its cause. Each fact names it, so that an audit can find late writes."""

    writes: StoreWrites
    thread_id: ThreadId
    run_id: RunId
    epoch: int
    cause: Cause


class LogStore(BaseStore):
    """A `BaseStore` for one use of a graph; without a writer it only reads.

    The operations of a batch see the items as they were before the batch. Of several writes to one item the last one
    counts. When the call returns, its writes are accepted, durable, and visible to every reader. A node that runs again
    writes again. The constructor must be called on the graph's loop. There is no index: a `query` is ignored, as the
    contract allows.

    Raises BadItem, a ValueError, for an item or argument that the store does not accept.
    Source: docs/http-api.md, section 16.
    """

    __slots__ = ("_closed", "_loop", "_reads", "_writer")

    def __init__(self, reads: StoreReads, writer: Writer | None = None) -> None:
        self._reads = reads
        self._writer = writer
        self._closed = False
        self._loop = asyncio.get_running_loop()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Execute operations from a thread. Raises: as `abatch`; RuntimeError on the graph's own loop."""
        several = list(ops)
        return blocking(self._loop, lambda: self._execute(several), _INSTEAD)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Execute operations. Raises: BadItem (no operation has been written), Unavailable, AttemptLost."""
        return await here(self._loop, self._execute(list(ops)))

    def close(self) -> None:
        """Refuse all later writes, also from threads that the run has left running."""
        self._closed = True

    async def _execute(self, ops: Sequence[Op]) -> list[Result]:
        facts: dict[tuple[Namespace, str], StoreItemFact] = {}
        for op in ops:
            validate_op_namespace(op)
            if isinstance(op, PutOp):
                facts[op.namespace, op.key] = self._fact(op)
        found = [await self._answer(op) for op in ops]
        if facts and self._writer is not None:
            await self._writer.writes.write(list(facts.values()), self._writer.cause)
        return found

    def _fact(self, op: PutOp) -> StoreItemFact:
        """Return the fact of a put. Raises: BadItem, AttemptLost."""
        if self._writer is None:
            raise BadItem("the store is read-only while a state is read or updated; only runs write to it")
        if self._closed:
            raise AttemptLost(f"run {self._writer.run_id}: the attempt has ended, its code can write no more items")
        if op.ttl is not None:
            raise BadItem("the store does not support a time to live")
        check_place(op.namespace, op.key)
        writer = (self._writer.thread_id, self._writer.run_id, self._writer.epoch)
        if op.value is None:
            return StoreItemDeleted(op.namespace, op.key, *writer)
        return StoreItemPut(op.namespace, op.key, checked_value(op.value), *writer)

    async def _answer(self, op: Op) -> Result:
        match op:
            case GetOp():
                check_place(op.namespace, op.key)
                found = await self._reads.item(op.namespace, op.key)
                return None if found is None else _item(found)
            case SearchOp():
                check_paths(op.namespace_prefix)
                check_page(op.limit, op.offset)
                where = conditions(op.filter)
                items = await self._reads.search(op.namespace_prefix, where, op.limit, op.offset)
                return [_search_item(item) for item in items]
            case ListNamespacesOp():
                paths = {"prefix": list[Namespace](), "suffix": list[Namespace]()}
                for condition in op.match_conditions or ():
                    paths[condition.match_type].append(tuple(condition.path))
                check_paths(*paths["prefix"], *paths["suffix"])
                check_page(op.limit, op.offset)
                check_depth(op.max_depth)
                of = self._reads.namespaces
                return list(await of(paths["prefix"], paths["suffix"], op.max_depth, op.limit, op.offset))
            case _:
                return None


def _item(item: StoredItem) -> Item:
    return Item(
        value=item.value,
        key=item.key,
        namespace=item.namespace,
        created_at=item.created_at,
        updated_at=item.updated_at,
    )


def _search_item(item: StoredItem) -> SearchItem:
    return SearchItem(item.namespace, item.key, item.value, item.created_at, item.updated_at)
