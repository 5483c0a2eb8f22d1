"""Facts of LangGraph checkpoints, stored as changes, so that a thread grows linearly.

The facts of a claimed run are on stream `run-<run_id>`, with its epoch; all others are on `thread-<thread_id>`.
"""

from dataclasses import dataclass
from typing import TypeAlias

from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint was saved. `checkpoint` is LangGraph's dict without `channel_values`.

    `channels` lists the changed channels only, as {channel, version, kind, ...}. Kind `full` has a `value`. Kind
    `append` has `items`, which follow the list that `base` {version, length, stream} names. Kind `empty` has no value.
    `version` is `str()` of the version in `channel_versions`. Values and items are encoded
    (`checkpoint_ports.Encoded`): a scalar as itself, else {"json": value} if JSON represents the value exactly,
    {"message": fields}, or {"type": tag, "base64": bytes of LangGraph's serializer}; a list that may grow is
    {"items": [encoded, ...]}.
    `run_id` is the run whose claim wrote the checkpoint, None without a claim.
    """

    thread_id: ThreadId
    run_id: RunId | None
    checkpoint_ns: str
    checkpoint_id: str
    parent_checkpoint_id: str | None
    checkpoint: JsonObject
    metadata: JsonObject
    channels: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class WritesSaved:
    """Pending writes of one task were saved; `writes` lists {index, channel, value} with encoded values."""

    thread_id: ThreadId
    run_id: RunId | None
    checkpoint_ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    writes: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class CheckpointsHidden:
    """These checkpoints, as {ns, checkpoint_id}, were hidden; `reason` is `prune` or `delete_for_runs`."""

    thread_id: ThreadId
    checkpoints: tuple[Json, ...]
    reason: str


CheckpointFact: TypeAlias = CheckpointSaved | WritesSaved | CheckpointsHidden
