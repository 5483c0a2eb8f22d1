from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, Literal, Self

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.pregel import Pregel
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.types import RetryPolicy
from typing_extensions import TypeVar

StateT = TypeVar("StateT", default=Any)
ContextT = TypeVar("ContextT", default=None)
InputT = TypeVar("InputT", default=StateT)
OutputT = TypeVar("OutputT", default=StateT)

# A node takes the state, or a part of it, and what it asks for; what it returns is judged when it runs.
_Node = (
    Callable[[Any], object]
    | Callable[[Any, RunnableConfig], object]
    | Callable[[Any, Runtime[Any]], object]
    | Runnable[Any, Any]
)
_Path = Callable[..., Hashable | Sequence[Hashable]] | Callable[..., Awaitable[Hashable | Sequence[Hashable]]]

class StateGraph(Generic[StateT, ContextT, InputT, OutputT]):
    nodes: dict[str, object]
    edges: set[tuple[str, str]]
    state_schema: type[StateT]
    context_schema: type[ContextT] | None
    input_schema: type[InputT]
    output_schema: type[OutputT]
    def __init__(
        self,
        state_schema: type[StateT],
        context_schema: type[ContextT] | None = None,
        *,
        input_schema: type[InputT] | None = None,
        output_schema: type[OutputT] | None = None,
    ) -> None: ...
    def add_node(
        self,
        node: str,
        action: _Node,
        *,
        defer: bool = False,
        metadata: Mapping[str, object] | None = None,
        input_schema: type[object] | None = None,
        retry_policy: RetryPolicy | Sequence[RetryPolicy] | None = None,
        destinations: dict[str, str] | tuple[str, ...] | None = None,
    ) -> Self: ...
    def add_edge(self, start_key: str | list[str], end_key: str) -> Self: ...
    def add_conditional_edges(
        self, source: str, path: _Path, path_map: dict[Hashable, str] | list[str] | None = None
    ) -> Self: ...
    def set_entry_point(self, key: str) -> Self: ...
    def set_finish_point(self, key: str) -> Self: ...
    def compile(
        self,
        checkpointer: bool | BaseCheckpointSaver[Any] | None = None,
        *,
        store: BaseStore | None = None,
        interrupt_before: Literal["*"] | list[str] | None = None,
        interrupt_after: Literal["*"] | list[str] | None = None,
        debug: bool = False,
        name: str | None = None,
    ) -> CompiledStateGraph[StateT, ContextT, InputT, OutputT]: ...

class CompiledStateGraph(Pregel[StateT, ContextT, InputT, OutputT], Generic[StateT, ContextT, InputT, OutputT]):
    builder: StateGraph[StateT, ContextT, InputT, OutputT]
