"""The choice of a run's assistant. Source: docs/http-api.md, sections 1.4 and 7.1."""

from dataclasses import replace

from agentlog_commands.assistants import system_assistant_id
from agentlog_commands.run_request import RunAssistant
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import AssistantId
from agentlog_gateway.api.dependencies import Dependencies
from agentlog_gateway.assistants.assistant_context import opened
from agentlog_gateway.http.errors import INVALID_RUN_TARGET, Problem, invalid
from agentlog_gateway.schemas.requests import canonical_uuid, path_uuid


def assistant_of(dependencies: Dependencies, named: str) -> AssistantId:
    """Return the assistant of `assistant_id`, which is a UUID or the name of a graph. Raises: Problem 422."""
    graph_ids = dependencies.graphs.graph_ids()
    if named in graph_ids:
        return system_assistant_id(named)
    if canonical_uuid(named) is None:
        raise invalid(
            f"Invalid assistant: '{named}'. Must be either: the UUID of an assistant, "
            f"or the name of a graph: {', '.join(graph_ids)}"
        )
    return AssistantId(path_uuid("assistant", named))


async def usable(dependencies: Dependencies, assistant_id: AssistantId, found: RunAssistant | None) -> RunAssistant:
    """Check that a new run can use this assistant; return it with its secrets. Raises: Problem 404, Unavailable."""
    if found is None:
        await dependencies.caught_up.require(assistant_id, fresh=True)
        if not dependencies.prepared.is_set():
            raise Unavailable("the assistants of the graphs are being created, retry later")
        raise Problem(404, INVALID_RUN_TARGET, reason="assistant_not_found")
    known_graph(dependencies, found.graph_id)
    config, context = opened(dependencies, found.config, found.context, assistant_id)
    return replace(found, config=config, context=context)


def known_graph(dependencies: Dependencies, graph_id: str) -> None:
    """Check that a graph is loaded. Raises: Problem 404."""
    if graph_id not in dependencies.graphs.graph_ids():
        names = ", ".join(f"'{name}'" for name in dependencies.graphs.graph_ids())
        raise Problem(404, f"Graph '{graph_id}' not found. Expected one of: [{names}]", reason="graph_not_found")
