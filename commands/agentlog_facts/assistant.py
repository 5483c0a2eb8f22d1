"""Facts of an assistant and its versions, and the state they fold into."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias, assert_never

from agentlog_facts.ids import AssistantId
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


AssistantFact: TypeAlias = AssistantCreated | AssistantRevised


@dataclass(frozen=True, slots=True)
class AssistantState:
    """State of an assistant for the deciders; `versions` maps a version to its fact."""

    exists: bool = False
    current: int = 0
    versions: Mapping[int, AssistantFact] = field(default_factory=dict[int, AssistantFact])


def evolve(state: AssistantState, fact: AssistantFact) -> AssistantState:
    """Fold one accepted fact into the state."""
    match fact:
        case AssistantCreated():
            return AssistantState(exists=True, current=1, versions={1: fact})
        case AssistantRevised():
            return replace(state, current=fact.version, versions={**state.versions, fact.version: fact})
        case _:
            assert_never(fact)
