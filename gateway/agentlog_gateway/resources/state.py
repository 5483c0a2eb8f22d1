"""Endpoints of a thread's state: read, write, history. Source: docs/http-api.md, section 6."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from starlette.responses import Response

from agentlog_commands.command import Decision, Refused
from agentlog_commands.submit import Submitted, Voided
from agentlog_commands.threads import UpdateState
from agentlog_facts.graph_ports import LATEST, At, EncodedState, StateChange
from agentlog_facts.ids import ThreadId
from agentlog_facts.json_value import Json, JsonObject, dump
from agentlog_facts.thread import StateUpdated
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.errors import Problem, invalid, thread_not_found
from agentlog_gateway.http.responses import json_response
from agentlog_gateway.reads.remembered_answers import Answer, answer_response
from agentlog_gateway.resources.cancel import has_stopped
from agentlog_gateway.resources.openings import opening
from agentlog_gateway.resources.threads import thread_context
from agentlog_gateway.schemas.queries import PastStatesQuery, StateQuery
from agentlog_gateway.schemas.requests import CheckpointRef, HistoryQuery, StateAtCheckpoint, StateUpdate
from agentlog_gateway.schemas.responses import selected_state
from agentlog_projections.models.threads import Thread


def graph_of(thread: Thread) -> str | None:
    """Return the graph of a thread's last run, None before the first run."""
    graph_id = thread.metadata.get("graph_id")
    return graph_id if isinstance(graph_id, str) else None


def at_checkpoint(ref: CheckpointRef | None, checkpoint_id: str | None = None) -> At:
    """Return the address of the checkpoint that a body names."""
    if ref is None:
        return At(checkpoint_id)
    return At(ref.checkpoint_id or checkpoint_id, ref.checkpoint_ns or "", ref.checkpoint_map)


def empty_snapshot(thread_id: str, at: At) -> EncodedState:
    """Return the snapshot of a thread without state; it echoes a requested checkpoint id."""
    checkpoint: Json = None if at.checkpoint_id is None else {"checkpoint_id": at.checkpoint_id, "thread_id": thread_id}
    snapshot: JsonObject = {
        "values": {},
        "next": [],
        "tasks": [],
        "metadata": None,
        "created_at": None,
        "checkpoint": checkpoint,
        "parent_checkpoint": None,
        "interrupts": [],
        "checkpoint_id": at.checkpoint_id,
        "parent_checkpoint_id": None,
    }
    return EncodedState.of(snapshot)


async def _answered(
    context: RequestContext, question: Json, read: Callable[[ThreadId, str | None], Awaitable[Answer]]
) -> Response:
    """Answer a question about a thread's states, from memory if its rows have not changed since the last answer.

    Raises: Problem 404, Unavailable while its partition has not caught up, and the errors of `read`.
    """
    dependencies, thread_id = context.dependencies, ThreadId(context.path_id("thread"))
    await dependencies.caught_up.require(thread_id)
    asked, read_at = dump(question), dependencies.answers.now()
    found = await dependencies.state_versions.get(thread_id)
    if found is None:
        await dependencies.caught_up.require(thread_id, fresh=True)
        raise thread_not_found(thread_id)
    version = found.version
    answer = None if version is None else dependencies.answers.find(thread_id, asked, version, read_at)
    if answer is None:
        answer = await read(thread_id, found.graph_id)
        if version is not None:
            dependencies.answers.remember(thread_id, asked, version, answer)
    return answer_response(context.request, answer)


async def _snapshot(context: RequestContext, at: At, *, subgraphs: bool, select: list[str] | None) -> Response:
    async def read(thread_id: ThreadId, graph_id: str | None) -> Answer:
        if graph_id is None:
            found = empty_snapshot(thread_id, at)
        else:
            opened_with = await opening(context.dependencies, graph_id, thread_id)
            found = await context.dependencies.graphs.get_state(
                graph_id, thread_id, at, subgraphs=subgraphs, opened_with=opened_with
            )
        return Answer(selected_state(found, select), lasting=found.lasting)

    return await _answered(context, ["state", *_place(at), subgraphs, [*(select or ())]], read)


