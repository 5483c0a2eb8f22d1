"""In-memory rows of PostgreSQL at one moment, folded from commits by the functions of the read models."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from tests.fakes.memory_log import MemoryLog

from agentlog_facts.checkpoint import CheckpointSaved, WritesSaved
from agentlog_facts.envelope import Draft, Fact, LogPosition
from agentlog_facts.guard import Accepted, Verdict
from agentlog_facts.ids import RunId, rest
from agentlog_facts.json_value import as_object
from agentlog_facts.thread import RunCreated, ThreadCreated, ThreadDeleted
from agentlog_projections.models.assistant_fold import AssistantFold, AssistantRow
from agentlog_projections.models.run_fold import RunOrigin, RunRow, created, evolve, run_of
from agentlog_projections.models.thread_fold import ThreadRow, fold
from agentlog_projections.sql.read_model import Commit

T = TypeVar("T")
INTERRUPT = "__interrupt__"


@dataclass(frozen=True, slots=True)
class LoggedCommit:
    """A row of the ledger's index."""

    place: LogPosition
    key: str
    stream: str
    event_id: str
    types: tuple[str, ...]
    verdict: Verdict

    @property
    def version(self) -> int | None:
        """Return its version on its stream, None if it was not accepted."""
        return self.verdict.version if isinstance(self.verdict, Accepted) else None


