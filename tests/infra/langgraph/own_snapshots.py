"""Snapshots as LangGraph's own methods give them: the reference for those that are assembled from encoded values."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from langgraph.checkpoint.serde.base import SerializerProtocol
from tests.fakes.memory_store import MemoryStore

from agentlog_facts.checkpoint_ports import CheckpointReads
from agentlog_facts.errors import AgentlogError
from agentlog_facts.graph_ports import At
from agentlog_facts.ids import ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.secret_values import HiddenValues, SecretKeys
from agentlog_infra.langgraph.checkpoints.filters import ExcludePendingWrites
from agentlog_infra.langgraph.checkpoints.journal import ReadOnly
from agentlog_infra.langgraph.checkpoints.saver import LogSaver
from agentlog_infra.langgraph.loading.graphs import Access, Graph, Graphs
from agentlog_infra.langgraph.snapshot_json import config_at, snapshot_json
from agentlog_infra.langgraph.store import LogStore

T = TypeVar("T")


class OwnSnapshots:
    """Reads states and histories by `aget_state` and `aget_state_history`."""

    def __init__(self, graphs: Graphs, reads: CheckpointReads, serde: SerializerProtocol) -> None:
        self._graphs = graphs
        self._serde = serde
        self._reads = reads

    async def state(self, graph_id: str, thread_id: ThreadId, at: At, *, subgraphs: bool) -> JsonObject:
        async def read(graph: Graph) -> JsonObject:
            return snapshot_json(await graph.aget_state(config_at(thread_id, at), subgraphs=subgraphs))

        return await self._read(graph_id, thread_id, at, read)

    async def history(
        self, graph_id: str, thread_id: ThreadId, at: At, before: str | None, limit: int, metadata: JsonObject | None
    ) -> list[JsonObject]:
        cursor = None if before is None else config_at(thread_id, At(before))

        async def read(graph: Graph) -> list[JsonObject]:
            found = graph.aget_state_history(config_at(thread_id, at), filter=metadata, before=cursor, limit=limit)
            return [snapshot_json(one) async for one in found]

        try:
            return await self._once(self._reads, graph_id, thread_id, at, read)
        except AgentlogError:
            raise
        except Exception:  # noqa: BLE001 - a reducer may refuse pending writes with any error
            found = await self._once(ExcludePendingWrites(self._reads), graph_id, thread_id, at, read)
        return [await self._one(graph_id, thread_id, at.checkpoint_ns, str(one["checkpoint_id"])) for one in found]

    async def _one(self, graph_id: str, thread_id: ThreadId, ns: str, checkpoint_id: str) -> JsonObject:
        at = At(checkpoint_id, ns)

        async def read(graph: Graph) -> JsonObject:
            [one] = [snapshot_json(one) async for one in graph.aget_state_history(config_at(thread_id, at))]
            return one

        return await self._read(graph_id, thread_id, at, read)

    async def _read(self, graph_id: str, thread_id: ThreadId, at: At, read: Callable[[Graph], Awaitable[T]]) -> T:
        try:
            return await self._once(self._reads, graph_id, thread_id, at, read)
        except AgentlogError:
            raise
        except Exception:  # noqa: BLE001 - as above
            return await self._once(ExcludePendingWrites(self._reads), graph_id, thread_id, at, read)

    async def _once(
        self,
        reads: CheckpointReads,
        graph_id: str,
        thread_id: ThreadId,
        at: At,
        read: Callable[[Graph], Awaitable[T]],
    ) -> T:
        saver = LogSaver(reads, ReadOnly(), self._serde, "read", HiddenValues(SecretKeys()))
        access = Access("threads.read", LogStore(MemoryStore()), config_at(thread_id, at))
        async with self._graphs.open(graph_id, saver, access) as graph:
            return await read(graph)
