"""Endpoints of assistants: create, get, patch, search, count, versions, latest. Source: docs/http-api.md, section 4."""

from collections.abc import Mapping
from dataclasses import replace

from starlette.responses import Response

from agentlog_commands.assistants import CreateAssistant, PatchAssistant, SelectVersion
from agentlog_commands.command import Decision, Refused
from agentlog_commands.submit import Submitted, Voided
from agentlog_facts.assistant import AssistantVersionSelected
from agentlog_facts.guard import Void
from agentlog_facts.ids import AssistantId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.secret_values import MASK
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.assistants.assistant_context import (
    assistant_context,
    check_tag,
    existing_assistant,
    opened_state,
    sealed,
    shown_after,
    tag_of,
)
from agentlog_gateway.assistants.run_assistant import known_graph
from agentlog_gateway.http.errors import Problem
from agentlog_gateway.http.preconditions import tagged_response
from agentlog_gateway.http.responses import json_response, page_response
from agentlog_gateway.schemas.assistant_requests import (
    AssistantCount,
    AssistantCreate,
    AssistantLatest,
    AssistantPatch,
    AssistantSearch,
    AssistantVersions,
    config_of,
)
from agentlog_gateway.schemas.responses import assistant_json, assistant_version_json, selected
from agentlog_projections.models.assistants import Assistant, AssistantFilter


def _response(context: RequestContext, shown: Assistant, headers: Mapping[str, str] | None = None) -> Response:
    value = assistant_json(shown, context.dependencies.secrets.keys)
    return tagged_response(context.request, value, tag_of(shown), headers)


def _refusal(assistant_id: AssistantId, done: Refused | Voided) -> Problem:
    """Return the response to a change that was refused."""
    match done:
        case Refused(reason="context_and_configurable"):
            return Problem(400, done.detail)
        case Refused(reason="assistant_deleting"):
            return Problem(409, f"Assistant {assistant_id}: {done.detail}")
        case _:
            return Problem(404, f"Assistant {assistant_id} not found", reason="assistant_not_found")


async def create(context: RequestContext) -> Response:
    """POST /assistants."""
    body = await context.body(AssistantCreate)
    dependencies = context.dependencies
    known_graph(dependencies, body.graph_id)
    assistant_id = AssistantId(body.assistant_id or context.new_id("assistant"))
    command = CreateAssistant(
        assistant_id,
        body.graph_id,
        config_of(body.config),
        body.context,
        body.metadata,
        body.name,
        body.description,
        dependencies.limits.metadata,
    )

    async def decide() -> Decision:
        found = await assistant_context(context, assistant_id)
        return sealed(dependencies, command.decide(found.state, found.version))

    target: JsonObject = {"assistant_id": assistant_id}
    done = await context.submit(
        "CreateAssistant", assistant_id, decide, serial=body.assistant_id is not None, target=target
    )
    match done:
        case Submitted():
            return _response(context, await shown_after(context, done), context.token(done))
        case Refused(reason="assistant_exists") | Voided(void=Void(reason="exists")) if body.if_exists == "do_nothing":
            return _response(context, await existing_assistant(context, assistant_id))
        case Refused(reason="assistant_exists") | Voided(void=Void(reason="exists")):
            raise Problem(409, f"Assistant {assistant_id} already exists", reason="assistant_exists")
        case _:
            raise _refusal(assistant_id, done)


async def get(context: RequestContext) -> Response:
    """GET /assistants/{assistant_id}."""
    return _response(context, await existing_assistant(context, AssistantId(context.path_id("assistant"))))


async def patch(context: RequestContext) -> Response:
    """PATCH /assistants/{assistant_id}: a new version, also if the body is empty."""
    assistant_id = AssistantId(context.path_id("assistant"))
    body = await context.body(AssistantPatch)
    dependencies = context.dependencies
    graph_id, given = body.text("graph_id"), body.model_fields_set
    if graph_id is not None:
        known_graph(dependencies, graph_id)
    command = PatchAssistant(
        assistant_id,
        graph_id,
        config_of(body.config) if "config" in given else None,
        body.context if "context" in given else None,
        body.metadata if "metadata" in given else None,
        body.text("name"),
        body.text("description"),
        dependencies.limits.metadata,
    )

    async def decide() -> Decision:
        found = await assistant_context(context, assistant_id)
        check_tag(context, found)
        state, keys = opened_state(dependencies, found), dependencies.secrets.keys
        known, asked = state.current, command
        if known is not None:  # a client sends back what it was shown: the mask of a secret stands for the secret
            config = None if command.config is None else keys.restored_object(command.config, known.config)
            values = None if command.context is None else keys.restored_object(command.context, known.context)
            asked = replace(command, config=config, context=values)
        if keys.has_mask(asked.config) or keys.has_mask(asked.context):
            raise Problem(422, f"{MASK} stands for no secret that this assistant has at the same place")
        return sealed(dependencies, asked.decide(state, found.version))

    done = await context.submit("PatchAssistant", assistant_id, decide, serial=True)
    if not isinstance(done, Submitted):
        raise _refusal(assistant_id, done)
    return _response(context, await shown_after(context, done), context.token(done))


def _filter(context: RequestContext, body: AssistantCount) -> AssistantFilter:
    context.demand_small(metadata=body.metadata)
    if body.graph_id is not None:
        known_graph(context.dependencies, body.graph_id)
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


async def versions(context: RequestContext) -> Response:
    """POST /assistants/{assistant_id}/versions: the newest first; 404 if there is no match."""
    assistant_id = AssistantId(context.path_id("assistant"))
    body = await context.body(AssistantVersions)
    context.demand_small(metadata=body.metadata)
    dependencies = context.dependencies
    await dependencies.caught_up.require(assistant_id)
    found = await dependencies.assistants.versions(
        assistant_id, body.metadata or None, limit=body.limit, offset=body.offset
    )
    if not found:
        await dependencies.caught_up.require(assistant_id, fresh=True)
        raise Problem(404, f"Assistant {assistant_id} not found")
    return json_response([assistant_version_json(row, dependencies.secrets.keys) for row in found])


async def latest(context: RequestContext) -> Response:
    """POST /assistants/{assistant_id}/latest: an existing version becomes the current one."""
    assistant_id = AssistantId(context.path_id("assistant"))
    body = await context.body(AssistantLatest)

    async def decide() -> Decision:
        found = await assistant_context(context, assistant_id)
        check_tag(context, found)
        stated = await context.dependencies.assistants.version(assistant_id, body.version)
        return SelectVersion(assistant_id, None if stated is None else _selection(stated)).decide(
            found.state, found.version
        )

    done = await context.submit("SelectVersion", assistant_id, decide, serial=True)
    match done:
        case Submitted():
            return _response(context, await shown_after(context, done), context.token(done))
        case Refused(reason="version_not_found"):
            raise Problem(404, f"Version {body.version} not found for assistant {assistant_id}")
        case _:
            raise _refusal(assistant_id, done)


def _selection(stated: Assistant) -> AssistantVersionSelected:
    return AssistantVersionSelected(
        stated.assistant_id,
        stated.version,
        stated.graph_id,
        stated.config,
        stated.context,
        stated.metadata,
        stated.name,
        stated.description,
    )
