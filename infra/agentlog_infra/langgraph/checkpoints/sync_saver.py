"""Base class of savers that runs every call on the saver's own loop, also for threads and other loops."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentlog_infra.langgraph.loop_bridge import blocking, here

T = TypeVar("T")
_INSTEAD = (
    "a synchronous graph call (invoke, stream, get_state) inside async code would block its own loop: "
    "use ainvoke, astream or aget_state there"
)


class LoopBoundSaver(BaseCheckpointSaver[str]):
    """A saver whose sync methods run its async methods on its loop; call them from other threads only."""

    def __init__(self, *, serde: SerializerProtocol) -> None:
        super().__init__(serde=serde)
        self.loop = asyncio.get_running_loop()

    def blocking(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `work()` on the saver's loop and wait. Raises RuntimeError on the loop's own thread."""
        return blocking(self.loop, work, _INSTEAD)

    async def here(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the saver's loop, whichever loop awaits it."""
        return await here(self.loop, work)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint. Raises: as `aget_tuple`."""
        return self.blocking(lambda: self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints, newest first. Raises: as `alist`."""
        yield from self.blocking(lambda: _listed(self.alist(config, filter=filter, before=before, limit=limit)))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Write a checkpoint. Raises: as `aput`."""
        return self.blocking(lambda: self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Write the output of a task. Raises: as `aput_writes`."""
        self.blocking(lambda: self.aput_writes(config, writes, task_id, task_path))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return the writes of each channel since its last stored value."""
        return self.blocking(lambda: self.aget_delta_channel_history(config=config, channels=channels))


async def _listed(items: AsyncIterator[CheckpointTuple]) -> "list[CheckpointTuple]":
    return [item async for item in items]
