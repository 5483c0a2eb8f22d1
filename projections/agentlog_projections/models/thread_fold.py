"""Pure fold of a thread's facts into its row.

Rows are changed in place, by one batch at a time; a lost transaction drops them.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import TypeAlias, assert_never

from agentlog_facts.configurable import is_hidden
from agentlog_facts.json_value import JsonObject, as_object, dump, load_object
from agentlog_facts.state_diff import apply_diff
from agentlog_facts.thread import (
    CancelAction,
    RunAlive,
    RunCancelRequested,
    RunClaimed,
    RunCreated,
    RunDeleted,
    RunFinished,
    RunReleased,
    StateUpdated,
    ThreadCopied,
    ThreadCreated,
    ThreadDeleted,
    ThreadFact,
    ThreadMetadataPatched,
    ThreadPruned,
    ThreadTtlSet,
)
from agentlog_projections.sql.read_model import Commit

STOPPED = frozenset({"UserInterrupt", "UserRollback"})
"""Errors of runs that were stopped on request: they did not fail. Source: docs/http-api.md, sections 8 and 9."""


Activity: TypeAlias = bool | CancelAction
"""State of an active run: whether it was ever claimed, or the action of an accepted cancel request."""


class Change(IntEnum):
    """Extent of a batch's changes of a row; each member includes the ones before it."""

    NOTHING = 0
    STAMPS = 1
    ROW = 2
    VALUES = 3


@dataclass(slots=True)
class ThreadRow:
    """A row of `threads`. `values` is JSON text; `loaded` tells whether it was read.

    `active` holds the active runs. `ttl` is as in `ThreadTtlSet`; `expires_at` is None without one, and after a thread
    was pruned as it says. `ordinal` counts the facts of the aggregate that are folded in, which makes a second
    application of a commit harmless.
    """

    thread_id: str
    partition: int
    created_at: datetime
    updated_at: datetime
    state_updated_at: datetime
    metadata: JsonObject
    temporary: bool
    status: str = "idle"
    config: JsonObject = field(default_factory=JsonObject)
    values: str | None = None
    error: JsonObject | None = None
    interrupts: JsonObject = field(default_factory=JsonObject)
    next: tuple[str, ...] = ()
    last_run_id: str | None = None
    version: int = -1
    meta_version: int | None = None
    deleted_at: datetime | None = None
    active: dict[str, Activity] = field(default_factory=dict[str, Activity])
    ttl: JsonObject | None = None
    expires_at: datetime | None = None
    ordinal: int = 0
    loaded: bool = True
    change: Change = Change.NOTHING

    def mark(self, change: Change) -> None:
        """Raise `change` to at least this extent."""
        if change > self.change:
            self.change = change


def moves_view(fact: object) -> bool:
    """Tell whether a fact changes the values of its thread."""
    return isinstance(fact, StateUpdated | RunFinished | RunDeleted) and bool(fact.view)


def fold(row: ThreadRow | None, commit: Commit, meta_version: int | None = None) -> ThreadRow | None:
    """Fold one accepted commit into the row of its thread; return None while there is no thread.

    `meta_version` is the version of `meta-` of an earlier thread with this id whose row was purged: it continues.
    """
    for fact in commit.draft.facts:
        if isinstance(fact, ThreadCreated):
            if row is None or row.ordinal <= commit.ordinal:
                row = _created(row, fact, commit, meta_version)
        elif isinstance(fact, ThreadFact) and row is not None and row.ordinal <= commit.ordinal:
            _evolve(row, fact, commit.draft.occurred_at)
    if row is not None and row.ordinal <= commit.ordinal:
        _stamp(row, commit)
    return row


def _stamp(row: ThreadRow, commit: Commit) -> None:
    row.ordinal = commit.ordinal + len(commit.draft.facts)
    stream = commit.draft.stream
    if stream.startswith("thread-"):
        row.version = commit.version
        row.mark(Change.STAMPS)
    elif stream.startswith("meta-"):
        row.meta_version = commit.version
        row.mark(Change.STAMPS)


def _created(old: ThreadRow | None, fact: ThreadCreated, commit: Commit, purged: int | None) -> ThreadRow:
    at = commit.draft.occurred_at
    row = ThreadRow(fact.thread_id, commit.place.partition, at, at, at, dict(fact.metadata), fact.temporary)
    row.ttl = fact.ttl
    row.expires_at = _expiry(row)
    row.meta_version = purged if old is None else old.meta_version  # versions continue after a deletion
    row.mark(Change.VALUES)
    return row


