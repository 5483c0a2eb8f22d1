"""Facts of LangGraph checkpoints: what one superstep saved, stored so that a thread grows linearly.

They lie on `run-<run_id>` when a claimed run writes them (with its epoch), else on `thread-<thread_id>`.
"""

from dataclasses import dataclass
from typing import TypeAlias

from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """`checkpoint` is LangGraph's dict without `channel_values`; `channels` holds the changed ones only.

    A channel is {channel, version, kind, ...}: kind `full` with `value`; kind `append` with `items` to be added to the
    list that `base` {version, length, stream} names; kind `empty` without value. `version` is str() of the one in
    `channel_versions`. Values and items are encoded (`checkpoint_ports.Encoded`): scalars as themselves, else
    {"json": value} where JSON says it exactly, {"message": fields}, or {"type": tag, "base64": bytes of LangGraph's
    serializer}; a list that may grow is {"items": [encoded, ...]}.
    `run_id` is the run whose claim wrote it, None outside of a claim.
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
    """Pending writes of one task on a checkpoint; `writes` lists {index, channel, value} with encoded values."""

    thread_id: ThreadId
    run_id: RunId | None
    checkpoint_ns: str
    checkpoint_id: str
    task_id: str
    task_path: str
    writes: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class CheckpointsHidden:
    """These checkpoints ({ns, checkpoint_id}) are hidden; `reason` is `prune` or `delete_for_runs`."""

    thread_id: ThreadId
    checkpoints: tuple[Json, ...]
    reason: str


CheckpointFact: TypeAlias = CheckpointSaved | WritesSaved | CheckpointsHidden
