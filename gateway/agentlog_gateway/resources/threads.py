"""Endpoints of threads: create, get, patch, delete, search, count, prune, copy, storage.

Source: docs/http-api.md, section 5.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial

from starlette.responses import Response, StreamingResponse

from agentlog_commands.command import Decision, Refused
from agentlog_commands.submit import Submitted, Voided
from agentlog_commands.thread_copies import CopyDrive, ask
from agentlog_commands.threads import CreateThread, DeleteThread, PatchThread, PruneThread
from agentlog_facts.envelope import Fact
from agentlog_facts.errors import OutcomeUnknown, Unavailable
from agentlog_facts.graph_ports import BadUpdate, GraphFailed, GraphNotFound, StepUpdate
from agentlog_facts.ids import Key, ThreadId
from agentlog_facts.state_diff import diff_state
from agentlog_facts.thread import ThreadCopied, ThreadCreated
from agentlog_facts.thread_copy import ThreadCopyAsked
from agentlog_gateway.api.request_context import Attempted, RequestContext
from agentlog_gateway.http.errors import Problem, thread_not_found
from agentlog_gateway.http.preconditions import demand_match, entity_tag, is_known
from agentlog_gateway.http.responses import JSON, json_response, no_content, page_headers
from agentlog_gateway.resources.each import each
from agentlog_gateway.schemas.extract import extraction_paths
from agentlog_gateway.schemas.queries import ThreadQuery, ThreadStreamQuery
from agentlog_gateway.schemas.requests import ThreadCount, ThreadCreate, ThreadPatch, ThreadPrune, ThreadSearch
from agentlog_gateway.schemas.responses import copied_thread_json, new_thread_json, storage_json
from agentlog_gateway.schemas.thread_document import thread_document
from agentlog_gateway.streaming.sse_response import HEADERS, SseResponse
from agentlog_gateway.streaming.threads.thread_modes import ThreadEncoder, thread_modes
from agentlog_projections.models.threads import Thread, ThreadFilter, ThreadText
from agentlog_projections.queries.command_context import ThreadContext

PRUNED_AT_ONCE = 8
"""Threads that one request deletes or prunes at the same time."""
READ_AT_ONCE_BYTES = 64 * 1024
"""Values of threads up to this size are read with the page of a search that shows them."""


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
    ttl = context.dependencies.default_ttl if body.ttl is None else body.ttl.fact
    command = CreateThread(thread_id, body.metadata, context.dependencies.limits.metadata, ttl)

    replay = Replay(context, thread_id, body)

    async def decide() -> Decision:
        return command.decide(await replay.facts())

    done = await context.submit("CreateThread", thread_id, decide, target={"thread_id": thread_id})
    if isinstance(done, Submitted):
        return await _created(context, done, replay)
    if body.if_exists == "do_nothing":
        return await _shown(context, thread_id)
    raise Problem(409, f"Thread with ID {thread_id} already exists", reason="thread_exists")


class Replay:
    """First state of a new thread, from the supersteps of its creation."""

    def __init__(self, context: RequestContext, thread_id: ThreadId, body: ThreadCreate) -> None:
        self._context = context
        self._thread_id = thread_id
        self._body = body
        self.problem: str | None = None
        """The reason for which the thread is created without a state."""

    async def facts(self) -> Sequence[Fact]:
        """Let the graph of the metadata apply the supersteps; return their facts, none with a `problem`.

        Raises: Unavailable.
        """
        if not self._body.supersteps:
            return ()
        graph_id = self._body.metadata.get("graph_id")
        steps = [[StepUpdate(**one.model_dump()) for one in step.updates] for step in self._body.supersteps]
        try:
            if not isinstance(graph_id, str):
                raise BadUpdate("supersteps need the graph as metadata.graph_id")
            change = await self._context.dependencies.graphs.replay(graph_id, self._thread_id, steps)
        except (BadUpdate, GraphFailed, GraphNotFound) as error:
            self.problem = str(error)
            return ()
        return (*change.facts, change.updated)


async def _created(context: RequestContext, done: Submitted, replay: Replay) -> Response:
    """Return the response to a creation: 201 with a text if its supersteps had no effect."""
    created = done.facts[0]
    if not isinstance(created, ThreadCreated):
        raise TypeError(f"expected ThreadCreated, found {type(created).__name__}")
    if len(done.facts) > 1:
        return await _shown(context, created.thread_id, context.token(done))
    if replay.problem is None:
        return json_response(new_thread_json(done, created), context.token(done))
    problem = f"there were problems updating the state: {replay.problem}"
    detail = f"Thread {created.thread_id} was created, but {problem}"
    return json_response({"detail": detail}, context.token(done), 201)


async def _shown(
    context: RequestContext, thread_id: str, headers: Mapping[str, str] | None = None, *, with_ttl: bool = False
) -> Response:
    """Return the response that shows a thread. Raises: Problem 404, Unavailable."""
    await context.dependencies.caught_up.require(thread_id)
    found = await context.dependencies.threads.text(ThreadId(thread_id))
    if found is None:
        await context.dependencies.caught_up.require(thread_id, fresh=True)
        raise thread_not_found(thread_id)
    document = thread_document(found, context.dependencies.secrets.keys, with_ttl=with_ttl)
    tag = _tag(found.thread.thread_id, found.thread.version, found.thread.meta_version)
    tagged = {"ETag": tag, "Cache-Control": "private, no-cache", **(headers or {})}
    if is_known(context.request, tag):
        return Response(status_code=304, headers=tagged)
    return Response(document, 200, tagged, JSON)


async def get(context: RequestContext) -> Response:
    """GET /threads/{thread_id}; `include=ttl` adds the time to live."""
    with_ttl = "ttl" in context.query(ThreadQuery).include
    return await _shown(context, context.path_id("thread"), with_ttl=with_ttl)


async def patch(context: RequestContext) -> Response:
    """PATCH /threads/{thread_id}: merge metadata, replace the TTL."""
    thread_id = ThreadId(context.path_id("thread"))
    body = await context.body(ThreadPatch)
    ttl = None if body.ttl is None else body.ttl.fact
    command = PatchThread(thread_id, body.metadata, context.dependencies.limits.metadata, ttl)

    async def decide() -> Decision:
        found = await thread_context(context, thread_id)
        exact = found.version if "if-match" in context.request.headers else None
        _check_tag(context, thread_id, found)
        return command.decide(found.state, found.metadata, found.meta_version, exact)

    done = await context.submit("PatchThread", thread_id, decide, serial=command.large)
    if not isinstance(done, Submitted):
        raise Problem(404, "Not Found")
    if "return=minimal" in context.request.headers.get("prefer", ""):
        return no_content(context.token(done))
    return await _shown(context, thread_id, context.token(done))


def _tag(thread_id: ThreadId, version: int | None, meta_version: int | None) -> str:
    """Return the entity tag of a thread; each change of it, also by a run, gives another one."""
    return entity_tag(thread_id, str(version), str(meta_version))


def _check_tag(context: RequestContext, thread_id: ThreadId, found: ThreadContext) -> None:
    """Check the If-Match of a request, if the thread exists. Raises: Problem 412."""
    if found.state.exists:
        demand_match(context.request, _tag(thread_id, found.version, found.meta_version))


async def delete(context: RequestContext) -> Response:
    """DELETE /threads/{thread_id}: also deletes its runs and checkpoints and ends active runs."""
    thread_id = ThreadId(context.path_id("thread"))

    async def decide() -> Decision:
        found = await thread_context(context, thread_id)
        _check_tag(context, thread_id, found)
        return DeleteThread(thread_id, found.version or 0, found.meta_version).decide(found.state)

    done = await context.submit("DeleteThread", thread_id, decide, serial=True)
    if isinstance(done, Refused | Voided):
        raise thread_not_found(thread_id)
    return no_content(context.token(done))


async def prune(context: RequestContext) -> Response:
    """POST /threads/prune: delete threads, or keep only the last checkpoint of each namespace.

    Every thread is an aggregate of its own: each gets a commit of its own, and unknown ones are skipped. A thread with
    an active run is not pruned to its last checkpoint.
    """
    body = await context.body(ThreadPrune)
    named = [*dict.fromkeys(map(ThreadId, body.thread_ids))]
    if context.identity.keyed:  # before the first thread is deleted
        await each(named, lambda thread_id: context.accepted(thread_id, item=thread_id), PRUNED_AT_ONCE)
    keeps_latest = body.strategy == "keep_latest"
    done = await each(named, partial(_pruned, context, keeps_latest=keeps_latest), PRUNED_AT_ONCE)
    return json_response({"pruned_count": sum(done)})


async def _pruned(context: RequestContext, thread_id: ThreadId, *, keeps_latest: bool) -> bool:
    """Delete or prune one thread; return whether it is as the request demands. Raises: Unavailable."""

    async def decide() -> Decision:
        found = await thread_context(context, thread_id)
        if not keeps_latest:
            return DeleteThread(thread_id, found.version or 0, found.meta_version).decide(found.state)
        earlier = await context.dependencies.stored_checkpoints.earlier(thread_id)
        return PruneThread(thread_id, found.version or 0, found.meta_version, earlier).decide(found.state)

    match await context.submit(
        "PruneThread", thread_id, decide, serial=True, item=thread_id, target={"thread_id": thread_id}
    ):
        case Submitted() | Refused(reason="nothing_to_do"):
            return True
        case _:
            return False


async def copy(context: RequestContext) -> Response:
    """POST /threads/{thread_id}/copy: a new thread with the metadata, the state and the checkpoints of this one.

    Its runs are not copied, nor a part of a run that has not ended, and nothing that comes later. If the copy takes
    longer than the request may, the housekeeper finishes it; a retry with the same Idempotency-Key waits for it again.
    """
    source_id, target_id = ThreadId(context.path_id("thread")), ThreadId(context.new_id("thread"))
    asked_for = Attempted(Key(source_id), "CopyThread", {"thread_id": source_id})

    async def decide() -> Decision:
        found = await context.dependencies.threads.settled(source_id)
        return Refused("thread_not_found") if found is None else ask(_copy_of(*found, target_id))

    await context.dependencies.caught_up.require(source_id)
    done = await context.submit("CopyThread", target_id, decide)
    asked = done.facts[0] if isinstance(done, Submitted) else None
    if not isinstance(asked, ThreadCopyAsked):
        context.attempted = asked_for
        raise Problem(409, "Conflict", reason="thread_not_found")
    dependencies = context.dependencies
    event_id = context.identity.event_id
    drive = CopyDrive(dependencies.submitter, dependencies.copies, asked, event_id, context.cause, context.deadline)
    try:
        made = await drive.finish()
    except Unavailable as error:
        raise OutcomeUnknown(f"{target_id}: the copy is not finished") from error
    if made is None:
        context.attempted = asked_for
        raise Problem(409, "Conflict", reason="not_possible")
    created, copied = made.facts
    if not isinstance(created, ThreadCreated) or not isinstance(copied, ThreadCopied):
        raise TypeError(f"thread {target_id}: expected ThreadCreated and ThreadCopied")
    return json_response(copied_thread_json(made, created, copied), context.token(made))


def _copy_of(source: Thread, as_of: int, target_id: ThreadId) -> ThreadCopyAsked:
    return ThreadCopyAsked(
        thread_id=target_id,
        source_thread_id=source.thread_id,
        source_created_at=source.created_at,
        source_versions={"thread": source.version, "meta": source.meta_version},
        as_of=as_of,
        metadata=source.metadata,
        ttl=source.ttl,
        view={} if source.values is None else diff_state({}, source.values),
        next=source.next,
        interrupts=source.interrupts,
    )


async def storage(context: RequestContext) -> Response:
    """GET /threads/{thread_id}/storage."""
    thread = await existing_thread(context, context.path_id("thread"), with_values=False)
    found = await context.dependencies.stored_checkpoints.storage(thread.thread_id)
    return json_response(storage_json(thread.thread_id, found))


async def count(context: RequestContext) -> Response:
    """POST /threads/count: a bare number."""
    body = await context.body(ThreadCount)
    where = await _filter(context, body, ())
    return json_response(await context.dependencies.threads.count(where))


async def _filter(context: RequestContext, body: ThreadCount, ids: Sequence[str]) -> ThreadFilter:
    """Return the filter of a search or count. Raises: Problem 422, Unavailable while a partition is not folded."""
    context.demand_small(metadata=body.metadata, values=body.values)
    for one in body.excluded:
        context.demand_small(exclude_metadata=one)
    await context.dependencies.caught_up.require_all()
    return ThreadFilter(tuple(ids), body.metadata or None, body.values or None, body.status, tuple(body.excluded))


async def search(context: RequestContext) -> Response:
    """POST /threads/search: one by one if they are large, so that the loop is free for others between two of them."""
    body = await context.body(ThreadSearch)
    paths = extraction_paths(body.extract)
    found = await context.dependencies.threads.search(
        await _filter(context, body, body.ids),
        sort_by=body.sort_by,
        descending=body.sort_order == "desc",
        limit=body.limit + 1,
        offset=body.offset,
        with_values=body.select is None or "values" in body.select or bool(paths),
        longest=READ_AT_ONCE_BYTES,
    )
    shown = partial(thread_document, keys=context.dependencies.secrets.keys, select=body.select, paths=paths)
    headers, rows = page_headers(len(found), body.offset, body.limit), found[: body.limit]
    if any(row.left_out for row in rows):
        return StreamingResponse(_array(context, rows, shown), 200, headers, JSON)
    return Response(b"[%s]" % b",".join(map(shown, rows)), 200, headers, JSON)


async def _array(
    context: RequestContext, rows: Sequence[ThreadText], shown: Callable[[ThreadText], bytes]
) -> AsyncGenerator[bytes]:
    """Yield a JSON array in parts, one thread each; large threads are read one by one, as they are by then."""
    before = b"["
    for row in rows:
        whole = await context.dependencies.threads.text(row.thread.thread_id) if row.left_out else row
        if whole is not None:  # else it was deleted meanwhile
            yield before + shown(whole)
            before = b","
    yield b"[]" if before == b"[" else b"]"


async def stream(context: RequestContext) -> Response:
    """GET /threads/{thread_id}/stream: never ends; a thread that does not exist has heartbeats only."""
    thread_id = ThreadId(context.path_id("thread"))
    query = context.query(ThreadStreamQuery)
    modes = thread_modes([*query.stream_modes, *query.stream_mode])
    dependencies = context.dependencies
    await dependencies.caught_up.require(thread_id)
    if context.head:
        return Response(headers=HEADERS)
    events = dependencies.thread_streams.open(thread_id, context.request.headers.get("last-event-id"))
    return SseResponse(events, ThreadEncoder(dependencies.framer, modes).encode)