def _place(at: At) -> tuple[Json, ...]:
    """Return an address as a part of a question."""
    return at.checkpoint_id, at.checkpoint_ns, at.checkpoint_map


async def get(context: RequestContext) -> Response:
    """GET /threads/{thread_id}/state."""
    query = context.query(StateQuery)
    return await _snapshot(context, LATEST, subgraphs=query.subgraphs, select=query.select)


async def get_at(context: RequestContext) -> Response:
    """GET /threads/{thread_id}/state/{checkpoint_id}; the snapshot of an unknown id is empty."""
    at, query = At(context.request.path_params["checkpoint_id"]), context.query(StateQuery)
    return await _snapshot(context, at, subgraphs=query.subgraphs, select=query.select)


async def post_at(context: RequestContext) -> Response:
    """POST /threads/{thread_id}/state/checkpoint."""
    body = await context.body(StateAtCheckpoint)
    return await _snapshot(context, at_checkpoint(body.checkpoint), subgraphs=body.subgraphs, select=body.select)


async def get_history(context: RequestContext) -> Response:
    """GET /threads/{thread_id}/history; a limit of zero or less returns nothing."""
    query = context.query(PastStatesQuery)
    return await _history(context, LATEST, query.before, query.limit, None, query.select)


async def post_history(context: RequestContext) -> Response:
    """POST /threads/{thread_id}/history."""
    body = await context.body(HistoryQuery)
    context.demand_small(metadata=body.metadata)
    before = _before(body.before)
    return await _history(context, at_checkpoint(body.checkpoint), before, body.limit, body.metadata, body.select)


def _before(given: str | JsonObject | None) -> str | None:
    """Return the checkpoint id of `before`: a string, or an object that has it flat or below `configurable`."""
    if given is None or isinstance(given, str):
        return given
    nested = given.get("configurable")
    found = (nested if isinstance(nested, dict) else given).get("checkpoint_id")
    if not isinstance(found, str):
        raise invalid("before: expected a checkpoint id, or an object with one")
    return found


async def _history(
    context: RequestContext,
    at: At,
    before: str | None,
    limit: int,
    metadata: JsonObject | None,
    select: list[str] | None,
) -> Response:
    async def read(thread_id: ThreadId, graph_id: str | None) -> Answer:
        if graph_id is None or limit <= 0:
            return Answer(b"[]", lasting=False)
        opened_with = await opening(context.dependencies, graph_id, thread_id)
        found = await context.dependencies.graphs.get_history(
            graph_id, thread_id, at, before=before, limit=limit, metadata=metadata, opened_with=opened_with
        )
        body = b"[%s]" % b",".join([selected_state(snapshot, select) for snapshot in found])
        return Answer(body, lasting=bool(found) and all(one.lasting for one in found))

    return await _answered(context, ["history", *_place(at), before, limit, metadata, [*(select or ())]], read)


