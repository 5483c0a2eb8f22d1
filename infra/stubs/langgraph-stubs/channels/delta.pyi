from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

from langgraph.channels.base import BaseChannel

Value = TypeVar("Value")

class DeltaChannel(BaseChannel[Any, Any, Any], Generic[Value]):
    value: Value | Any
    reducer: Callable[[Any, Sequence[Any]], Any]
    snapshot_frequency: int

    def __init__(
        self,
        reducer: Callable[[Any, Sequence[Any]], Any],
        typ: type[Value] | None = None,
        *,
        snapshot_frequency: int = 100,
    ) -> None: ...
    @property
    def ValueType(self) -> Any: ...
    @property
    def UpdateType(self) -> Any: ...
    def from_checkpoint(self, checkpoint: Any) -> Self: ...
    def update(self, values: Sequence[Any]) -> bool: ...
    def get(self) -> Any: ...