def _evolve(row: ThreadRow, fact: ThreadFact, at: datetime) -> None:
    match fact:
        case RunCreated():
            _run_created(row, fact)
        case RunClaimed():
            row.active[fact.run_id] = True
            return
        case RunCancelRequested() if row.active.get(fact.run_id) in (True, False):
            _run_cancelled(row, fact)
        case RunFinished():
            _run_finished(row, fact, at)
        case RunDeleted() | StateUpdated():
            _state_set(row, fact, at)
        case ThreadMetadataPatched():
            row.metadata = {**row.metadata, **fact.metadata}
        case ThreadCopied():
            _copied(row, fact)
        case ThreadTtlSet():
            row.ttl = fact.ttl
        case ThreadPruned():
            _pruned(row)
            return
        case ThreadDeleted():
            row.deleted_at = at
            row.active = {}
        case RunReleased() | RunAlive() | RunCancelRequested() | ThreadCreated():
            return
        case _:
            assert_never(fact)
    row.updated_at = at
    row.expires_at = _expiry(row)
    row.mark(Change.ROW)


def _expiry(row: ThreadRow) -> datetime | None:
    minutes = None if row.ttl is None else row.ttl.get("ttl_minutes")
    return row.updated_at + timedelta(minutes=minutes) if isinstance(minutes, int | float) else None


def _pruned(row: ThreadRow) -> None:
    if row.ttl is not None and row.ttl.get("strategy") == "keep_latest":
        row.expires_at = None
        row.mark(Change.ROW)


def _run_created(row: ThreadRow, fact: RunCreated) -> None:
    names: JsonObject = {name: fact.assistant[name] for name in ("graph_id", "assistant_id") if name in fact.assistant}
    row.metadata = {**row.metadata, **names}
    if fact.thread_config is None:
        row.config = shown_config(as_object(fact.kwargs.get("config") or {}, "config"))
    else:
        row.config = fact.thread_config
    row.active[fact.run_id] = False
    row.status = "busy"


def _run_cancelled(row: ThreadRow, fact: RunCancelRequested) -> None:
    """Show the thread as after the end of the run, which follows; a later request does not change the first one."""
    row.active[fact.run_id] = fact.action
    if fact.action == "interrupt":
        row.error = fact.error
    row.status = _status(row)


def _run_finished(row: ThreadRow, fact: RunFinished, at: datetime) -> None:
    ran = row.active.pop(fact.run_id, False) or fact.checkpoint_id is not None
    _move(row, fact.view)
    began = ran or bool(fact.view)
    if began:  # a run that never began does not change the state
        row.next, row.interrupts, row.last_run_id = fact.next, fact.interrupts, fact.run_id
    if fact.status in ("error", "timeout") or (began and (fact.status != "rollback" or row.active)):
        row.error = fact.error  # else it stays; a rollback is shown while another run waits
    row.state_updated_at = at
    row.status = _status(row)


def _state_set(row: ThreadRow, fact: RunDeleted | StateUpdated, at: datetime) -> None:
    if isinstance(fact, RunDeleted):
        row.active.pop(fact.run_id, None)
    if isinstance(fact, StateUpdated) or fact.run_id == row.last_run_id:  # the error is never that of an older run
        row.error = None
    _move(row, fact.view)
    row.next, row.interrupts = fact.next, fact.interrupts
    row.state_updated_at = at
    row.status = _status(row)


def _copied(row: ThreadRow, fact: ThreadCopied) -> None:
    _move(row, fact.view)
    row.next, row.interrupts = fact.next, fact.interrupts
    row.status = _status(row)


def _move(row: ThreadRow, view: JsonObject) -> None:
    if view:
        before = {} if row.values is None else load_object(row.values, "values")
        row.values = dump(apply_diff(before, view)).decode()
        row.mark(Change.VALUES)


def _status(row: ThreadRow) -> str:
    if any(isinstance(activity, bool) for activity in row.active.values()):
        return "busy"
    if row.error is not None and row.error.get("error") not in STOPPED:
        return "error"
    return "interrupted" if row.next or row.interrupts or "interrupt" in row.active.values() else "idle"


def shown_config(config: JsonObject) -> JsonObject:
    """Return the config of a run without a `thread_config`: without metadata and the keys that rows hide."""
    configurable = as_object(config.get("configurable") or {}, "configurable")
    own = {name: value for name, value in configurable.items() if not is_hidden(name)}
    shown: JsonObject = {name: value for name, value in config.items() if name not in ("configurable", "metadata")}
    shown["configurable"] = own
    return shown
