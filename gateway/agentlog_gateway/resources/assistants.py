"""Endpoints of assistants, and the choice of a run's assistant. Source: docs/http-api.md, section 4."""

from starlette.responses import Response

from agentlog_commands.assistants import system_assistant_id
from agentlog_commands.run_request import RunAssistant
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import AssistantId
from agentlog_facts.json_value import Json
from agentlog_gateway.api.dependencies import Dependencies
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.errors import INVALID_RUN_TARGET, Problem, invalid
from agentlog_gateway.http.responses import json_response, page_response
from agentlog_gateway.schemas.requests import AssistantCount, AssistantSearch, canonical_uuid, path_uuid
from agentlog_gateway.schemas.responses import assistant_json, selected
from agentlog_projections.models.assistants import AssistantFilter


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
    """Check that a new run can use this assistant, and return it. Raises: Problem 404, Unavailable."""
    if found is None:
        await dependencies.caught_up.require(assistant_id, fresh=True)
        if not dependencies.prepared.is_set():
            raise Unavailable("the assistants of the graphs are being created, retry later")
        raise Problem(404, INVALID_RUN_TARGET, reason="assistant_not_found")
    _known_graph(dependencies, found.graph_id)
    return found


def _known_graph(dependencies: Dependencies, graph_id: str) -> None:
    if graph_id not in dependencies.graphs.graph_ids():
        names = ", ".join(f"'{name}'" for name in dependencies.graphs.graph_ids())
        raise Problem(404, f"Graph '{graph_id}' not found. Expected one of: [{names}]", reason="graph_not_found")


async def get(context: RequestContext) -> Response:
    """GET /assistants/{assistant_id}; the name of a graph stands for its system assistant."""
    named = context.request.path_params["assistant_id"]
    graphs = context.dependencies.graphs.graph_ids()
    assistant_id = system_assistant_id(named) if named in graphs else AssistantId(path_uuid("assistant", named))
    await context.dependencies.caught_up.require(assistant_id)
    found = await context.dependencies.assistants.get(assistant_id)
    if found is None:
        await context.dependencies.caught_up.require(assistant_id, fresh=True)
        raise Problem(404, "Not Found")
    return json_response(assistant_json(found, context.dependencies.secrets.keys))


def _filter(context: RequestContext, body: AssistantCount) -> AssistantFilter:
    context.demand_small(metadata=body.metadata)
    if body.graph_id is not None:
        _known_graph(context.dependencies, body.graph_id)
    return AssistantFilter(body.metadata or None, body.graph_id, body.name)


async def search(context: RequestContext) -> Response:
    """POST /assistants/search."""
    body = await context.body(AssistantSearch)
    where = _filter(context, body)
    await context.dependencies.caught_up.require_all()
    found = await context.dependencies.assistants.search(
        where,
        sort_by=body.sort_by,
        descending=body.sort_order == "desc",
        limit=body.limit + 1,
        offset=body.offset,
    )
    keys = context.dependencies.secrets.keys
    shown: list[Json] = [selected(assistant_json(row, keys), body.select) for row in found]
    return page_response(shown, body.offset, body.limit)


async def count(context: RequestContext) -> Response:
    """POST /assistants/count."""
    where = _filter(context, await context.body(AssistantCount))
    await context.dependencies.caught_up.require_all()
    return json_response(await context.dependencies.assistants.count(where))
