"""Endpoints of the graph of an assistant: its drawing, schemas and subgraphs. Source: docs/http-api.md, section 4.6."""

from starlette.responses import Response

from agentlog_commands.assistants import system_assistant_id
from agentlog_facts.ids import AssistantId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.secret_values import mask_config
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.assistants.assistant_context import existing_assistant
from agentlog_gateway.assistants.run_assistant import known_graph
from agentlog_gateway.http.responses import document_response
from agentlog_gateway.schemas.assistant_requests import GraphQuery, SubgraphsQuery


async def _graph_of(context: RequestContext, assistant_id: AssistantId) -> tuple[str, JsonObject]:
    """Return the graph of an assistant, and the config for its factory. Raises: Problem 404, Unavailable."""
    found = await existing_assistant(context, assistant_id)
    known_graph(context.dependencies, found.graph_id)
    config = mask_config(found.config, context.dependencies.secrets.keys)
    given = config.get("configurable")
    ids: dict[str, Json] = {"assistant_id": assistant_id, "graph_id": found.graph_id}
    return found.graph_id, {**config, "configurable": {**(given if isinstance(given, dict) else {}), **ids}}


async def drawing(context: RequestContext) -> Response:
    """GET /assistants/{assistant_id}/graph; the name of a graph stands for its system assistant."""
    named = context.request.path_params["assistant_id"]
    is_name = named in context.dependencies.graphs.graph_ids()
    assistant_id = system_assistant_id(named) if is_name else AssistantId(context.path_id("assistant"))
    query = context.query(GraphQuery)
    graph_id, config = await _graph_of(context, assistant_id)
    return document_response(await context.dependencies.structures.drawing(graph_id, config, query.xray))


async def schemas(context: RequestContext) -> Response:
    """GET /assistants/{assistant_id}/schemas."""
    graph_id, config = await _graph_of(context, AssistantId(context.path_id("assistant")))
    return document_response(await context.dependencies.structures.schemas(graph_id, config))


async def subgraphs(context: RequestContext) -> Response:
    """GET /assistants/{assistant_id}/subgraphs, and .../subgraphs/{namespace}; an unknown namespace has none."""
    assistant_id = AssistantId(context.path_id("assistant"))
    query = context.query(SubgraphsQuery)
    namespace = context.request.path_params.get("namespace")
    graph_id, config = await _graph_of(context, assistant_id)
    found = await context.dependencies.structures.subgraphs(graph_id, config, namespace, query.recurse)
    return document_response(found)
