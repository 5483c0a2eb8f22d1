"""Endpoints that end or remove a run: cancel and delete. Source: docs/http-api.md, section 9."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from starlette.responses import Response

from agentlog_commands.command import Decision, Refused
from agentlog_commands.identity import follow_up
from agentlog_commands.runs import CancelRun, DeleteRun
from agentlog_commands.submit import Intent, Submitted, Voided
from agentlog_facts.errors import AgentlogError
from agentlog_facts.guard import Void
from agentlog_facts.ids import Key, RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.state_diff import diff_state
from agentlog_facts.thread import CancelAction, RunCancelRequested, RunFinished, ThreadState
from agentlog_gateway import timeouts
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.errors import Problem
from agentlog_gateway.http.long_poll import BlockingResponse
from agentlog_gateway.http.responses import no_content, run_path
from agentlog_gateway.resources.openings import opening_of_run
from agentlog_gateway.resources.run_result import cancelled_document
from agentlog_gateway.resources.threads import existing_thread, thread_context
from agentlog_gateway.schemas.queries import CancelQuery
from agentlog_projections.models.runs import Run

log = logging.getLogger(__name__)

CANCEL_ROUTE = "POST /threads/{thread_id}/runs/{run_id}/cancel"
DISCONNECTED = "client disconnected from the run stream (on_disconnect=cancel)"
NOT_ACTIVE = "No matching runs to cancel. The run has ended already."
NO_RUNS = "No runs found to cancel."


def requested(action: CancelAction, route: str) -> str:
    """Return the reason of a cancel by request; it names the route as the API documents it."""
    return f"{action} requested via {route}"


def _error(action: CancelAction, reason: str) -> JsonObject:
    """Return the error that the thread shows; its message is the run's `cancel_reason`."""
    return {"error": "UserRollback" if action == "rollback" else "UserInterrupt", "message": reason}


class Cancellation:
    """One request to stop a run."""

    def __init__(
        self, context: RequestContext, thread_id: ThreadId, run_id: RunId | None, action: CancelAction, reason: str
    ) -> None:
        """`run_id`: None stands for the run that the thread executes, or else for the next one."""
        self._context = context
        self._thread_id = thread_id
        self._run_id = run_id
        self._action: CancelAction = action
        self._reason = reason

    async def decide(self) -> Decision:
        """End a pending run; request the stop of a running one."""
        dependencies = self._context.dependencies
        found = await thread_context(self._context, self._thread_id)
        run_id = self._run_id or _active(found.state)
        if run_id is not None and self._run_id is None and run_id in found.state.stopping:
            return Refused("run_stopping", run_id)
        if found.version is None or run_id is None:
            return Refused("run_not_found")
        deadline = dependencies.clock.now() + timedelta(seconds=dependencies.limits.cancel_grace_s)
        error = _error(self._action, self._reason)
        command = CancelRun(self._thread_id, run_id, self._action, error, deadline, found.version)
        return command.decide(found.state)


def _active(state: ThreadState) -> RunId | None:
    """Return the run that a thread executes, or one that still stops, or else the first one that waits."""
    waiting = [run.run_id for run in state.runs.values() if run.cancel is None]
    claimed = [run_id for run_id in waiting if state.runs[run_id].epoch is not None]
    return next(iter([*claimed, *state.stopping, *waiting]), None)


async def cancel(context: RequestContext) -> Response:
    """POST /threads/{thread_id}/runs/{run_id}/cancel."""
    thread_id, run_id = ThreadId(context.path_id("thread")), RunId(context.path_id("run"))
    query = context.query(CancelQuery)
    await context.raw_body()
    reason = requested(query.action, CANCEL_ROUTE)
    decide = Cancellation(context, thread_id, run_id, query.action, reason).decide
    done = await context.submit("CancelRun", thread_id, decide, serial=True)
    if not isinstance(done, Submitted):
        raise await _refusal(context, thread_id, run_id)
    context.dependencies.announcer.ends(thread_id, done, context.identity.event_id)
    return _accepted(context, context.token(done), thread_id, run_id, wait=query.wait)


async def cancel_active(context: RequestContext) -> Response:
    """POST /threads/{thread_id}/runs/cancel: the run that the thread executes, or else the next one."""
    thread_id = ThreadId(context.path_id("thread"))
    query = context.query(CancelQuery)
    await context.raw_body()
    reason = requested(query.action, context.route_name)
    decide = Cancellation(context, thread_id, None, query.action, reason).decide
    done = await context.submit("CancelRun", thread_id, decide, serial=True)
    if isinstance(done, Refused) and done.reason == "run_stopping":
        context.attempted = None
        return _accepted(context, {}, thread_id, RunId(done.detail), wait=query.wait)
    if not isinstance(done, Submitted):
        await existing_thread(context, thread_id, with_values=False)
        raise Problem(404, NO_RUNS, reason="run_not_found")
    context.dependencies.announcer.ends(thread_id, done, context.identity.event_id)
    run_id = next(fact.run_id for fact in done.facts if isinstance(fact, RunCancelRequested | RunFinished))
    return _accepted(context, context.token(done), thread_id, run_id, wait=query.wait)


