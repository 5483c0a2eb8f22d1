"""Endpoints of crons: create, get, patch, delete, search, count. Source: docs/http-api.md, section 14."""

from collections.abc import Mapping
from dataclasses import replace

from starlette.responses import Response

from agentlog_commands.assistants import system_assistant_id
from agentlog_commands.command import Decision, Refused
from agentlog_commands.crons.cron import CreateCron, DeleteCron, PatchCron
from agentlog_commands.submit import Submitted, Voided
from agentlog_facts.cron import CronCreated, CronRevised, CronState
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import AssistantId, CronId, Key, ThreadId
from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_facts.secret_values import MASK
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.body import parse_body
from agentlog_gateway.http.errors import Problem, invalid
from agentlog_gateway.http.preconditions import demand_match, entity_tag, tagged_response
from agentlog_gateway.http.responses import json_response, no_content, page_response, time_text
from agentlog_gateway.schemas.cron_requests import CronCount, CronPatch, CronSearch, StatelessCron, ThreadCron
from agentlog_gateway.schemas.requests import canonical_uuid
from agentlog_gateway.schemas.responses import cron_json, selected
from agentlog_projections.models.crons.fold import CronRow
from agentlog_projections.models.crons.model import CronFilter

CHANGED_BY_PATCH = ("schedule", "timezone", "end_time", "enabled", "on_run_completed")


def _tag(row: CronRow) -> str:
    return entity_tag(row.cron_id, str(row.revision), time_text(row.updated_at))


def _response(context: RequestContext, row: CronRow, headers: Mapping[str, str] | None = None) -> Response:
    value = cron_json(row, context.dependencies.secrets.keys)
    return tagged_response(context.request, value, _tag(row), headers)


async def _row(context: RequestContext, cron_id: CronId) -> CronRow | None:
    """Return the row for a decision. Raises: Unavailable."""
    await context.dependencies.caught_up.require(cron_id)
    row = await context.dependencies.crons.row(cron_id)
    if row is None:
        await context.dependencies.caught_up.require(cron_id, fresh=True)
    return row


async def _assistant(context: RequestContext, named: str) -> AssistantId:
    """Return the assistant of a new cron, a UUID or the name of a graph. Raises: Problem 404, Unavailable."""
    dependencies = context.dependencies
    graph = named in dependencies.graphs.graph_ids()
    found = system_assistant_id(named) if graph else canonical_uuid(named)
    if found is not None:
        assistant_id = AssistantId(found)
        await dependencies.caught_up.require(assistant_id)
        if await dependencies.assistants.get(assistant_id) is not None:
            return assistant_id
        await dependencies.caught_up.require(assistant_id, fresh=True)
        if not dependencies.prepared.is_set():
            raise Unavailable("the assistants of the graphs are being created, retry later")
    raise Problem(404, f"Assistant '{named}' not found", reason="assistant_not_found")


async def create(context: RequestContext) -> Response:
    """POST /runs/crons: a cron that makes a new thread for each run."""
    body = await context.body(StatelessCron)
    return await _create(context, body, None, body.on_run_completed)


async def create_for_thread(context: RequestContext) -> Response:
    """POST /threads/{thread_id}/runs/crons."""
    thread_id = ThreadId(context.path_id("thread"))
    return await _create(context, await context.body(ThreadCron), thread_id, None)


async def _create(
    context: RequestContext, body: ThreadCron, thread_id: ThreadId | None, on_run_completed: str | None
) -> Response:
    dependencies = context.dependencies
    cron_id, sent = CronId(context.new_id("cron")), _sent(context)

    async def decide() -> Decision:
        assistant_id = await _assistant(context, body.assistant_id)
        if thread_id is not None:
            partition = dependencies.log.partition_of(Key(thread_id))
            found = await dependencies.contexts.thread(thread_id, partition)
            if not found.state.exists:
                raise Problem(404, f"Thread with ID {thread_id} not found", reason="thread_not_found")
        payload = dependencies.secrets.seal_payload({**sent, "assistant_id": assistant_id}, cron_id)
        given = CronCreated(
            cron_id,
            assistant_id,
            thread_id,
            body.schedule,
            body.timezone,
            body.end_time,
            payload,
            body.metadata,
            on_run_completed,
            body.enabled,
            None,
        )
        row = await _row(context, cron_id)
        command = CreateCron(given, dependencies.clock.now(), dependencies.limits.metadata)
        return command.decide(_state(row), None if row is None else row.revision)

    target: JsonObject = {"cron_id": cron_id, "thread_id": thread_id}
    done = await context.submit("CreateCron", cron_id, decide, target=target)
    if not isinstance(done, Submitted):
        raise _refusal(cron_id, done)
    return _response(context, await _shown_after(context, cron_id, done), context.token(done))


