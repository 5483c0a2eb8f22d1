"""Endpoints of threads: create, get, patch, delete, search. Source: docs/http-api.md, section 5."""

from starlette.responses import Response

from agentlog_commands.command import Decision, Refused
from agentlog_commands.submit import Submitted, Voided
from agentlog_commands.threads import CreateThread, DeleteThread, PatchThread
from agentlog_facts.ids import Key, ThreadId
from agentlog_facts.json_value import Json
from agentlog_facts.thread import ThreadCreated
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.errors import Problem, thread_not_found
from agentlog_gateway.http.responses import json_response, no_content, page_response
from agentlog_gateway.schemas.extract import extracted, extraction_paths
from agentlog_gateway.schemas.requests import ThreadCreate, ThreadPatch, ThreadSearch
from agentlog_gateway.schemas.responses import new_thread_json, selected, thread_json
from agentlog_projections.models.threads import Thread, ThreadFilter
from agentlog_projections.queries.command_context import ThreadContext


async def existing_thread(context: RequestContext, thread_id: str, *, with_values: bool = True) -> Thread:
    """Return the row of a thread; `with_values=False` does not read its state, which may be large.

    Raises: Problem 404, Unavailable while its partition has not caught up.
    """
    await context.dependencies.caught_up.require(thread_id)
    row = await context.dependencies.threads.get(ThreadId(thread_id), with_values=with_values)
    if row is None:
        await context.dependencies.caught_up.require(thread_id, fresh=True)
        raise thread_not_found(thread_id)
    return row


async def thread_context(context: RequestContext, thread_id: str) -> ThreadContext:
    """Return the thread's state for deciders, empty if there is no such thread. Raises: Unavailable, Quarantined."""
    key = ThreadId(thread_id)
    return await context.dependencies.contexts.thread(key, context.dependencies.log.partition_of(Key(thread_id)))


async def create(context: RequestContext) -> Response:
    """POST /threads: one append, without a read of the thread before it."""
    body = await context.body(ThreadCreate)
    thread_id = ThreadId(body.thread_id or context.new_id("thread"))
    await context.dependencies.caught_up.require(thread_id)
    command = CreateThread(thread_id, body.metadata, context.dependencies.limits.metadata)

    async def decide() -> Decision:
        return command.decide()

    done = await context.submit("CreateThread", thread_id, decide)
    if isinstance(done, Submitted):
        match done.facts[0]:
            case ThreadCreated() as created:
                return json_response(new_thread_json(done, created), context.token(done))
            case other:
                raise TypeError(f"thread {thread_id}: expected ThreadCreated, found {type(other).__name__}")
    if body.if_exists == "do_nothing":
        return json_response(thread_json(await existing_thread(context, thread_id)))
    raise Problem(409, f"Thread with ID {thread_id} already exists", reason="thread_exists")


async def get(context: RequestContext) -> Response:
    """GET /threads/{thread_id}."""
    return json_response(thread_json(await existing_thread(context, context.path_id("thread"))))


async def patch(context: RequestContext) -> Response:
    """PATCH /threads/{thread_id}: merge metadata."""
    thread_id = ThreadId(context.path_id("thread"))
    body = await context.body(ThreadPatch)
    command = PatchThread(thread_id, body.metadata, context.dependencies.limits.metadata)

    async def decide() -> Decision:
        found = await thread_context(context, thread_id)
        return command.decide(found.state, found.metadata, found.meta_version)

    done = await context.submit("PatchThread", thread_id, decide, serial=command.large)
    if not isinstance(done, Submitted):
        raise Problem(404, "Not Found")
    if "return=minimal" in context.request.headers.get("prefer", ""):
        return no_content(context.token(done))
    return json_response(thread_json(await existing_thread(context, thread_id)), context.token(done))


async def delete(context: RequestContext) -> Response:
    """DELETE /threads/{thread_id}: also deletes its runs and checkpoints and ends active runs."""
    thread_id = ThreadId(context.path_id("thread"))

    async def decide() -> Decision:
        found = await thread_context(context, thread_id)
        return DeleteThread(thread_id, found.version or 0, found.meta_version).decide(found.state)

    done = await context.submit("DeleteThread", thread_id, decide, serial=True)
    if isinstance(done, Refused | Voided):
        raise thread_not_found(thread_id)
    return no_content(context.token(done))


async def search(context: RequestContext) -> Response:
    """POST /threads/search."""
    body = await context.body(ThreadSearch)
    paths = extraction_paths(body.extract)
    context.demand_small(metadata=body.metadata, values=body.values)
    await context.dependencies.caught_up.require_all()
    where = ThreadFilter(tuple(body.ids), body.metadata or None, body.values or None, body.status)
    found = await context.dependencies.threads.search(
        where,
        sort_by=body.sort_by,
        descending=body.sort_order == "desc",
        limit=body.limit + 1,
        offset=body.offset,
        with_values=body.select is None or "values" in body.select or bool(paths),
    )
    threads = [thread_json(row) for row in found]
    shown: list[Json] = [selected(thread, body.select) | extracted(thread, paths) for thread in threads]
    return page_response(shown, body.offset, body.limit)
