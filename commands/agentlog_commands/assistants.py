"""Commands of an assistant: EnsureSystemAssistant."""

from dataclasses import dataclass
from uuid import UUID, uuid5

from agentlog_commands.command import Accepted, Decision, Refused
from agentlog_facts.assistant import AssistantCreated, AssistantRevised, AssistantState
from agentlog_facts.ids import AssistantId, stream

SYSTEM_NAMESPACE = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
"""Namespace of the ids of system assistants. Source: docs/http-api.md, section 1.2."""


def system_assistant_id(graph_id: str) -> AssistantId:
    """Return the id of the system assistant of a graph."""
    return AssistantId(str(uuid5(SYSTEM_NAMESPACE, graph_id)))


@dataclass(frozen=True, slots=True)
class EnsureSystemAssistant:
    """Create the system assistant of a graph, or revise it after its description in langgraph.json has changed."""

    graph_id: str
    description: str | None

    def decide(self, state: AssistantState) -> Decision:
        """Create the assistant, revise it if the description has changed, or refuse with `nothing_to_do`."""
        assistant_id = system_assistant_id(self.graph_id)
        name = stream("assistant", assistant_id)
        if not state.exists:
            return Accepted(name, (self._created(assistant_id),), {name: "absent"})
        current = state.versions[state.current]
        if current.description == self.description:
            return Refused("nothing_to_do")
        return Accepted(name, (self._revised(current, max(state.versions) + 1),), {name: "exists"})

    def _created(self, assistant_id: AssistantId) -> AssistantCreated:
        metadata = {"created_by": "system"}
        return AssistantCreated(assistant_id, self.graph_id, {}, {}, {**metadata}, self.graph_id, self.description)

    def _revised(self, old: AssistantCreated | AssistantRevised, version: int) -> AssistantRevised:
        return AssistantRevised(
            old.assistant_id, version, old.graph_id, old.config, old.context, old.metadata, old.name, self.description
        )
