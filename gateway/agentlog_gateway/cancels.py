"""The routes that end or remove a run: cancel and delete. Source: Agent Server API, section 9."""

import logging
from collections.abc import Awaitable, Callable
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
from agentlog_facts.thread import CancelAction
from agentlog_facts.view import difference
from agentlog_gateway.blocking import BlockingResponse
from agentlog_gateway.call import Call, query_flag
from agentlog_gateway.errors import Problem, invalid
from agentlog_gateway.replies import no_content, run_path
from agentlog_gateway.threads import thread_decision
from agentlog_gateway.waits import RunWait, cancelled_document
from agentlog_projections.runs import Run

log = logging.getLogger(__name__)

CANCEL_ROUTE = "POST /threads/{thread_id}/runs/{run_id}/cancel"
NOT_ACTIVE = "No matching runs to cancel. The run has ended already."
NO_RUNS = "No runs found to cancel."


def _error(action: CancelAction, by: str) -> JsonObject:
    """Return what the thread shows; the message names the route as a template, as clients know it."""
    name = "UserRollback" if action == "rollback" else "UserInterrupt"
    return {"error": name, "message": f"{action} requested via {by}"}


class Cancellation:
    """One request to stop a run."""

    def __init__(self, call: Call, thread_id: ThreadId, run_id: RunId, action: CancelAction, by: str) -> None:
        self._call = call
        self._thread_id = thread_id
        self._run_id = run_id
        self._action: CancelAction = action
        self._by = by

    async def decide(self) -> Decision:
        """End a pending run, ask the worker of a running one."""
        services = self._call.services
        found = await thread_decision(self._call, self._thread_id)
        if found.version is None:
            return Refused("run_not_found")
        deadline = services.clock.now() + timedelta(seconds=services.limits.cancel_grace_s)
        error = _error(self._action, self._by)
        command = CancelRun(self._thread_id, self._run_id, self._action, error, deadline, found.version)
        return command.decide(found.state)


async def cancel(call: Call) -> Response:
    """POST /threads/{thread_id}/runs/{run_id}/cancel."""
    thread_id, run_id = ThreadId(call.path_id("thread")), RunId(call.path_id("run"))
    action = _action(call.request.query_params.get("action", "interrupt"))
    await call.raw_body()
    waiting = query_flag(call, "wait")
    wait = RunWait(call.services, run_id)
    try:
        done = await call.submit(
            "CancelRun", thread_id, Cancellation(call, thread_id, run_id, action, CANCEL_ROUTE).decide, serial=True
        )
        if not isinstance(done, Submitted):
            raise await _refusal(call, thread_id, run_id)
        headers = {**call.token(done), "Content-Location": run_path(thread_id, run_id)}
        if waiting:
            headers["Location"] = run_path(thread_id, run_id, "/join")
            return BlockingResponse(cancelled_document(wait), headers, wait.close)
    except BaseException:
        wait.close()
        raise
    wait.close()
    return Response(status_code=202, headers=headers)


def _action(text: str) -> CancelAction:
    match text:
        case "interrupt" | "rollback":
            return text
        case _:
            raise invalid(f"action: expected interrupt or rollback, found {text!r}")


async def _refusal(call: Call, thread_id: ThreadId, run_id: RunId) -> Problem:
    """Return what the client is told: there is no such run, or it has ended."""
    if await _run(call, thread_id, run_id) is None:
        return Problem(404, NO_RUNS, reason="run_not_found")
    return Problem(404, NOT_ACTIVE)


async def _run(call: Call, thread_id: ThreadId, run_id: RunId) -> Run | None:
    found = await call.services.runs.get(run_id)
    return found if found is not None and found.thread_id == thread_id else None


async def delete(call: Call) -> Response:
    """DELETE /threads/{thread_id}/runs/{run_id}: an active run ends first, its checkpoints are hidden."""
    thread_id, run_id = ThreadId(call.path_id("thread")), RunId(call.path_id("run"))

    async def decide() -> Decision:
        found = await thread_decision(call, thread_id)
        run = await _run(call, thread_id, run_id)
        if run is None or found.version is None:
            return Refused("run_not_found")
        thread = await call.services.threads.get(thread_id)
        left = await call.services.graphs.view_without_run(run.graph_id, thread_id, run_id)
        before = (thread.values if thread is not None else None) or {}
        command = DeleteRun(
            thread_id,
            run_id,
            known=True,
            view=difference(before, left.values or {}),
            next=left.next,
            interrupts=left.interrupts,
            error=_error("interrupt", "DELETE /threads/{thread_id}/runs/{run_id}"),
            version=found.version,
        )
        return command.decide(found.state)

    done = await call.submit("DeleteRun", thread_id, decide, serial=True)
    match done:
        case Submitted():
            return no_content(call.token(done))
        case Voided(void=Void(reason="view_locked", found=other)):
            raise Problem(409, f"Thread {thread_id} has in-flight runs: [{other}]", reason="thread_busy")
        case _:
            raise Problem(404, "Run not found")


def on_client_gone(call: Call, thread_id: ThreadId, run_id: RunId) -> Callable[[], Awaitable[None]]:
    """Return what cancels a run whose client went away and had asked for that."""

    async def cancel_it() -> None:
        by = f"disconnect of {call.request.method} {call.route}"
        intent = Intent(
            Key(thread_id),
            follow_up(call.identity.event_id, 1),
            call.body_sha256,
            replace(call.cause, causation_id=call.identity.event_id),
            keyed=True,
            serial=True,
        )
        services = call.services
        deadline = services.clock.monotonic() + services.limits.deadline_s  # the request's own is long over
        try:
            done = await services.submitter.submit(
                intent, Cancellation(call, thread_id, run_id, "interrupt", by).decide, deadline
            )
        except AgentlogError as error:
            log.error("disconnect.not_cancelled", extra={"run_id": run_id, "error": str(error)})
            return
        log.info("disconnect.cancelled", extra={"run_id": run_id, "outcome": type(done).__name__})

    return cancel_it
