"""Drawings, schemas and subgraphs of the loaded graphs, made by the code of users apart from the serving loop."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Protocol, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel

from agentlog_facts.json_value import Json, JsonObject, dump
from agentlog_facts.lru import Lru
from agentlog_facts.secret_values import MASK as SECRET
from agentlog_infra.langgraph.errors import code_failures
from agentlog_infra.langgraph.loading.graphs import Access, Graph, Graphs
from agentlog_infra.langgraph.store import LogStore
from agentlog_infra.langgraph.structure.schemas import FIELDS, graph_schemas
from agentlog_infra.langgraph.value_json import to_json

T = TypeVar("T")
CACHE_BYTES = 8 * 1024 * 1024
"""Bytes of all remembered structures; the code of graphs is fixed for a process, so none of them gets old."""
ENTRY_BYTES = 512
"""Approximate size of an entry without its JSON."""


class CodeRunner(Protocol):
    """Runs the code of graphs apart from the loop that serves requests."""

    async def run(self, make: Callable[[], Coroutine[object, object, T]]) -> T:
        """Run a coroutine on a loop for the code of graphs."""
        ...


class LoadedStructures:
    """Implements `graph_ports.GraphStructures`."""

    def __init__(self, graphs: Graphs, store: LogStore, loops: CodeRunner, cache_bytes: int = CACHE_BYTES) -> None:
        self._graphs = graphs
        self._store = store
        self._loops = loops
        self._known: Lru[tuple[str, bytes], bytes] = Lru(cache_bytes)

    async def drawing(self, graph_id: str, config: JsonObject, xray: bool | int) -> bytes:
        """Return {nodes, edges} as JSON. Raises: GraphFailed, GraphNotFound."""

        async def draw(graph: Graph, config: RunnableConfig) -> Json:
            return to_json((await graph.aget_graph(config, xray=xray)).to_json())

        return await self._answer(graph_id, ["drawing", type(xray).__name__, xray], config, draw)

    async def schemas(self, graph_id: str, config: JsonObject) -> bytes:
        """Return the schemas of a graph as JSON. Raises: GraphFailed, GraphNotFound."""

        async def describe(graph: Graph, _: RunnableConfig) -> Json:
            return graph_schemas(graph_id, graph)

        return await self._answer(graph_id, ["schemas"], config, describe)

    async def subgraphs(self, graph_id: str, config: JsonObject, namespace: str | None, recurse: bool) -> bytes:
        """Return name -> schemas of subgraphs as JSON. Raises: GraphFailed, GraphNotFound."""

        async def describe(graph: Graph, _: RunnableConfig) -> Json:
            found: JsonObject = {}
            async for name, one in graph.aget_subgraphs(namespace=namespace, recurse=recurse):
                found[name] = graph_schemas(graph_id, one) if isinstance(one, Pregel) else _unknown(graph_id)
            return found

        return await self._answer(graph_id, ["subgraphs", namespace, recurse], config, describe)

    async def _answer(
        self,
        graph_id: str,
        question: list[Json],
        config: JsonObject,
        make: Callable[[Graph, RunnableConfig], Awaitable[Json]],
    ) -> bytes:
        """Return what the code of a graph says, from memory if no factory makes the graph."""
        key = (graph_id, dump(question))
        compiled = self._graphs.compiled(graph_id) is not None
        known = self._known.get(key) if compiled else None
        if known is not None:
            return known
        found = await self._loops.run(lambda: self._made(graph_id, config, make))
        if compiled:
            self._known.put(key, found, len(found) + len(key[1]) + ENTRY_BYTES)
        return found

    async def _made(
        self, graph_id: str, config: JsonObject, make: Callable[[Graph, RunnableConfig], Awaitable[Json]]
    ) -> bytes:
        """Open the graph and ask it. Raises: GraphFailed for any error of its code."""
        given = _config(config)
        with code_failures(graph_id, "its structure was read"):
            async with self._graphs.open(graph_id, None, Access("assistants.read", self._store, given)) as graph:
                return dump(await make(graph, given))


def _config(config: JsonObject) -> RunnableConfig:
    """Return the config of an assistant for a factory, without masked secrets."""
    stated = config.get("configurable")
    shown = {name: value for name, value in stated.items() if value != SECRET} if isinstance(stated, dict) else {}
    given: RunnableConfig = {"configurable": shown}
    tags, limit = config.get("tags"), config.get("recursion_limit")
    if isinstance(tags, list):
        given["tags"] = [str(tag) for tag in tags]
    if isinstance(limit, int):
        given["recursion_limit"] = limit
    return given


def _unknown(graph_id: str) -> JsonObject:
    """Return the entry of a subgraph that is no local graph: nothing is known of its schemas."""
    return {**dict.fromkeys(FIELDS), "graph_id": graph_id}
