"""How sync code and foreign loops reach a saver: everything runs on the loop that the saver was made in."""

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
    """A saver whose sync methods run its async ones on its loop; to be called from other threads only."""

    def __init__(self, *, serde: SerializerProtocol) -> None:
        super().__init__(serde=serde)
        self.loop = asyncio.get_running_loop()

    def blocking(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `work()` on the saver's loop and wait. Raises RuntimeError on the loop's own thread."""
        return blocking(self.loop, work, _INSTEAD)

    async def here(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the saver's loop, whichever awaits it."""
        return await here(self.loop, work)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint."""
        return self.blocking(lambda: self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Return checkpoints, newest first."""
        yield from self.blocking(lambda: _listed(self.alist(config, filter=filter, before=before, limit=limit)))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Write a checkpoint."""
        return self.blocking(lambda: self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Write what a task produced."""
        self.blocking(lambda: self.aput_writes(config, writes, task_id, task_path))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return the writes of channels along the parents."""
        return self.blocking(lambda: self.aget_delta_channel_history(config=config, channels=channels))


async def _listed(items: AsyncIterator[CheckpointTuple]) -> "list[CheckpointTuple]":
    return [item async for item in items]
