"""Endpoints for several runs at once: a batch of new runs, and the cancel of many.

Source: docs/http-api.md, sections 7.4 and 9.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from uuid import UUID, uuid5

from starlette.responses import Response

from agentlog_commands.submit import Intent, Submitted
from agentlog_facts.ids import Key, RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.thread import CancelAction
from agentlog_gateway.api.request_context import Attempted, RequestContext
from agentlog_gateway.http.errors import Problem
from agentlog_gateway.http.responses import json_response, no_content
from agentlog_gateway.resources.cancel import NO_RUNS, Cancellation, requested
from agentlog_gateway.resources.each import each
from agentlog_gateway.resources.run_creation import NewRun, RunCreation
from agentlog_gateway.schemas.queries import ActionQuery
from agentlog_gateway.schemas.responses import new_run_json
from agentlog_gateway.schemas.run_requests import MOST_RUNS, RunBatch, RunsCancel


async def create(context: RequestContext) -> Response:
    """POST /runs/batch: all runs are checked before the first is written; each gets a thread of its own.

    A retry with the same Idempotency-Key creates the runs that are missing, and answers with all.
    """
    bodies = (await context.body(RunBatch)).root
    creations = [RunCreation(context.of_item(item), body, None) for item, body in enumerate(bodies)]
    await each(creations, RunCreation.check)
    made: list[NewRun] = await each(creations, RunCreation.create)
    keys = context.dependencies.secrets.keys
    shown: list[Json] = [new_run_json(new.done, new.run, keys) for new in made]
    return json_response(shown, context.token(made[-1].done))


async def cancel(context: RequestContext) -> Response:
    """POST /runs/cancel: the active runs with a status, or the named runs of a thread."""
    action = context.query(ActionQuery).action
    body = await context.body(RunsCancel)
    if body.status is not None:
        done = await _cancel_all(context, body.status, action)
    else:
        thread_id = ThreadId(str(body.thread_id))
        await context.dependencies.caught_up.require(thread_id)
        target: JsonObject = {"thread_id": thread_id, "run_ids": [*(body.run_ids or ())]}
        context.attempted = Attempted(Key(thread_id), "CancelRun", target, "run_not_found")
        done = await _canceleach(context, [(thread_id, RunId(run_id)) for run_id in body.run_ids or ()], action)
    if not done:
        raise Problem(404, NO_RUNS, reason="run_not_found")
    context.attempted = None
    return no_content(context.token(done[-1]))


async def _cancel_all(context: RequestContext, status: str, action: CancelAction) -> list[Submitted]:
    """Cancel all runs with this status that were created before the request."""
    await context.dependencies.caught_up.require_all()
    done: list[Submitted] = []
    since, after = context.dependencies.clock.now(), None
    while page := await context.dependencies.runs.active(status, since, after, MOST_RUNS):
        done += await _canceleach(context, [(run.thread_id, run.run_id) for run in page], action)
        after = page[-1]
    return done


async def _canceleach(
    context: RequestContext, runs: Sequence[tuple[ThreadId, RunId]], action: CancelAction
) -> list[Submitted]:
    """Cancel runs, those of one thread one after the other; return the accepted cancels."""

    async def of_thread(group: Sequence[tuple[ThreadId, RunId]]) -> list[Submitted]:
        found = [await _cancel_one(context, thread_id, run_id, action) for thread_id, run_id in group]
        return [one for one in found if one is not None]

    threads = [list(group) for _, group in groupby(dict.fromkeys(runs), key=lambda run: run[0])]
    return [done for group in await each(threads, of_thread) for done in group]


async def _cancel_one(
    context: RequestContext, thread_id: ThreadId, run_id: RunId, action: CancelAction
) -> Submitted | None:
    event_id = str(uuid5(UUID(context.identity.event_id), run_id))
    cause = replace(context.cause, causation_id=context.identity.event_id)
    intent = Intent(Key(thread_id), event_id, context.body_sha256, cause, context.identity.keyed, serial=True)
    cancellation = Cancellation(context, thread_id, run_id, action, requested(action, context.route_name))
    done = await context.dependencies.submitter.submit(intent, cancellation.decide, context.deadline)
    if not isinstance(done, Submitted):
        return None
    context.dependencies.announcer.ends(thread_id, done, event_id)
    return done
