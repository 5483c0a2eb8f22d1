from abc import ABC, abstractmethod
from collections.abc import Coroutine

from .structs import TopicPartition

class ConsumerRebalanceListener(ABC):
    @abstractmethod
    def on_partitions_revoked(self, revoked: list[TopicPartition]) -> Coroutine[object, object, None] | None: ...
    @abstractmethod
    def on_partitions_assigned(self, assigned: list[TopicPartition]) -> Coroutine[object, object, None] | None: ...

class AbstractTokenProvider(ABC):
    @abstractmethod
    async def token(self) -> str: ...
    def extensions(self) -> dict[str, str]: ...