@dataclass
class MemoryRows:
    """The tables behind the queries.

    `partitions` tells which are present, `expected` is their minimum number; `interrupted` names the runs that reached
    an interrupt; `newest` maps a thread to its newest checkpoint; `now` is the clock of the database.
    """

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    partitions: dict[int, bool] = field(default_factory=dict[int, bool])
    expected: int = 1
    partition_of: dict[str, int] = field(default_factory=dict[str, int])
    quarantined: set[str] = field(default_factory=set[str])
    log: list[LoggedCommit] = field(default_factory=list[LoggedCommit])
    runs: dict[str, RunRow] = field(default_factory=dict[str, RunRow])
    threads: dict[str, ThreadRow] = field(default_factory=dict[str, ThreadRow])
    assistants: dict[str, AssistantRow] = field(default_factory=dict[str, AssistantRow])
    interrupted: set[str] = field(default_factory=set[str])
    newest: dict[str, str] = field(default_factory=dict[str, str])
    _ordinals: Counter[str] = field(default_factory=Counter[str])

    def fold(self, place: LogPosition, draft: Draft, verdict: Verdict) -> None:
        """Fold a commit with its verdict."""
        types = tuple(type(fact).__name__ for fact in draft.facts)
        self.log.append(LoggedCommit(place, draft.key, draft.stream, draft.event_id, types, verdict))
        self.partition_of.setdefault(draft.key, place.partition)
        if isinstance(verdict, Accepted):
            commit = Commit(place, draft, verdict.version, self._ordinals[draft.key])
            self._ordinals[draft.key] += len(draft.facts)
            self._fold_thread(commit)
            self._fold_runs(commit)
            self._fold_assistant(commit)

    def _fold_thread(self, commit: Commit) -> None:
        key, stream = commit.draft.key, commit.draft.stream
        row = fold(self.threads.get(key), commit) if stream.startswith(("thread-", "meta-")) else None
        if row is not None:
            self.threads[key] = row

    def _fold_assistant(self, commit: Commit) -> None:
        if commit.draft.stream.startswith("assistant-"):
            folding = AssistantFold(self.assistants.get(commit.draft.key))
            folding.add(commit)
            if folding.row is not None:
                self.assistants[commit.draft.key] = folding.row

    def _fold_runs(self, commit: Commit) -> None:
        key, at = commit.draft.key, commit.draft.occurred_at
        saver = self.runs.get(rest(commit.draft.stream)) if commit.draft.stream.startswith("run-") else None
        if saver is not None:
            saver.last_commit_at = max(saver.last_commit_at, at)
        for place, fact in enumerate(commit.draft.facts):
            if isinstance(fact, ThreadCreated):
                self.runs = {run_id: row for run_id, row in self.runs.items() if row.thread_id != key}
            elif isinstance(fact, ThreadDeleted):
                for row in self.runs_of(key):
                    if row.active:
                        row.deleted, row.epoch, row.updated_at = True, None, at
            else:
                self._fold_fact(fact, commit, commit.ordinal + place)

    def _fold_fact(self, fact: Fact, commit: Commit, seq: int) -> None:
        run_id = run_of(fact)
        if isinstance(fact, RunCreated):
            self.runs[fact.run_id] = created(fact, commit, seq)
        elif run_id is not None and run_id in self.runs:
            evolve(self.runs[run_id], fact, commit)
        elif isinstance(fact, CheckpointSaved) and fact.checkpoint_ns == "":
            self.newest[fact.thread_id] = fact.checkpoint_id
        elif isinstance(fact, WritesSaved) and fact.run_id is not None:
            writes = [as_object(write) for write in fact.writes]
            self.interrupted |= {str(fact.run_id) for write in writes if write["channel"] == INTERRUPT}

    def is_present(self, partition: int) -> bool:
        """Return whether a partition is present."""
        return self.partitions.get(partition, False)

    def all_present(self) -> bool:
        """Return whether all partitions are present, so that a row of an unknown partition is really missing."""
        return len(self.partitions) >= self.expected and all(self.partitions.values())

    def knows(self, key: str) -> bool:
        """Return whether the partition of an aggregate is present, or all are if it is unknown."""
        return self.is_present(self.partition_of[key]) if key in self.partition_of else self.all_present()

    def runs_of(self, thread_id: str) -> list[RunRow]:
        """Return the runs of a thread, the oldest first."""
        return sorted((row for row in self.runs.values() if row.thread_id == thread_id), key=lambda row: row.seq)

    def has_checkpoints(self, key: str) -> bool:
        """Return whether a thread has checkpoints or pending writes."""
        kinds = {"CheckpointSaved", "WritesSaved"}
        return any(one.key == key and one.version is not None and not kinds.isdisjoint(one.types) for one in self.log)

    def accepted_on(self, stream: str, key: str) -> list[LoggedCommit]:
        """Return the accepted commits on a stream of an aggregate, in order."""
        return [one for one in self.log if (one.key, one.stream) == (key, stream) and one.version is not None]

    def first_in_line(self) -> list[RunRow]:
        """Return the runs that may be claimed: see `claimable`."""
        threads = {row.thread_id for row in self.runs.values()}
        return [row for thread_id in sorted(threads) for row in self._next(thread_id)]

    def _next(self, thread_id: str) -> list[RunRow]:
        runs = [row for row in self.runs_of(thread_id) if row.active]
        taken = any(row.status == "running" or row.cancel is not None for row in runs)
        line = [row for row in runs if row.due_at is None or row.due_at <= self.now()]
        if taken or thread_id in self.quarantined or not line:
            return []
        return [min(line, key=lambda row: (row.attempt == 0, row.seq))]


class Asking(Protocol):
    """Way of a query to the rows and of its result back."""

    def __call__(self, question: Callable[[MemoryRows], T], /) -> Awaitable[T]:
        """Run a query. Raises: Unavailable."""
        ...


def at_once(rows: Callable[[], MemoryRows]) -> Asking:
    """Return a way without delay or fault."""

    async def asking(question: Callable[[MemoryRows], T], /) -> T:
        return question(rows())

    return asking


def folded(log: MemoryLog) -> MemoryRows:
    """Return the rows that follow from a log in memory."""
    rows = MemoryRows(partitions={0: True})
    for offset, (draft, verdict) in enumerate(log.rows):
        rows.fold(LogPosition(0, offset), draft, verdict)
    return rows


def origin_of(row: RunRow) -> RunOrigin:
    """Return the part of a run that never changes: rows in memory keep it."""
    assert row.origin is not None, row.run_id
    return row.origin


def id_of(row: RunRow) -> RunId:
    """Return a run's id."""
    return RunId(row.run_id)
