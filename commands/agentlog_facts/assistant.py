"""Facts of an assistant, its versions and its deletion, and the state they fold into."""

from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from agentlog_facts.ids import AssistantId, ThreadId
from agentlog_facts.json_value import JsonObject


@dataclass(frozen=True, slots=True)
class AssistantCreated:
    """An assistant was created, as version 1."""

    assistant_id: AssistantId
    graph_id: str
    config: JsonObject
    context: JsonObject
    metadata: JsonObject
    name: str
    description: str | None


@dataclass(frozen=True, slots=True)
class AssistantRevised:
    """The assistant got version n+1; the fact holds all of its fields."""

    assistant_id: AssistantId
    version: int
    graph_id: str
    config: JsonObject
    context: JsonObject
    metadata: JsonObject
    name: str
    description: str | None


@dataclass(frozen=True, slots=True)
class AssistantVersionSelected:
    """An earlier version became the current one again; the fact holds all fields of that version."""

    assistant_id: AssistantId
    version: int
    graph_id: str
    config: JsonObject
    context: JsonObject
    metadata: JsonObject
    name: str
    description: str | None


@dataclass(frozen=True, slots=True)
class AssistantDeletionAsked:
    """The deletion was accepted: first `runs` (run id -> thread id) are cancelled and `threads` are deleted.

    `AssistantDeleted` follows once that is done. Until then, the assistant exists, and takes no new run and no change.
    The ids of the commits on a thread, and of `AssistantDeleted`, derive from the event id of this fact:
    UUIDv5 of that id and the run id, the thread id, or `deleted`.
    """

    assistant_id: AssistantId
    threads: tuple[ThreadId, ...]
    runs: JsonObject


@dataclass(frozen=True, slots=True)
class AssistantDeleted:
    """The assistant and all of its versions are gone; the same id may be created again, as version 1."""

    assistant_id: AssistantId


AssistantVersion: TypeAlias = AssistantCreated | AssistantRevised | AssistantVersionSelected
"""A fact that states all fields of a version, and makes it the current one."""
AssistantFact: TypeAlias = AssistantVersion | AssistantDeletionAsked | AssistantDeleted


@dataclass(frozen=True, slots=True)
class AssistantState:
    """State of an assistant for the deciders.

    `current` is None if the assistant does not exist; `newest` is its highest version number; `asked` is set while its
    deletion is not done.
    """

    current: AssistantVersion | None = None
    newest: int = 0
    asked: AssistantDeletionAsked | None = None


def number_of(stated: AssistantVersion) -> int:
    """Return the version number that a fact states."""
    return 1 if isinstance(stated, AssistantCreated) else stated.version


def evolve(state: AssistantState, fact: AssistantFact) -> AssistantState:
    """Fold one accepted fact into the state."""
    match fact:
        case AssistantCreated():
            return AssistantState(fact, newest=1)
        case AssistantRevised() | AssistantVersionSelected():
            return replace(state, current=fact, newest=max(state.newest, fact.version))
        case AssistantDeletionAsked():
            return replace(state, asked=fact)
        case AssistantDeleted():
            return AssistantState()
        case _:
            assert_never(fact)
