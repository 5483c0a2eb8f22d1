"""Loader of the graphs that a process serves.

It accepts a compiled graph, a StateGraph, an entrypoint, or a factory of these (sync, async, or an async context
manager). A StateGraph is compiled once and a factory called for each use; each use gets its own checkpointer and store.
Source: docs/http-api.md, section 22.
"""

import copy
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard
from weakref import finalize

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore
from langgraph_sdk.runtime import _ExecutionRuntime, _ReadRuntime  # pyright: ignore[reportPrivateUsage] - not exported

from agentlog_facts.errors import AgentlogError, Misconfigured
from agentlog_facts.graph_ports import GraphNotFound
from agentlog_facts.json_value import JsonObject
from agentlog_infra.langgraph.loading.config import GraphsConfig, GraphSpec
from agentlog_infra.langgraph.loading.environment import describe_environment
from agentlog_infra.langgraph.loading.user_modules import digest, load_attribute, prepare, without_running_loop

log = logging.getLogger(__name__)

Graph: TypeAlias = Pregel[Any, Any, Any, Any]
AccessContext: TypeAlias = Literal["threads.create_run", "threads.update", "threads.read", "assistants.read"]
Factory: TypeAlias = Callable[..., object]
Parameter: TypeAlias = Literal["config", "runtime"]


class FactoryEndedEarly(RuntimeError):
    """The context manager of a factory swallowed the error that ended the use of its graph; that is the cause."""


@dataclass(frozen=True, slots=True)
class Access:
    """The reason for opening a graph, with the store, config and context that a factory gets."""

    context: AccessContext
    store: BaseStore
    config: RunnableConfig = field(default_factory=lambda: RunnableConfig())
    run_context: object = None


@dataclass(frozen=True, slots=True)
class _Loaded:
    spec: GraphSpec
    graph: Graph | None
    factory: Factory | None
    parameters: Mapping[str, Parameter]


class Graphs:
    """The loaded graphs of one project."""

    def __init__(self, loaded: Sequence[_Loaded], root: Path) -> None:
        self._loaded = {one.spec.graph_id: one for one in loaded}
        self._code: JsonObject = {"graph_digest": digest(root), **describe_environment(root)}

    @classmethod
    def load(cls, config: GraphsConfig) -> "Graphs":
        """Import every graph, where no event loop runs. Raises Misconfigured, naming graph, file, line and error."""
        prepare(config)
        loaded, loop = without_running_loop(lambda: [_load(config, spec) for spec in config.graphs])
        graphs = cls(loaded, config.root)
        finalize(graphs, loop.close)  # modules may have kept it
        return graphs

    def ids(self) -> Sequence[str]:
        """Return the ids of the graphs, in the order of the configuration."""
        return list(self._loaded)

    def description(self, graph_id: str) -> str | None:
        """Return a graph's description. Raises GraphNotFound."""
        return self._one(graph_id).spec.description

    def compiled(self, graph_id: str) -> Graph | None:
        """Return a graph that needs no factory, None for a factory. Raises GraphNotFound."""
        return self._one(graph_id).graph

    def provenance(self, graph_id: str) -> JsonObject:
        """Return digest, versions and git revision of the code that runs of the graph execute. Raises GraphNotFound."""
        return {"graph_id": self._one(graph_id).spec.graph_id, **self._code}

    @asynccontextmanager
    async def open(
        self, graph_id: str, saver: BaseCheckpointSaver[Any] | None, access: Access
    ) -> AsyncGenerator[Graph]:
        """Open a graph with its checkpointer and store.

        Raises GraphNotFound, FactoryEndedEarly, Misconfigured if the factory makes no graph, and any error of it.
        """
        loaded = self._one(graph_id)
        if loaded.graph is not None:
            yield _with(loaded.graph, saver, access.store)
            return
        thrown: BaseException | None = None
        async with _made(loaded, access) as made:
            graph = _compiled(loaded.spec, made)
            if _executes(access):
                _warn_of_unused_store(loaded.spec, graph, access.store)
            try:
                yield _with(graph, saver, access.store)
            except BaseException as error:
                thrown = error
                raise
        if isinstance(thrown, AgentlogError):  # pyright: ignore[reportUnnecessaryIsInstance]  # a factory may swallow it
            raise thrown
        if thrown is not None:
            raise FactoryEndedEarly(
                f"graph {graph_id}: the context manager of its factory ended the use of the graph before its end, and "
                f"swallowed {type(thrown).__name__}"
            ) from thrown

    def _one(self, graph_id: str) -> _Loaded:
        found = self._loaded.get(graph_id)
        if found is None:
            raise GraphNotFound(f"graph {graph_id}: not loaded; there are {', '.join(self._loaded)}")
        return found


