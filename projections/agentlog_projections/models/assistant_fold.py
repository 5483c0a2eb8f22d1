"""Fold of the facts of one assistant into its row and the rows of its versions."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import assert_never

from agentlog_facts.assistant import (
    AssistantCreated,
    AssistantDeleted,
    AssistantDeletionAsked,
    AssistantRevised,
    AssistantState,
    AssistantVersion,
    AssistantVersionSelected,
    number_of,
)
from agentlog_facts.envelope import Fact
from agentlog_facts.ids import AssistantId, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_projections.sql.read_model import Commit


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version as it was stated."""

    assistant_id: str
    version: int
    graph_id: str
    name: str
    description: str | None
    config: JsonObject
    context: JsonObject
    metadata: JsonObject
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AssistantRow:
    """An assistant. The row of a deleted one stays: `revision`, the version of the stream, continues.

    `newest` is the highest version number. `system_description` is the description that a server stated last.
    `deletion` holds {event_id, threads, runs} from the acceptance of a deletion to its end.
    """

    assistant_id: str
    version: int
    graph_id: str
    name: str
    description: str | None
    config: JsonObject
    context: JsonObject
    metadata: JsonObject
    created_at: datetime
    updated_at: datetime
    deleted: bool
    newest: int
    revision: int
    system_description: str | None
    deletion: JsonObject | None = None
    deletion_asked_at: datetime | None = None

    @property
    def state(self) -> AssistantState:
        """Return the state for deciders."""
        if self.deleted:
            return AssistantState()
        current = AssistantRevised(
            AssistantId(self.assistant_id),
            self.version,
            self.graph_id,
            self.config,
            self.context,
            self.metadata,
            self.name,
            self.description,
        )
        asked = None if self.deletion is None else asked_of(AssistantId(self.assistant_id), self.deletion)
        return AssistantState(current, self.newest, asked)


def asked_of(assistant_id: AssistantId, stored: JsonObject) -> AssistantDeletionAsked:
    """Return the fact that a row of an open deletion was made from."""
    threads, runs = stored.get("threads"), stored.get("runs")
    listed = tuple(ThreadId(str(one)) for one in threads) if isinstance(threads, list) else ()
    return AssistantDeletionAsked(assistant_id, listed, runs if isinstance(runs, dict) else {})


@dataclass(slots=True)
class AssistantFold:
    """Result of a fold of commits of one assistant; `cleared`: all versions from before are gone."""

    row: AssistantRow | None
    stated: dict[int, VersionRow] = field(default_factory=dict[int, VersionRow])
    cleared: bool = False

    def add(self, commit: Commit) -> None:
        """Fold a commit, unless the row has it already."""
        if self.row is not None and commit.version <= self.row.revision:
            return
        for fact in commit.draft.facts:
            self._add(fact, commit)

    def _add(self, fact: Fact, commit: Commit) -> None:
        match fact:
            case AssistantCreated() | AssistantRevised():
                at = commit.draft.occurred_at
                row = self.row = self._current(fact, commit)
                self.stated[row.version] = _version(row, at)
            case AssistantVersionSelected():
                self.row = self._current(fact, commit)
            case AssistantDeletionAsked():
                threads: list[Json] = [*fact.threads]
                asked: JsonObject = {"event_id": commit.draft.event_id, "threads": threads, "runs": fact.runs}
                self._change(fact, commit, deletion=asked, deletion_asked_at=commit.draft.occurred_at)
            case AssistantDeleted():
                self._change(fact, commit, deleted=True, deletion=None, deletion_asked_at=None)
                self.stated, self.cleared = {}, True
            case _:
                pass  # a fact of another noun

    def _change(self, fact: AssistantDeletionAsked | AssistantDeleted, commit: Commit, **changed: object) -> None:
        if self.row is None:
            raise LookupError(f"assistant {fact.assistant_id}: its creation is missing")
        self.row = replace(self.row, revision=commit.version, **changed)  # type: ignore[arg-type]  # names of its fields

    def _current(self, fact: AssistantVersion, commit: Commit) -> AssistantRow:
        """Return the row with this version as the current one."""
        at, old = commit.draft.occurred_at, self.row
        number = number_of(fact)
        told = fact.description if commit.draft.cause.actor.kind == "system" else None
        match fact:
            case AssistantCreated():
                created_at, newest = at, 1
            case AssistantRevised() | AssistantVersionSelected():
                created_at = at if old is None else old.created_at
                newest = number if old is None else max(old.newest, number)
                by_system = isinstance(fact, AssistantRevised) and commit.draft.cause.actor.kind == "system"
                told = told if by_system or old is None else old.system_description
            case _:
                assert_never(fact)
        return AssistantRow(
            assistant_id=fact.assistant_id,
            version=number,
            graph_id=fact.graph_id,
            name=fact.name,
            description=fact.description,
            config=fact.config,
            context=fact.context,
            metadata=fact.metadata,
            created_at=created_at,
            updated_at=at,
            deleted=False,
            newest=newest,
            revision=commit.version,
            system_description=told,
        )


def _version(row: AssistantRow, at: datetime) -> VersionRow:
    return VersionRow(
        row.assistant_id,
        row.version,
        row.graph_id,
        row.name,
        row.description,
        row.config,
        row.context,
        row.metadata,
        at,
    )
