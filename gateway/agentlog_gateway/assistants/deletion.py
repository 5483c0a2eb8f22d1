"""Deletion of an assistant, with its runs and, on request, its threads. Source: docs/http-api.md, section 4.7."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from starlette.responses import Response

from agentlog_commands.assistants import DeleteAssistant, DeletionFollowers
from agentlog_commands.command import Decision, Refused
from agentlog_commands.submit import Submitted
from agentlog_facts.assistant import AssistantDeletionAsked
from agentlog_facts.errors import OutcomeUnknown, Unavailable
from agentlog_facts.ids import AssistantId, RunId, ThreadId
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.assistants.assistant_context import assistant_context, check_tag
from agentlog_gateway.http.errors import Problem
from agentlog_gateway.http.responses import no_content
from agentlog_gateway.schemas.assistant_requests import AssistantDeleteQuery


async def delete(context: RequestContext) -> Response:
    """DELETE /assistants/{assistant_id}: answered once everything that belongs to it is gone.

    A second request joins a deletion that is not done, whatever that one deletes.
    """
    assistant_id = AssistantId(context.path_id("assistant"))
    query = context.query(AssistantDeleteQuery)
    await context.raw_body()

    async def decide() -> Decision:
        found = await assistant_context(context, assistant_id)
        check_tag(context, found)
        if found.state.current is None or found.state.asked is not None:
            return DeleteAssistant(assistant_id).decide(found.state, found.version)
        threads, runs = await _followers(context, assistant_id, with_threads=query.delete_threads)
        return DeleteAssistant(assistant_id, tuple(threads), runs).decide(found.state, found.version)

    done = await context.submit("DeleteAssistant", assistant_id, decide, serial=True)
    match done:
        case Submitted(facts=(AssistantDeletionAsked() as asked, *_), duplicate=False):
            return await _follow(context, context.identity.event_id, asked)
        case Submitted(facts=(AssistantDeletionAsked(), *_)):  # a retry: of the first try, something may be left
            return await _join(context, assistant_id) or no_content(context.token(done))
        case Submitted():
            return no_content(context.token(done))
        case Refused(reason="assistant_deleting"):
            joined = await _join(context, assistant_id)
            if joined is not None:
                return joined
            raise _not_found(assistant_id)
        case _:
            raise _not_found(assistant_id)


def _not_found(assistant_id: AssistantId) -> Problem:
    return Problem(404, f"Assistant with ID {assistant_id} not found", reason="assistant_not_found")


async def _followers(
    context: RequestContext, assistant_id: AssistantId, *, with_threads: bool
) -> tuple[Sequence[ThreadId], Mapping[RunId, ThreadId]]:
    """Return the threads to delete, and the active runs on other threads. Raises: Unavailable."""
    dependencies = context.dependencies
    await dependencies.caught_up.require_all()
    threads: Sequence[ThreadId] = await dependencies.assistants.threads_of(assistant_id) if with_threads else ()
    active, gone = await dependencies.assistants.active_runs_of(assistant_id), frozenset(threads)
    return threads, {run_id: thread_id for run_id, thread_id in active.items() if thread_id not in gone}


async def _join(context: RequestContext, assistant_id: AssistantId) -> Response | None:
    """Do what is left of an open deletion; return None if there is none. Raises: OutcomeUnknown."""
    row = (await assistant_context(context, assistant_id)).row
    asked = None if row is None else row.state.asked
    if row is None or row.deletion is None or asked is None:
        return None
    return await _follow(context, str(row.deletion["event_id"]), asked)


async def _follow(context: RequestContext, event_id: str, asked: AssistantDeletionAsked) -> Response:
    """Do all that follows the acceptance. Raises: OutcomeUnknown; then the housekeeper does the rest."""
    dependencies = context.dependencies
    followers = DeletionFollowers(
        dependencies.submitter,
        dependencies.contexts,
        dependencies.log.partition_of,
        dependencies.clock,
        timedelta(seconds=dependencies.limits.cancel_grace_s),
    )
    try:
        done = await followers.follow(event_id, asked, context.cause, context.deadline)
    except Unavailable as error:
        detail = f"assistant {asked.assistant_id}: its deletion is accepted, but not done: {error}"
        raise OutcomeUnknown(detail) from error
    return no_content(context.token(done) if isinstance(done, Submitted) else {})
