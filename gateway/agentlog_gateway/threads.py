"""The routes of threads: create, get, patch, delete, search. Source: Agent Server API, section 5."""

from starlette.responses import Response

from agentlog_commands.command import Decision, Refused
from agentlog_commands.submit import Submitted, Voided
from agentlog_commands.threads import CreateThread, DeleteThread, PatchThread
from agentlog_facts.ids import Key, ThreadId
from agentlog_facts.json_value import Json
from agentlog_facts.thread import ThreadCreated
from agentlog_gateway.call import Call
from agentlog_gateway.errors import Problem, thread_not_found
from agentlog_gateway.extracts import extracted, extraction_paths
from agentlog_gateway.replies import json_response, no_content, page_response
from agentlog_gateway.shapes import new_thread_json, selected, thread_json
from agentlog_gateway.wire import ThreadCreate, ThreadPatch, ThreadSearch
from agentlog_projections.decisions import ThreadDecision
from agentlog_projections.threads import Thread, ThreadFilter


async def existing_thread(call: Call, thread_id: str, *, with_values: bool = True) -> Thread:
    """Return the row of a thread; `with_values=False` spares reading a large state.

    Raises: Problem 404, Unavailable while its partition is not present.
    """
    await call.services.presence.require(thread_id)
    row = await call.services.threads.get(ThreadId(thread_id), with_values=with_values)
    if row is None:
        await call.services.presence.require(thread_id, fresh=True)
        raise thread_not_found(thread_id)
    return row


async def thread_decision(call: Call, thread_id: str) -> ThreadDecision:
    """Return what deciders need of a thread, existing or not. Raises: Unavailable, Quarantined."""
    key = ThreadId(thread_id)
    return await call.services.decisions.thread(key, call.services.log.partition_of(Key(thread_id)))


async def create(call: Call) -> Response:
    """POST /threads: one append, nothing is read before."""
    body = await call.body(ThreadCreate)
    thread_id = ThreadId(body.thread_id or call.new_id("thread"))
    await call.services.presence.require(thread_id)
    command = CreateThread(thread_id, body.metadata)

    async def decide() -> Decision:
        return command.decide()

    done = await call.submit("CreateThread", thread_id, decide)
    if isinstance(done, Submitted):
        match done.facts[0]:
            case ThreadCreated() as created:
                return json_response(new_thread_json(done, created), call.token(done))
            case other:
                raise TypeError(f"thread {thread_id}: expected ThreadCreated, found {type(other).__name__}")
    if body.if_exists == "do_nothing":
        return json_response(thread_json(await existing_thread(call, thread_id)))
    raise Problem(409, f"Thread with ID {thread_id} already exists", reason="thread_exists")


async def get(call: Call) -> Response:
    """GET /threads/{thread_id}."""
    return json_response(thread_json(await existing_thread(call, call.path_id("thread"))))


async def patch(call: Call) -> Response:
    """PATCH /threads/{thread_id}: merge metadata."""
    thread_id = ThreadId(call.path_id("thread"))
    body = await call.body(ThreadPatch)
    command = PatchThread(thread_id, body.metadata)

    async def decide() -> Decision:
        return command.decide((await thread_decision(call, thread_id)).state)

    done = await call.submit("PatchThread", thread_id, decide)
    if not isinstance(done, Submitted):
        raise Problem(404, "Not Found")
    if "return=minimal" in call.request.headers.get("prefer", ""):
        return no_content(call.token(done))
    return json_response(thread_json(await existing_thread(call, thread_id)), call.token(done))


async def delete(call: Call) -> Response:
    """DELETE /threads/{thread_id}: runs and checkpoints go too, active runs end."""
    thread_id = ThreadId(call.path_id("thread"))

    async def decide() -> Decision:
        found = await thread_decision(call, thread_id)
        return DeleteThread(thread_id, found.version or 0, found.meta_version).decide(found.state)

    done = await call.submit("DeleteThread", thread_id, decide, serial=True)
    if isinstance(done, Refused | Voided):
        raise thread_not_found(thread_id)
    return no_content(call.token(done))


async def search(call: Call) -> Response:
    """POST /threads/search."""
    body = await call.body(ThreadSearch)
    paths = extraction_paths(body.extract)
    await call.services.presence.require_all()
    where = ThreadFilter(tuple(body.ids), body.metadata or None, body.values or None, body.status)
    found = await call.services.threads.search(
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
