"""Decides which rows checkpoints and pending writes become, within one batch; pure, no database."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from agentlog_facts.checkpoint import CheckpointSaved, CheckpointsHidden, WritesSaved
from agentlog_facts.json_value import Json, JsonObject, as_object, dump
from agentlog_projections.models.run_fold import hides
from agentlog_projections.sql.read_model import Commit

CheckpointKey = tuple[str, str, str]
"""thread_id, checkpoint_ns, checkpoint_id."""
WriteKey = tuple[str, str, str, str, str, int]
"""thread_id, checkpoint_ns, checkpoint_id, run_id, task_id, index."""
NO_RUN = ""
"""The run_id of writes that were made outside a claim."""


@dataclass(slots=True)
class CheckpointRow:
    """A new row of `checkpoints`; `versions` maps each of its channels to the version it has there."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    seq: int
    run_id: str | None
    parent_checkpoint_id: str | None
    versions: dict[str, str]
    checkpoint: bytes
    metadata: str
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A new row of `channels`; `payload` is JSON: the encoded value, or the list of appended items."""

    thread_id: str
    checkpoint_ns: str
    channel: str
    version: str
    seq: int
    stream: str
    kind: str
    base_stream: str | None
    base_version: str | None
    length: int | None
    payload: bytes


@dataclass(slots=True)
class WriteRow:
    """A new row of `writes`."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    run_id: str
    task_id: str
    index: int
    seq: int
    channel: str
    task_path: str
    value: bytes
    hidden: bool = False


@dataclass(slots=True)
class CheckpointBatch:
    """What a batch adds; what it hides or erases of earlier batches."""

    checkpoints: dict[CheckpointKey, CheckpointRow] = field(default_factory=dict[CheckpointKey, CheckpointRow])
    channels: list[ChannelRow] = field(default_factory=list[ChannelRow])
    writes: dict[WriteKey, WriteRow] = field(default_factory=dict[WriteKey, WriteRow])
    hidden_runs: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    hidden: list[CheckpointKey] = field(default_factory=list[CheckpointKey])
    erased: list[str] = field(default_factory=list[str])

    def fold(self, commit: Commit) -> None:
        """Fold one accepted commit."""
        for place, fact in enumerate(commit.draft.facts):
            if isinstance(fact, CheckpointSaved):
                self._saved(fact, commit.ordinal + place, commit.draft.stream)
            elif isinstance(fact, WritesSaved):
                self._written(fact, commit.ordinal + place)
            elif isinstance(fact, CheckpointsHidden):
                self._hide([_key(fact.thread_id, as_object(one, "checkpoint")) for one in fact.checkpoints])
            else:
                run_id = hides(fact)
                if run_id is not None:
                    self._hide_run(commit.draft.key, run_id)

    def begin_again(self, thread_id: str) -> None:
        """Erase what an earlier life of the thread left."""
        self.erased.append(thread_id)
        self.checkpoints = {key: row for key, row in self.checkpoints.items() if key[0] != thread_id}
        self.channels = [row for row in self.channels if row.thread_id != thread_id]
        self.writes = {key: row for key, row in self.writes.items() if key[0] != thread_id}

    def _saved(self, fact: CheckpointSaved, seq: int, stream: str) -> None:
        key = (fact.thread_id, fact.checkpoint_ns, fact.checkpoint_id)
        versions = as_object(fact.checkpoint.get("channel_versions", {}), "channel_versions")
        self.checkpoints[key] = CheckpointRow(
            *key,
            seq=seq,
            run_id=fact.run_id,
            parent_checkpoint_id=fact.parent_checkpoint_id,
            versions={name: str(version) for name, version in versions.items()},
            checkpoint=dump(fact.checkpoint),
            metadata=dump(fact.metadata).decode(),
        )
        for stored in fact.channels:
            self.channels.append(_channel(key, as_object(stored, "channel"), seq, stream))

    def _written(self, fact: WritesSaved, seq: int) -> None:
        for stored in fact.writes:
            write = as_object(stored, "write")
            index = write["index"]
            if not isinstance(index, int):
                raise ValueError(f"write of task {fact.task_id}: expected an index, found {index!r}")
            row = WriteRow(
                thread_id=fact.thread_id,
                checkpoint_ns=fact.checkpoint_ns,
                checkpoint_id=fact.checkpoint_id,
                run_id=fact.run_id or NO_RUN,
                task_id=fact.task_id,
                index=index,
                seq=seq,
                channel=str(write["channel"]),
                task_path=fact.task_path,
                value=dump(write["value"]),
            )
            key = (row.thread_id, row.checkpoint_ns, row.checkpoint_id, row.run_id, row.task_id, index)
            if index < 0 or key not in self.writes:  # LangGraph: writes with a reserved index replace, others stay
                self.writes[key] = row

    def _hide(self, keys: Sequence[CheckpointKey]) -> None:
        for key in keys:
            self.hidden.append(key)
            if key in self.checkpoints:
                self.checkpoints[key].hidden = True

    def _hide_run(self, thread_id: str, run_id: str) -> None:
        self.hidden_runs.append((thread_id, run_id))
        for checkpoint in self.checkpoints.values():
            if checkpoint.run_id == run_id:
                checkpoint.hidden = True
        for write in self.writes.values():
            if write.run_id == run_id:
                write.hidden = True


def _key(thread_id: str, named: JsonObject) -> CheckpointKey:
    return thread_id, str(named["ns"]), str(named["checkpoint_id"])


def _channel(key: CheckpointKey, stored: JsonObject, seq: int, stream: str) -> ChannelRow:
    kind = str(stored["kind"])
    base = as_object(stored["base"], "base") if kind == "append" else {}
    length = base.get("length")
    payload: Json = {"append": stored.get("items"), "full": stored.get("value")}.get(kind)
    if kind not in ("full", "append", "empty"):
        raise ValueError(f"channel {stored['channel']}: unknown kind {kind}")
    return ChannelRow(
        thread_id=key[0],
        checkpoint_ns=key[1],
        channel=str(stored["channel"]),
        version=str(stored["version"]),
        seq=seq,
        stream=stream,
        kind=kind,
        base_stream=str(base["stream"]) if base else None,
        base_version=str(base["version"]) if base else None,
        length=length if isinstance(length, int) else None,
        payload=dump(payload),
    )
