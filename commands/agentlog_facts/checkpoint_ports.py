"""What the saver asks of the projected checkpoints: encoded values in, encoded values out, in log order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from agentlog_facts.ids import RunId, Stream, ThreadId
from agentlog_facts.json_value import Json, JsonObject

Encoded: TypeAlias = Json
"""A string, number, boolean or null stands for itself. Any other value is {"json": value} where JSON says it exactly,
{"message": fields} for a chat message (their `type` tells its class), {"type": tag, "base64": text} for what only
LangGraph's serializer can say, or, for a list that may grow, {"items": [encoded, ...]}.
"""


@dataclass(frozen=True, slots=True)
class EncodedChannel:
    """A channel's value in one version, append chains resolved; channels of kind `empty` are left out.

    `list`: the channel was stored as {"items": [...]} plus appended items, all of them stand in `items`. `value`:
    anything else, in `value`. `version` and `stream` name the row, as a later append names its base.
    `full_length` counts the items of the full copy at the root of the chain, `parts` the appends that follow it.
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
    """A pending write. `seq` is the order of acceptance within the thread; `run_id` is None outside a claim.

    Several runs may have written the same (task_id, index) on a checkpoint: all visible ones are returned, and
    `merged` picks: for index >= 0 the first one, else the last one.
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
    """A checkpoint as folded from the log; `checkpoint` is LangGraph's dict without `channel_values`.

    `channels` holds one entry for every channel that `checkpoint.channel_versions` names and that has a value: the
    row with (channel, str(version)).
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
    """Reads of projected checkpoints. Hidden rows never show; `exclude_run` also hides all that one run accepted.

    All raise Unavailable when the database does not answer.
    """

    async def latest(self, thread_id: ThreadId, ns: str, exclude_run: RunId | None = None) -> StoredCheckpoint | None:
        """Return the checkpoint of the namespace that was accepted last."""
        ...

    async def get(
        self, thread_id: ThreadId, ns: str, checkpoint_id: str, exclude_run: RunId | None = None
    ) -> StoredCheckpoint | None:
        """Return one checkpoint, with the writes that lie on it."""
        ...

    async def history(
        self,
        thread_id: ThreadId | None,
        ns: str | None,
        before_checkpoint_id: str | None = None,
        limit: int | None = None,
        metadata: JsonObject | None = None,
    ) -> Sequence[StoredCheckpoint]:
        """Return checkpoints, newest first by order of acceptance; None for thread or namespace means all of them.

        `before_checkpoint_id`: only those accepted before it (none when it is unknown); `metadata`: top-level keys
        that must be equal; `limit` counts results.
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