def _sent(context: RequestContext) -> JsonObject:
    """Return the body as the client sent it. Raises: Problem 422 for the mask of a secret."""
    sent = as_object(parse_body(context.raw), "body")
    keys = context.dependencies.secrets.keys
    if keys.has_mask(sent.get("config")) or keys.has_mask(sent.get("context")):
        raise invalid(f"{MASK} stands for a secret: give the secret itself")
    return sent


async def get(context: RequestContext) -> Response:
    """GET /runs/crons/{cron_id}."""
    cron_id = CronId(context.path_id("cron"))
    await context.dependencies.caught_up.require(cron_id)
    found = await context.dependencies.crons.get(cron_id)
    if found is None:
        await context.dependencies.caught_up.require(cron_id, fresh=True)
        raise Problem(404, "Not Found", reason="cron_not_found")
    return _response(context, found)


async def patch(context: RequestContext) -> Response:
    """PATCH /runs/crons/{cron_id}: `metadata` is merged by its top-level keys, other fields are replaced."""
    cron_id = CronId(context.path_id("cron"))
    body = await context.body(CronPatch)
    dependencies, sent = context.dependencies, _sent(context)
    if not sent:
        raise Problem(400, "Request body cannot be empty")
    changes: dict[str, object] = {name: getattr(body, name) for name in CHANGED_BY_PATCH if name in sent}

    async def decide() -> Decision:
        row = await _row(context, cron_id)
        if row is not None and not row.deleted:
            demand_match(context.request, _tag(row))
        payload = dependencies.secrets.seal_payload(sent, cron_id)
        payload.pop("assistant_id", None)
        command = PatchCron(
            cron_id, changes, body.metadata, payload, dependencies.clock.now(), dependencies.limits.metadata
        )
        return command.decide(_state(row), None if row is None else row.revision)

    done = await context.submit("PatchCron", cron_id, decide, serial=True)
    if not isinstance(done, Submitted):
        raise _refusal(cron_id, done)
    return _response(context, await _shown_after(context, cron_id, done), context.token(done))


async def delete(context: RequestContext) -> Response:
    """DELETE /runs/crons/{cron_id}."""
    cron_id = CronId(context.path_id("cron"))

    async def decide() -> Decision:
        row = await _row(context, cron_id)
        if row is not None and not row.deleted:
            demand_match(context.request, _tag(row))
        return DeleteCron(cron_id).decide(_state(row), None if row is None else row.revision)

    done = await context.submit("DeleteCron", cron_id, decide, serial=True)
    if not isinstance(done, Submitted):
        raise Problem(404, "Not Found", reason="cron_not_found")
    return no_content(context.token(done))


def _filter(context: RequestContext, body: CronCount) -> CronFilter:
    context.demand_small(metadata=body.metadata)
    return CronFilter(body.assistant_id, body.thread_id, body.enabled, body.metadata or None)


async def search(context: RequestContext) -> Response:
    """POST /runs/crons/search."""
    body = await context.body(CronSearch)
    where = _filter(context, body)
    await context.dependencies.caught_up.require_all()
    found = await context.dependencies.crons.search(
        where,
        sort_by=body.sort_by,
        descending=body.sort_order == "desc",
        limit=body.limit + 1,
        offset=body.offset,
    )
    keys = context.dependencies.secrets.keys
    shown: list[Json] = [selected(cron_json(row, keys), body.select) for row in found]
    return page_response(shown, body.offset, body.limit)


async def count(context: RequestContext) -> Response:
    """POST /runs/crons/count."""
    where = _filter(context, await context.body(CronCount))
    await context.dependencies.caught_up.require_all()
    return json_response(await context.dependencies.crons.count(where))


def _refusal(cron_id: CronId, done: Refused | Voided) -> Problem:
    match done:
        case Refused(reason="context_and_configurable"):
            return Problem(400, done.detail)
        case Refused(reason="not_possible"):
            return invalid(done.detail)
        case _:
            return Problem(404, f"Cron '{cron_id}' not found", reason="cron_not_found")


def _state(row: CronRow | None) -> CronState:
    return CronState() if row is None else row.state


async def _shown_after(context: RequestContext, cron_id: CronId, done: Submitted) -> CronRow:
    """Return the cron as it was right after a change, also for a retry that comes after later changes."""
    row = await context.dependencies.crons.row(cron_id)
    if row is None:
        raise Unavailable(f"cron {cron_id}: its row is being built, retry later")
    match done.facts[0]:
        case CronCreated() | CronRevised() as stated:
            return replace(
                row,
                schedule=stated.schedule,
                timezone=stated.timezone,
                end_time=stated.end_time,
                payload=stated.payload,
                metadata=stated.metadata,
                on_run_completed=stated.on_run_completed,
                enabled=stated.enabled,
                next_run_date=stated.next_slot,
                updated_at=done.occurred_at,
                revision=done.version,
            )
        case other:
            raise TypeError(f"expected a stated cron, found {type(other).__name__}")
