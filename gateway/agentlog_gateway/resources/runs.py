"""Endpoints of runs: create, wait, stream, list, get, join. Source: docs/http-api.md, sections 7 and 11."""

from collections.abc import Awaitable, Callable

from starlette.responses import Response

from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.errors import Problem, invalid
from agentlog_gateway.http.long_poll import BlockingResponse
from agentlog_gateway.http.responses import json_response, run_path
from agentlog_gateway.resources.cancel import on_client_gone
from agentlog_gateway.resources.run_creation import NewRun, RunCreation
from agentlog_gateway.resources.run_result import creators_document, joiners_document
from agentlog_gateway.resources.threads import existing_thread
from agentlog_gateway.schemas.queries import JoinQuery, JoinStreamQuery, RunListQuery
from agentlog_gateway.schemas.responses import blocked_json, new_run_json, run_json, selected
from agentlog_gateway.schemas.run_requests import StatelessRun, ThreadRun
from agentlog_gateway.streaming.sse import SseEncoder
from agentlog_gateway.streaming.sse_response import HEADERS, SseResponse
from agentlog_gateway.streaming.stream_modes import stream_modes
from agentlog_projections.models.runs import Run

SELECTABLE = frozenset(
    {
        "run_id",
        "thread_id",
        "assistant_id",
        "created_at",
        "updated_at",
        "status",
        "metadata",
        "kwargs",
        "multitask_strategy",
        "langsmith_session_name",
        "cancel_reason",
    }
)


async def thread_run(context: RequestContext) -> RunCreation:
    """Read a request for a run on a thread."""
    thread_id = ThreadId(context.path_id("thread"))
    return RunCreation(context, await context.body(ThreadRun), thread_id)


async def stateless_run(context: RequestContext) -> RunCreation:
    """Read a request for a run on a new thread."""
    return RunCreation(context, await context.body(StatelessRun), None)


async def _create(context: RequestContext, creation: RunCreation) -> Response:
    new = await creation.create()
    return json_response(new_run_json(new.done, new.run, context.dependencies.secrets.keys), new.headers(context))


async def _wait(context: RequestContext, creation: RunCreation) -> Response:
    new = await creation.create()
    document = creators_document(context.dependencies, new.run.run_id, look_first=new.done.duplicate)
    return BlockingResponse(document, new.headers(context, "/join"), _on_disconnect(context, creation, new))


async def _stream(context: RequestContext, creation: RunCreation) -> Response:
    live = await context.dependencies.streams.open(creation.thread_id)
    try:
        new = await creation.create()
    except BaseException:
        live.close()
        raise
    headers = new.headers(context, "/stream")
    if new.done.duplicate:
        live.close()
        events = context.dependencies.streams.replay(new.run.thread_id, new.run.run_id)
    else:
        events = live.events(new.run.run_id, resumable=creation.body.stream_resumable)
    encoder = SseEncoder(context.dependencies.framer)
    return SseResponse(events, encoder.encode, headers, _on_disconnect(context, creation, new))


def _on_disconnect(context: RequestContext, creation: RunCreation, new: NewRun) -> Callable[[], Awaitable[None]] | None:
    if creation.body.on_disconnect == "continue":
        return None
    return on_client_gone(context, new.run.thread_id, new.run.run_id)


async def create(context: RequestContext) -> Response:
    """POST /threads/{thread_id}/runs."""
    return await _create(context, await thread_run(context))


async def wait(context: RequestContext) -> Response:
    """POST /threads/{thread_id}/runs/wait."""
    return await _wait(context, await thread_run(context))


async def stream(context: RequestContext) -> Response:
    """POST /threads/{thread_id}/runs/stream."""
    return await _stream(context, await thread_run(context))


async def create_stateless(context: RequestContext) -> Response:
    """POST /runs."""
    return await _create(context, await stateless_run(context))


async def wait_stateless(context: RequestContext) -> Response:
    """POST /runs/wait."""
    return await _wait(context, await stateless_run(context))


async def stream_stateless(context: RequestContext) -> Response:
    """POST /runs/stream."""
    return await _stream(context, await stateless_run(context))


