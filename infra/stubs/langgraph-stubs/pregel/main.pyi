from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, Self

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.graph import Graph
from langgraph.channels.base import BaseChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.managed.base import ManagedValue
from langgraph.pregel._read import PregelNode
from langgraph.pregel.protocol import PregelProtocol
from langgraph.store.base import BaseStore
from langgraph.types import Command, Durability, StateSnapshot, StateUpdate, StreamMode
from typing_extensions import TypeVar

StateT = TypeVar("StateT", default=Any)
ContextT = TypeVar("ContextT", default=None)
InputT = TypeVar("InputT", default=StateT)
OutputT = TypeVar("OutputT", default=StateT)

class Pregel(Runnable[InputT, OutputT], Generic[StateT, ContextT, InputT, OutputT]):
    name: str
    config: RunnableConfig | None
    checkpointer: bool | BaseCheckpointSaver[Any] | None
    store: BaseStore | None
    nodes: dict[str, PregelNode]
    channels: dict[str, BaseChannel[Any, Any, Any] | type[ManagedValue[Any]]]
    trigger_to_nodes: Mapping[str, Sequence[str]]
    context_schema: type[ContextT] | None
    input_channels: str | Sequence[str]
    output_channels: str | Sequence[str]
    stream_channels: str | Sequence[str] | None
    interrupt_before_nodes: Literal["*"] | Sequence[str]
    interrupt_after_nodes: Literal["*"] | Sequence[str]
    step_timeout: float | None
    @property
    def stream_channels_asis(self) -> str | Sequence[str]: ...
    @property
    def stream_channels_list(self) -> Sequence[str]: ...
    def _apply_checkpointer_allowlist(
        self, checkpointer: BaseCheckpointSaver[Any] | None
    ) -> BaseCheckpointSaver[Any] | None: ...
    def copy(self, update: Mapping[str, object] | None = None) -> Self: ...
    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> Self: ...
    def validate(self) -> Self: ...
    def get_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Graph: ...
    async def aget_graph(self, config: RunnableConfig | None = None, *, xray: int | bool = False) -> Graph: ...
    def get_input_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]: ...
    def get_output_jsonschema(self, config: RunnableConfig | None = None) -> dict[str, Any]: ...
    def get_context_jsonschema(self) -> dict[str, Any] | None: ...
    def get_subgraphs(
        self, *, namespace: str | None = None, recurse: bool = False
    ) -> Iterator[tuple[str, Pregel[Any, Any, Any, Any] | PregelProtocol[Any, Any, Any, Any]]]: ...
    def aget_subgraphs(
        self, *, namespace: str | None = None, recurse: bool = False
    ) -> AsyncIterator[tuple[str, Pregel[Any, Any, Any, Any] | PregelProtocol[Any, Any, Any, Any]]]: ...
    def get_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot: ...
    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot: ...
    def get_state_history(
        self,
        config: RunnableConfig,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[StateSnapshot]: ...
    def aget_state_history(
        self,
        config: RunnableConfig,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[StateSnapshot]: ...
    def update_state(
        self, config: RunnableConfig, values: object, as_node: str | None = None, task_id: str | None = None
    ) -> RunnableConfig: ...
    async def aupdate_state(
        self, config: RunnableConfig, values: object, as_node: str | None = None, task_id: str | None = None
    ) -> RunnableConfig: ...
    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig: ...
    def invoke(
        self,
        input: InputT | Command[Any] | None,
        config: RunnableConfig | None = None,
        *,
        context: ContextT | None = None,
        stream_mode: StreamMode = "values",
        interrupt_before: Literal["*"] | Sequence[str] | None = None,
        interrupt_after: Literal["*"] | Sequence[str] | None = None,
        durability: Durability | None = None,
        **kwargs: Any,
    ) -> Any: ...
    async def ainvoke(
        self,
        input: InputT | Command[Any] | None,
        config: RunnableConfig | None = None,
        *,
        context: ContextT | None = None,
        stream_mode: StreamMode = "values",
        interrupt_before: Literal["*"] | Sequence[str] | None = None,
        interrupt_after: Literal["*"] | Sequence[str] | None = None,
        durability: Durability | None = None,
        **kwargs: Any,
    ) -> Any: ...
    def stream(  # type: ignore[override]  # as in langgraph: its keywords are narrower
        self,
        input: InputT | Command[Any] | None,
        config: RunnableConfig | None = None,
        *,
        context: ContextT | None = None,
        stream_mode: StreamMode | Sequence[StreamMode] | None = None,
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: Literal["*"] | Sequence[str] | None = None,
        interrupt_after: Literal["*"] | Sequence[str] | None = None,
        durability: Durability | None = None,
        subgraphs: bool = False,
        debug: bool | None = None,
        version: Literal["v1", "v2"] = "v1",
        **kwargs: Any,
    ) -> Iterator[Any]: ...
    def astream(  # type: ignore[override]  # as in langgraph: its keywords are narrower
        self,
        input: InputT | Command[Any] | None,
        config: RunnableConfig | None = None,
        *,
        context: ContextT | None = None,
        stream_mode: StreamMode | Sequence[StreamMode] | None = None,
        output_keys: str | Sequence[str] | None = None,
        interrupt_before: Literal["*"] | Sequence[str] | None = None,
        interrupt_after: Literal["*"] | Sequence[str] | None = None,
        durability: Durability | None = None,
        subgraphs: bool = False,
        debug: bool | None = None,
        version: Literal["v1", "v2"] = "v1",
        **kwargs: Any,
    ) -> AsyncIterator[Any]: ...
