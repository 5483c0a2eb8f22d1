"""Rows of checkpoints, channel versions and pending writes that one batch adds; pure, no database."""

from dataclasses import dataclass, field

from agentlog_facts.checkpoint import (
    ChannelEntry,
    CheckpointKey,
    CheckpointSaved,
    CheckpointsHidden,
    WritesSaved,
    channel_entries,
    channel_versions,
    hidden_checkpoints,
    put_write,
    write_entries,
)
from agentlog_facts.ids import Stream
from agentlog_facts.json_value import dump
from agentlog_projections.models.run_fold import hides
from agentlog_projections.sql.read_model import Commit

WriteKey = tuple[str, str, str, str, str, int]
"""thread_id, checkpoint_ns, checkpoint_id, run_id, task_id, index."""
NO_RUN = ""
"""The run_id of writes made outside a claim."""


@dataclass(slots=True)
class CheckpointRow:
    """A new row of `checkpoints`; `versions` maps each of its channels to a version."""

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


@dataclass(slots=True)
class ChannelRow:
    """A new row of `channels`; `payload` is that of the entry as JSON."""

    thread_id: str
    checkpoint_ns: str
    seq: int
    entry: ChannelEntry
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
    """Rows that a batch adds, and rows of earlier batches that it hides or erases."""

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
                self._hide(fact)
            else:
                run_id = hides(fact)
                if run_id is not None:
                    self._hide_run(commit.draft.key, run_id)

    def begin_again(self, thread_id: str) -> None:
        """Erase the rows of an earlier thread with this id."""
        self.erased.append(thread_id)
        self.checkpoints = {key: row for key, row in self.checkpoints.items() if key[0] != thread_id}
        self.channels = [row for row in self.channels if row.thread_id != thread_id]
        self.writes = {key: row for key, row in self.writes.items() if key[0] != thread_id}

    def _saved(self, fact: CheckpointSaved, seq: int, stream: Stream) -> None:
        key = CheckpointKey(fact.thread_id, fact.checkpoint_ns, fact.checkpoint_id)
        self.checkpoints[key] = CheckpointRow(
            *key,
            seq=seq,
            run_id=fact.run_id,
            parent_checkpoint_id=fact.parent_checkpoint_id,
            versions=channel_versions(fact.checkpoint),
            checkpoint=dump(fact.checkpoint),
            metadata=dump(fact.metadata).decode(),
        )
        for entry in channel_entries(fact, stream):
            row = ChannelRow(fact.thread_id, fact.checkpoint_ns, seq, entry, dump(entry.payload))
            self.channels.append(row)

    def _written(self, fact: WritesSaved, seq: int) -> None:
        for index, channel, value in write_entries(fact):
            row = WriteRow(
                thread_id=fact.thread_id,
                checkpoint_ns=fact.checkpoint_ns,
                checkpoint_id=fact.checkpoint_id,
                run_id=fact.run_id or NO_RUN,
                task_id=fact.task_id,
                index=index,
                seq=seq,
                channel=channel,
                task_path=fact.task_path,
                value=dump(value),
            )
            key = (row.thread_id, row.checkpoint_ns, row.checkpoint_id, row.run_id, row.task_id, index)
            put_write(self.writes, key, index, row)

    def _hide(self, fact: CheckpointsHidden) -> None:
        for key in hidden_checkpoints(fact):
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
