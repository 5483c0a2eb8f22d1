"""An assistant for a change: its state with opened secrets, its entity tag, and the response after the change."""

from dataclasses import replace

from agentlog_commands.command import Accepted, Decision
from agentlog_commands.submit import Submitted
from agentlog_facts.assistant import (
    AssistantCreated,
    AssistantRevised,
    AssistantState,
    AssistantVersion,
    AssistantVersionSelected,
    number_of,
)
from agentlog_facts.envelope import Fact
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import AssistantId, Key
from agentlog_facts.json_value import JsonObject
from agentlog_facts.secret_values import SecretUnreadable
from agentlog_gateway.api.dependencies import Dependencies
from agentlog_gateway.api.request_context import RequestContext
from agentlog_gateway.http.errors import Problem
from agentlog_gateway.http.preconditions import demand_match, entity_tag
from agentlog_gateway.http.responses import time_text
from agentlog_projections.models.assistant_fold import AssistantRow
from agentlog_projections.models.assistants import Assistant
from agentlog_projections.queries.command_context import AssistantContext


async def assistant_context(context: RequestContext, assistant_id: AssistantId) -> AssistantContext:
    """Return an assistant for a decision. Raises: Unavailable, Quarantined."""
    partition = context.dependencies.log.partition_of(Key(assistant_id))
    return await context.dependencies.contexts.assistant(assistant_id, partition)


async def existing_assistant(context: RequestContext, assistant_id: AssistantId) -> Assistant:
    """Return the current version. Raises: Problem 404, Unavailable while its partition has not caught up."""
    await context.dependencies.caught_up.require(assistant_id)
    found = await context.dependencies.assistants.get(assistant_id)
    if found is None:
        await context.dependencies.caught_up.require(assistant_id, fresh=True)
        raise Problem(404, "Not Found")
    return found


def tag_of(shown: Assistant | AssistantRow) -> str:
    """Return the entity tag of an assistant: each change gives another one, also after a restore of the log."""
    return entity_tag(shown.assistant_id, str(shown.revision), time_text(shown.updated_at))


def check_tag(context: RequestContext, found: AssistantContext) -> None:
    """Check the If-Match of a request, if the assistant exists. Raises: Problem 412."""
    if found.row is not None and not found.row.deleted:
        demand_match(context.request, tag_of(found.row))


def opened(
    dependencies: Dependencies, config: JsonObject, context: JsonObject, owner: str
) -> tuple[JsonObject, JsonObject]:
    """Return config and context with their secrets. Raises: Unavailable while the key of a secret is missing."""
    try:
        return dependencies.secrets.open_settings(config, context, owner)
    except SecretUnreadable as error:
        raise Unavailable(f"assistant {owner}: {error}") from None


def opened_state(dependencies: Dependencies, found: AssistantContext) -> AssistantState:
    """Return the state with the secrets of the current version. Raises: Unavailable."""
    state = found.state
    if state.current is None:
        return state
    current = state.current
    config, context = opened(dependencies, current.config, current.context, current.assistant_id)
    return replace(state, current=replace(current, config=config, context=context))


def sealed(dependencies: Dependencies, decision: Decision) -> Decision:
    """Return the decision with sealed secrets in its facts. Raises: Unavailable."""
    if not isinstance(decision, Accepted):
        return decision
    return replace(decision, facts=tuple(_sealed(dependencies, fact) for fact in decision.facts))


def _sealed(dependencies: Dependencies, fact: Fact) -> Fact:
    if isinstance(fact, AssistantCreated | AssistantRevised):
        return dependencies.secrets.seal_assistant(fact)
    return fact


async def shown_after(context: RequestContext, done: Submitted) -> Assistant:
    """Return the assistant as it was right after a change, also for a retry that comes after later changes."""
    stated = _stated(done)
    row = None if isinstance(stated, AssistantCreated) else (await assistant_context(context, stated.assistant_id)).row
    return Assistant(
        assistant_id=stated.assistant_id,
        version=number_of(stated),
        graph_id=stated.graph_id,
        name=stated.name,
        description=stated.description,
        config=stated.config,
        context=stated.context,
        metadata=stated.metadata,
        created_at=done.occurred_at if row is None else row.created_at,
        updated_at=done.occurred_at,
        revision=done.version,
    )


def _stated(done: Submitted) -> AssistantVersion:
    match done.facts[0]:
        case AssistantCreated() | AssistantRevised() | AssistantVersionSelected() as stated:
            return stated
        case other:
            raise TypeError(f"expected a version of an assistant, found {type(other).__name__}")
