"""Port to the projected checkpoints: encoded values, in log order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from agentlog_facts.ids import RunId, Stream, ThreadId
from agentlog_facts.json_value import Json, JsonObject

Encoded: TypeAlias = Json
"""A string, number, boolean or null is encoded as itself. Any other value is {"json": value} if JSON represents it
exactly, {"message": fields} for a chat message (its field `type` names its class), {"items": [encoded, ...]} for a list
that may grow, or {"type": tag, "base64": text} for a value that only LangGraph's serializer can represent.
"""


@dataclass(frozen=True, slots=True)
class EncodedChannel:
    """Value of a channel in one version, with append chains resolved; channels of kind `empty` are left out.

    Kind `list`: the channel was stored as {"items": [...]} plus appended items; `items` holds all of them. Kind
    `value`: `value` holds any other value. `version` and `stream` name the row, as the base of a later append does.
    `full_length` counts the items of the full copy at the root of the chain, `parts` the appends after it.
    """

    kind: Literal["value", "list"]
    version: str
    stream: Stream
    value: Encoded = None
    items: tuple[Encoded, ...] = ()
    full_length: int = 0
    parts: int = 0


@dataclass(frozen=True, slots=True)
class StoredWrite:
    """Pending write. `seq` is its order of acceptance within the thread; `run_id` is None without a claim.

    Several runs may have written the same (task_id, index) on a checkpoint. Reads return all visible writes; `merged`
    keeps the first one for an index >= 0, else the last one.
    """

    task_id: str
    index: int
    channel: str
    value: Encoded
    task_path: str
    run_id: RunId | None
    seq: int


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """Checkpoint folded from the log; `checkpoint` is LangGraph's dict without `channel_values`.

    `channels` has one entry for each channel in `checkpoint.channel_versions` that has a value: the row of
    (channel, str(version)).
    """

    thread_id: ThreadId
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    run_id: RunId | None
    seq: int
    checkpoint: JsonObject
    metadata: JsonObject
    channels: Mapping[str, EncodedChannel]
    writes: tuple[StoredWrite, ...]


class CheckpointReads(Protocol):
    """Reads of projected checkpoints, without hidden rows; `exclude_run` also leaves out all rows of one run.

    Each method raises Unavailable when the database does not answer.
    """

    async def latest(self, thread_id: ThreadId, ns: str, exclude_run: RunId | None = None) -> StoredCheckpoint | None:
        """Return the last accepted checkpoint of the namespace."""
        ...

    async def get(
        self, thread_id: ThreadId, ns: str, checkpoint_id: str, exclude_run: RunId | None = None
    ) -> StoredCheckpoint | None:
        """Return one checkpoint with its pending writes."""
        ...

    async def history(
        self,
        thread_id: ThreadId | None,
        ns: str | None,
        before_checkpoint_id: str | None = None,
        limit: int | None = None,
        metadata: JsonObject | None = None,
    ) -> Sequence[StoredCheckpoint]:
        """Return checkpoints in reverse order of acceptance; None for thread or namespace means all of them.

        `before_checkpoint_id`: only checkpoints accepted before this one (none if it is unknown). `metadata`: top-level
        keys that must have these values. `limit`: the maximal number of results.
        """
        ...


def merged(writes: Sequence[StoredWrite]) -> list[StoredWrite]:
    """Return one write per (task, index), in the order in which LangGraph applies them: (task_path, task_id, index).

    Source: langgraph.checkpoint.base, `WRITES_IDX_MAP` (negative indexes replace) and `writes_sort_key`.
    """
    chosen: dict[tuple[str, int], StoredWrite] = {}
    for write in sorted(writes, key=lambda w: w.seq):
        if write.index < 0 or (write.task_id, write.index) not in chosen:
            chosen[write.task_id, write.index] = write
    return sorted(chosen.values(), key=lambda w: (w.task_path, w.task_id, w.index))