class StateWrite:
    """One update of the state; each try computes it again from the thread's current state."""

    def __init__(self, context: RequestContext, thread_id: ThreadId, body: StateUpdate) -> None:
        self._context = context
        self._thread_id = thread_id
        self._body = body
        self.change: StateChange | None = None

    async def decide(self) -> Decision:
        """Read the thread, let the graph apply the values, decide. Raises: BadUpdate, Problem, Unavailable."""
        found = await thread_context(self._context, self._thread_id)
        thread = await self._context.dependencies.threads.get(self._thread_id)
        if not found.state.exists or found.version is None or thread is None:
            return Refused("thread_not_found")
        self.change = await self._apply(thread)
        updated = replace(self.change.updated, command=self._asked())
        command = UpdateState(self._thread_id, found.version, self.change.facts, updated)
        return command.decide(found.state)

    def _asked(self) -> JsonObject:
        """Return the update as the client asked for it."""
        body, base = self._body, self._body.checkpoint
        return {
            "values": body.values,
            "as_node": body.as_node,
            "checkpoint": None if base is None else base.model_dump(mode="json", exclude_unset=True),
            "checkpoint_id": body.checkpoint_id,
        }

    async def _apply(self, thread: Thread) -> StateChange:
        graph_id = graph_of(thread)
        if graph_id is None:
            detail = f"Thread {self._thread_id} has no assigned graph ID: run an assistant on it first"
            raise Problem(400, detail, reason="thread_without_graph")
        return await self._context.dependencies.graphs.update_state(
            graph_id,
            self._thread_id,
            self._body.values,
            as_node=self._body.as_node,
            at=at_checkpoint(self._body.checkpoint, self._body.checkpoint_id),
            view=thread.values,
            config=thread.config,
            opened_with=await opening(self._context.dependencies, graph_id, self._thread_id),
        )


async def post(context: RequestContext) -> Response:
    """POST /threads/{thread_id}/state: the new checkpoints and the new state in one commit.

    Behind an accepted cancel, the update waits until the run has ended.
    """
    thread_id = ThreadId(context.path_id("thread"))
    body = await context.body(StateUpdate)
    write = StateWrite(context, thread_id, body)
    done = await context.submit("UpdateState", thread_id, write.decide, serial=True, conflicts=True)
    while _meets_runs(done) and await has_stopped(context, thread_id):
        done = await context.submit("UpdateState", thread_id, write.decide, serial=True, conflicts=True)
    match done:
        case Submitted():
            if not done.duplicate:
                _announce(context, thread_id, done)
            return json_response(_checkpoint_answer(thread_id, done, write.change), context.token(done))
        case Refused(reason="thread_busy" | "run_stopping"):
            raise Problem(409, done.detail, reason="thread_busy")
        case Voided() if done.void.reason == "view_locked":
            raise Problem(409, f"Thread {thread_id} has in-flight runs: [{done.void.found}]", reason="thread_busy")
        case _:
            raise thread_not_found(thread_id)


def _announce(context: RequestContext, thread_id: ThreadId, done: Submitted) -> None:
    """Tell the streams of the thread about an update of its state, as it left the state."""
    dependencies = context.dependencies
    updated = next(fact for fact in done.facts if isinstance(fact, StateUpdated))
    place = (
        At(updated.checkpoint_id) if not updated.checkpoint_ns else LATEST
    )  # an update of a subgraph shows in the root

    async def read() -> bytes:
        thread = await dependencies.threads.get(thread_id)
        graph_id = None if thread is None else graph_of(thread)
        if graph_id is None:
            return empty_snapshot(thread_id, LATEST).document()
        opened_with = await opening(dependencies, graph_id, thread_id)
        return (await dependencies.graphs.get_state(graph_id, thread_id, place, opened_with=opened_with)).document()

    dependencies.announcer.state(thread_id, context.identity.event_id, read)


def _meets_runs(done: Submitted | Refused | Voided) -> bool:
    """Return whether a run stands in the way of an update."""
    match done:
        case Refused():
            return done.reason == "run_stopping"
        case Voided():
            return done.void.reason == "view_locked"
        case Submitted():
            return False


def _checkpoint_answer(thread_id: str, done: Submitted, change: StateChange | None) -> JsonObject:
    checkpoint: JsonObject
    if change is not None and not done.duplicate:
        checkpoint = change.checkpoint
    else:
        updated = next(fact for fact in done.facts if isinstance(fact, StateUpdated))
        checkpoint = {
            "thread_id": thread_id,
            "checkpoint_ns": updated.checkpoint_ns,
            "checkpoint_id": updated.checkpoint_id,
        }
    return {"checkpoint": checkpoint, "configurable": checkpoint, "checkpoint_id": checkpoint.get("checkpoint_id")}
