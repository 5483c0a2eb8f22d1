"""The routes of runs: create, wait, stream, list, get, join. Source: Agent Server API, sections 7 and 11."""

from collections.abc import Awaitable, Callable

from starlette.responses import Response

from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json
from agentlog_gateway.blocking import BlockingResponse
from agentlog_gateway.call import Call, query_flag, query_number
from agentlog_gateway.cancels import on_client_gone
from agentlog_gateway.errors import Problem, invalid
from agentlog_gateway.join import stream_modes
from agentlog_gateway.replies import json_response, run_path
from agentlog_gateway.run_creation import NewRun, RunCreation
from agentlog_gateway.shapes import new_run_json, run_json, selected
from agentlog_gateway.sse import HEADERS, SseResponse
from agentlog_gateway.threads import existing_thread
from agentlog_gateway.waits import RunWait, creators_document, joiners_document
from agentlog_gateway.wire_runs import StatelessRun, ThreadRun
from agentlog_projections.runs import Run

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
    }
)


async def thread_run(call: Call) -> RunCreation:
    """Read a request for a run on a thread."""
    thread_id = ThreadId(call.path_id("thread"))
    return RunCreation(call, await call.body(ThreadRun), thread_id)


async def stateless_run(call: Call) -> RunCreation:
    """Read a request for a run with a thread of its own."""
    return RunCreation(call, await call.body(StatelessRun), None)


async def _create(call: Call, creation: RunCreation) -> Response:
    new = await creation.create()
    return json_response(new_run_json(new.done, new.run), new.headers(call))


async def _wait(call: Call, creation: RunCreation) -> Response:
    wait = RunWait(call.services, creation.run_id)
    try:
        new = await creation.create()
    except BaseException:
        wait.close()
        raise
    document = creators_document(call.services, wait, look_first=new.done.duplicate)
    return BlockingResponse(document, new.headers(call, "/join"), wait.close, _on_disconnect(call, creation, new))


async def _stream(call: Call, creation: RunCreation) -> Response:
    live = await call.services.streams.open(creation.thread_id)
    try:
        new = await creation.create()
    except BaseException:
        live.close()
        raise
    headers = new.headers(call, "/stream")
    if new.done.duplicate:
        live.close()
        events = call.services.streams.replay(new.run.thread_id, new.run.run_id)
    else:
        events = live.events(new.run.run_id, resumable=creation.body.stream_resumable)
    return SseResponse(events, headers, _on_disconnect(call, creation, new))


def _on_disconnect(call: Call, creation: RunCreation, new: NewRun) -> Callable[[], Awaitable[None]] | None:
    if creation.body.on_disconnect == "continue":
        return None
    return on_client_gone(call, new.run.thread_id, new.run.run_id)


async def create(call: Call) -> Response:
    """POST /threads/{thread_id}/runs."""
    return await _create(call, await thread_run(call))


async def wait(call: Call) -> Response:
    """POST /threads/{thread_id}/runs/wait."""
    return await _wait(call, await thread_run(call))


async def stream(call: Call) -> Response:
    """POST /threads/{thread_id}/runs/stream."""
    return await _stream(call, await thread_run(call))


async def create_stateless(call: Call) -> Response:
    """POST /runs."""
    return await _create(call, await stateless_run(call))


async def wait_stateless(call: Call) -> Response:
    """POST /runs/wait."""
    return await _wait(call, await stateless_run(call))


async def stream_stateless(call: Call) -> Response:
    """POST /runs/stream."""
    return await _stream(call, await stateless_run(call))


async def existing_run(call: Call, missing: str) -> Run:
    """Return the visible run of the path. Raises: Problem 404 with the text `missing`, Unavailable."""
    thread_id, run_id = call.path_id("thread"), RunId(call.path_id("run"))
    await call.services.presence.require(thread_id)
    found = await call.services.runs.get(run_id)
    if found is None or found.thread_id != thread_id:
        await call.services.presence.require(thread_id, fresh=True)
        raise Problem(404, missing)
    return found


async def get(call: Call) -> Response:
    """GET /threads/{thread_id}/runs/{run_id}."""
    return json_response(run_json(await existing_run(call, "Not Found")))


async def list_runs(call: Call) -> Response:
    """GET /threads/{thread_id}/runs, newest first."""
    thread_id = ThreadId(call.path_id("thread"))
    limit, offset = query_number(call, "limit", 10, 400), query_number(call, "offset", 0, 400)
    if not 1 <= limit <= 1000 or offset < 0:
        raise Problem(400, "limit: expected 1 to 1000; offset: expected 0 or more")
    select = call.request.query_params.getlist("select")
    unknown = [name for name in select if name not in SELECTABLE]
    if unknown:
        raise invalid(f"select: unknown field {unknown[0]!r}")
    await existing_thread(call, thread_id, with_values=False)
    status = call.request.query_params.get("status")
    found = await call.services.runs.of_thread(thread_id, status=status, limit=limit, offset=offset)
    shown: list[Json] = [selected(run_json(run), select or None) for run in found]
    return json_response(shown)


async def join(call: Call) -> Response:
    """GET /threads/{thread_id}/runs/{run_id}/join."""
    found = await _any_run(call)
    headers = _location(found, "/join")
    if call.head:
        return Response(headers=headers, media_type="application/json")
    waiting = RunWait(call.services, found.run_id)
    gone = on_client_gone(call, found.thread_id, found.run_id) if query_flag(call, "cancel_on_disconnect") else None
    return BlockingResponse(joiners_document(call.services, waiting), headers, waiting.close, gone)


async def join_stream(call: Call) -> Response:
    """GET /threads/{thread_id}/runs/{run_id}/stream."""
    found = await _any_run(call)
    headers = _location(found, "/stream")
    if call.head:
        return Response(headers={**HEADERS, **headers})
    events = await call.services.streams.join(
        found.thread_id,
        found.run_id,
        last_event_id=call.request.headers.get("last-event-id"),
        modes=stream_modes(call.request.query_params.getlist("stream_mode")),
    )
    gone = on_client_gone(call, found.thread_id, found.run_id) if query_flag(call, "cancel_on_disconnect") else None
    return SseResponse(events, headers, gone)


async def _any_run(call: Call) -> Run:
    """Return the run of the path; one that took its temporary thread away can be joined too. Raises: Problem 404."""
    thread_id, run_id = call.path_id("thread"), RunId(call.path_id("run"))
    await call.services.presence.require(thread_id)
    found = await call.services.runs.get(run_id, include_deleted=True)
    if found is None or found.thread_id != thread_id or _is_gone(found):
        await call.services.presence.require(thread_id, fresh=True)
        raise Problem(404, "Run not found")
    return found


def _is_gone(run: Run) -> bool:
    deleted = run.deleted and run.status != "rollback"  # who joins that one is told that nothing is left
    return deleted or (run.thread_deleted and not run.temporary)


def _location(run: Run, last: str) -> dict[str, str]:
    path = run_path(run.thread_id, run.run_id)
    return {"Content-Location": path, "Location": path + last}
