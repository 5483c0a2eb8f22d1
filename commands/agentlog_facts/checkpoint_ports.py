"""Port to the projected checkpoints: encoded values, in log order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agentlog_facts.checkpoint import CheckpointKey, Encoded, EncodedChannel, put_write
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject


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

    @property
    def key(self) -> CheckpointKey:
        """Return the identity of the checkpoint."""
        return CheckpointKey(self.thread_id, self.checkpoint_ns, self.checkpoint_id)


@dataclass(frozen=True, slots=True)
class CheckpointQuery:
    """Conditions on checkpoints; None sets no condition.

    `before`: only checkpoints accepted before this one, none if it is unknown. `metadata`: top-level keys that must
    have these values. `exclude_run`: no checkpoints and no writes of this run, not even its writes on checkpoints of
    other runs. `limit`: the maximal number of results. `as_of`: as the checkpoint with this `seq` was built, so only
    writes accepted before it, and also checkpoints and writes that were hidden after it.
    """

    thread_id: ThreadId | None = None
    ns: str | None = None
    checkpoint_id: str | None = None
    before: str | None = None
    metadata: JsonObject | None = None
    exclude_run: RunId | None = None
    limit: int | None = None
    as_of: int | None = None


class CheckpointReads(Protocol):
    """Reads of projected checkpoints, without hidden rows unless a query asks for them."""

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        """Return checkpoints with their pending writes, newest first.

        Within a thread, this is the order of acceptance; over all threads, the order of ids. Raises: Unavailable if the
        database does not answer.
        """
        ...


class RunVersions(Protocol):
    """Reads of the versions of runs' streams in the rows."""

    async def run_version(self, thread_id: ThreadId, run_id: RunId) -> int | None:
        """Return the version of the stream `run-<run_id>`, None if nothing was accepted on it.

        Checkpoint reads show all its facts up to this version. Raises: Unavailable if the database does not answer, or
        the partition has not caught up.
        """
        ...


async def find_latest(
    reads: CheckpointReads, thread_id: ThreadId, ns: str | None, exclude_run: RunId | None = None
) -> StoredCheckpoint | None:
    """Return the last accepted checkpoint of a namespace, or of the thread for None. Raises: Unavailable."""
    found = await reads.find(CheckpointQuery(thread_id, ns, exclude_run=exclude_run, limit=1))
    return found[0] if found else None


async def find_one(reads: CheckpointReads, thread_id: ThreadId, ns: str, checkpoint_id: str) -> StoredCheckpoint | None:
    """Return one checkpoint, None if there is none. Raises: Unavailable."""
    found = await reads.find(CheckpointQuery(thread_id, ns, checkpoint_id, limit=1))
    return found[0] if found else None


async def find_parent(reads: CheckpointReads, child: StoredCheckpoint) -> StoredCheckpoint | None:
    """Return the checkpoint on which a child was built, with the writes of that time. Raises: Unavailable.

    It is found also if it was hidden since, because the child still builds on it.
    """
    if child.parent_checkpoint_id is None:
        return None
    query = CheckpointQuery(child.thread_id, child.checkpoint_ns, child.parent_checkpoint_id, limit=1, as_of=child.seq)
    found = await reads.find(query)
    return found[0] if found else None


def merged(writes: Sequence[StoredWrite]) -> list[StoredWrite]:
    """Return one write per (task, index), in the order in which LangGraph applies them: (task_path, task_id, index).

    Source: langgraph.checkpoint.base, `writes_sort_key`.
    """
    chosen: dict[tuple[str, int], StoredWrite] = {}
    for write in sorted(writes, key=lambda w: w.seq):
        put_write(chosen, (write.task_id, write.index), write.index, write)
    return sorted(chosen.values(), key=lambda w: (w.task_path, w.task_id, w.index))