async def existing_run(context: RequestContext, missing: str) -> Run:
    """Return the visible run of the path. Raises: Problem 404 with the text `missing`, Unavailable."""
    thread_id, run_id = context.path_id("thread"), RunId(context.path_id("run"))
    await context.dependencies.caught_up.require(thread_id)
    found = await context.dependencies.runs.get(run_id)
    if found is None or found.thread_id != thread_id:
        await context.dependencies.caught_up.require(thread_id, fresh=True)
        raise Problem(404, missing)
    return found


async def get(context: RequestContext) -> Response:
    """GET /threads/{thread_id}/runs/{run_id}."""
    return json_response(_shown(context, await existing_run(context, "Not Found")))


def _shown(context: RequestContext, run: Run) -> JsonObject:
    """Return a run as the API shows it."""
    dependencies = context.dependencies
    shown = run_json(run, dependencies.secrets.keys, dependencies.server_metadata)
    return shown | blocked_json(run, dependencies.graphs.graph_ids(), dependencies.clock.now())


async def list_runs(context: RequestContext) -> Response:
    """GET /threads/{thread_id}/runs, newest first."""
    thread_id = ThreadId(context.path_id("thread"))
    query = context.query(RunListQuery)
    if not 1 <= query.limit <= 1000 or query.offset < 0:
        raise Problem(400, "limit: expected 1 to 1000; offset: expected 0 or more")
    unknown = [name for name in query.select if name not in SELECTABLE]
    if unknown:
        raise invalid(f"select: unknown field {unknown[0]!r}")
    await existing_thread(context, thread_id, with_values=False)
    found = await context.dependencies.runs.of_thread(
        thread_id, status=query.status, limit=query.limit, offset=query.offset
    )
    shown: list[Json] = [selected(_shown(context, run), query.select or None) for run in found]
    return json_response(shown)


async def join(context: RequestContext) -> Response:
    """GET /threads/{thread_id}/runs/{run_id}/join."""
    found = await _any_run(context)
    headers = _location(found, "/join")
    if context.head:
        return Response(headers=headers, media_type="application/json")
    gone = _on_join_disconnect(context, found, context.query(JoinQuery))
    return BlockingResponse(joiners_document(context.dependencies, found.run_id), headers, gone)


async def join_stream(context: RequestContext) -> Response:
    """GET /threads/{thread_id}/runs/{run_id}/stream."""
    found = await _any_run(context)
    headers = _location(found, "/stream")
    if context.head:
        return Response(headers={**HEADERS, **headers})
    query = context.query(JoinStreamQuery)
    events = await context.dependencies.streams.join(
        found.thread_id,
        found.run_id,
        last_event_id=context.request.headers.get("last-event-id"),
    )
    encoder = SseEncoder(context.dependencies.framer, stream_modes(query.stream_mode))
    return SseResponse(events, encoder.encode, headers, _on_join_disconnect(context, found, query))


def _on_join_disconnect(context: RequestContext, run: Run, query: JoinQuery) -> Callable[[], Awaitable[None]] | None:
    return on_client_gone(context, run.thread_id, run.run_id) if query.cancel_on_disconnect else None


async def _any_run(context: RequestContext) -> Run:
    """Return the run of the path, also if it deleted its temporary thread at its end. Raises: Problem 404."""
    thread_id, run_id = context.path_id("thread"), RunId(context.path_id("run"))
    await context.dependencies.caught_up.require(thread_id)
    found = await context.dependencies.runs.get(run_id, include_deleted=True)
    if found is None or found.thread_id != thread_id or _is_gone(found):
        await context.dependencies.caught_up.require(thread_id, fresh=True)
        raise Problem(404, "Run not found")
    return found


def _is_gone(run: Run) -> bool:
    deleted = run.deleted and run.status != "rollback"  # a join of a run that was rolled back gets an empty document
    return deleted or (run.thread_deleted and not run.temporary)


def _location(run: Run, last: str) -> dict[str, str]:
    path = run_path(run.thread_id, run.run_id)
    return {"Content-Location": path, "Location": path + last}