def _accepted(
    context: RequestContext, token: Mapping[str, str], thread_id: ThreadId, run_id: RunId, *, wait: bool
) -> Response:
    """Return the response to an accepted cancel; with `wait` it ends when the run has stopped."""
    headers = {**token, "Content-Location": run_path(thread_id, run_id)}
    if wait:
        headers["Location"] = run_path(thread_id, run_id, "/join")
        return BlockingResponse(cancelled_document(context.dependencies, run_id), headers)
    return Response(status_code=202, headers=headers)


async def _refusal(context: RequestContext, thread_id: ThreadId, run_id: RunId) -> Problem:
    """Return the refusal: there is no such run, or it has ended."""
    if await _run(context, thread_id, run_id) is None:
        return Problem(404, NO_RUNS, reason="run_not_found")
    return Problem(404, NOT_ACTIVE)


async def has_stopped(context: RequestContext, thread_id: ThreadId) -> bool:
    """Wait until the cancelled runs of a thread have ended; clients see them as ended since their cancel was accepted.

    Return False if another run of the thread is active, or if the wait took longer than the grace time or the request's
    deadline. Raises: Unavailable.
    """
    dependencies = context.dependencies
    left_s = context.deadline - dependencies.clock.monotonic()
    state = (await thread_context(context, thread_id)).state
    if state.busy or left_s <= 0:
        return False
    try:
        async with asyncio.timeout(min(left_s, dependencies.limits.cancel_grace_s + timeouts.STOP_MARGIN_S)):
            for run_id in state.stopping:
                await dependencies.run_watcher.outcome(run_id, look_first=True)
    except TimeoutError:
        return False
    return True


async def _run(context: RequestContext, thread_id: ThreadId, run_id: RunId) -> Run | None:
    found = await context.dependencies.runs.get(run_id)
    return found if found is not None and found.thread_id == thread_id else None


async def delete(context: RequestContext) -> Response:
    """DELETE /threads/{thread_id}/runs/{run_id}: an active run ends first, its checkpoints are hidden."""
    thread_id, run_id = ThreadId(context.path_id("thread")), RunId(context.path_id("run"))

    async def decide() -> Decision:
        found = await thread_context(context, thread_id)
        run = await _run(context, thread_id, run_id)
        if run is None or found.version is None:
            return Refused("run_not_found")
        thread = await context.dependencies.threads.get(thread_id)
        left = await context.dependencies.graphs.view_without_run(
            run.graph_id,
            thread_id,
            run_id,
            opened_with=await opening_of_run(context.dependencies, run.graph_id, run_id),
        )
        before = (thread.values if thread is not None else None) or {}
        command = DeleteRun(
            thread_id,
            run_id,
            known=True,
            view=diff_state(before, left.values or {}),
            next=left.next,
            interrupts=left.interrupts,
            error=_error("interrupt", requested("interrupt", context.route_name)),
            version=found.version,
        )
        return command.decide(found.state)

    done = await context.submit("DeleteRun", thread_id, decide, serial=True)
    while isinstance(done, Voided) and done.void.reason == "view_locked" and await has_stopped(context, thread_id):
        done = await context.submit("DeleteRun", thread_id, decide, serial=True)
    match done:
        case Submitted():
            context.dependencies.announcer.ends(thread_id, done, context.identity.event_id)
            return no_content(context.token(done))
        case Voided(void=Void(reason="view_locked", found=other)):
            raise Problem(409, f"Thread {thread_id} has in-flight runs: [{other}]", reason="thread_busy")
        case _:
            raise Problem(404, "Run not found")


def on_client_gone(context: RequestContext, thread_id: ThreadId, run_id: RunId) -> Callable[[], Awaitable[None]]:
    """Return a function that cancels a run; a response calls it when its client has disconnected."""

    async def cancel_it() -> None:
        intent = Intent(
            Key(thread_id),
            follow_up(context.identity.event_id, 1),
            context.body_sha256,
            replace(context.cause, causation_id=context.identity.event_id),
            keyed=True,
            serial=True,
        )
        dependencies = context.dependencies
        deadline = (
            dependencies.clock.monotonic() + dependencies.limits.deadline_s
        )  # the request's own deadline has passed
        try:
            done = await dependencies.submitter.submit(
                intent, Cancellation(context, thread_id, run_id, "interrupt", DISCONNECTED).decide, deadline
            )
        except AgentlogError as error:
            log.error("disconnect.not_cancelled", extra={"run_id": run_id, "error": str(error)})
            return
        if isinstance(done, Submitted):
            dependencies.announcer.ends(thread_id, done, intent.event_id)
        log.info("disconnect.cancelled", extra={"run_id": run_id, "outcome": type(done).__name__})

    return cancel_it