def _load(config: GraphsConfig, spec: GraphSpec) -> _Loaded:
    found = load_attribute(config, spec)
    if not _is_graph(found) and not _is_builder(found) and _is_factory(found):
        return _Loaded(spec, None, found, _parameters(spec, found))
    graph = _compiled(spec, found)
    _warn_of_unused_store(spec, graph)
    return _Loaded(spec, graph, None, {})


def _warn_of_unused_store(spec: GraphSpec, graph: Graph, given: BaseStore | None = None) -> None:
    """Log a warning if the graph has a store of its own, which the server replaces."""
    if graph.store is not None and graph.store is not given:
        log.warning("graph.own_store_unused", extra={"graph_id": spec.graph_id, "store": type(graph.store).__name__})


def _compiled(spec: GraphSpec, found: object) -> Graph:
    """Return the compiled graph. Raises Misconfigured for another object and for a graph with its own checkpointer."""
    if _is_builder(found):
        try:
            found = found.compile()
        except ValueError as error:
            raise Misconfigured(f"graph {spec.graph_id}: {spec.source}:{spec.attribute}: {error}") from error
    if not _is_graph(found):
        kind = type(found).__name__
        raise Misconfigured(
            f"graph {spec.graph_id}: {spec.attribute} is neither a graph nor a factory of one, but {kind}"
        )
    if isinstance(found.checkpointer, BaseCheckpointSaver):
        own = type(found.checkpointer).__name__
        raise Misconfigured(
            f"graph {spec.graph_id}: it was compiled with a checkpointer of its own ({own}); "
            "remove it, the server sets the checkpointer of every graph"
        )
    return found


def _with(graph: Graph, saver: BaseCheckpointSaver[Any] | None, store: BaseStore) -> Graph:
    """Return a shallow copy with checkpointer and store, without compiling the graph again."""
    given = copy.copy(graph)
    given.checkpointer = saver
    given.store = store
    return given


def _parameters(spec: GraphSpec, factory: Factory) -> Mapping[str, Parameter]:
    """Return the kind of each parameter of a factory, by name or by type. Raises Misconfigured for other parameters."""
    known: dict[str, Parameter] = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        kind = _kind(name, str(parameter.annotation))
        if kind is not None:
            known[name] = kind
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            raise Misconfigured(
                f"graph {spec.graph_id}: factory {spec.attribute} has a parameter {name}; "
                "the server passes config and runtime only"
            )
    return known


def _kind(name: str, annotation: str) -> Parameter | None:
    if "Runtime" in annotation or name == "runtime":
        return "runtime"
    return "config" if "RunnableConfig" in annotation or name == "config" else None


@asynccontextmanager
async def _made(loaded: _Loaded, access: Access) -> AsyncGenerator[object]:
    """Call a factory; if it returns a context manager, leave that after the use of the graph."""
    if loaded.factory is None:
        raise Misconfigured(f"graph {loaded.spec.graph_id}: it has no factory")
    arguments = {name: _argument(kind, access) for name, kind in loaded.parameters.items()}
    made = loaded.factory(**arguments)
    if _is_context(made):
        async with made as entered:
            yield entered
    else:
        yield await made if _is_awaitable(made) else made


def _executes(access: Access) -> bool:
    return access.context == "threads.create_run"


def _argument(kind: Parameter, access: Access) -> object:
    executes = _executes(access)
    if kind == "config":
        configurable = {**access.config.get("configurable", {}), "__is_for_execution__": executes}
        return {**access.config, "configurable": configurable}
    if executes:
        return _ExecutionRuntime(
            access_context=access.context, user=None, store=access.store, context=access.run_context
        )
    read: _ReadRuntime[Any] = _ReadRuntime(access_context=access.context, user=None, store=access.store)
    return read


def _is_graph(found: object) -> TypeGuard[Graph]:
    return isinstance(found, Pregel)


def _is_builder(found: object) -> TypeGuard["StateGraph[Any, Any, Any, Any]"]:
    return isinstance(found, StateGraph)


def _is_factory(found: object) -> TypeGuard[Factory]:
    return callable(found)


def _is_awaitable(found: object) -> TypeGuard[Awaitable[object]]:
    return inspect.isawaitable(found)


def _is_context(found: object) -> TypeGuard[AbstractAsyncContextManager[object]]:
    return hasattr(found, "__aenter__") and not isinstance(found, Pregel)
