"""Decides which refused requests leave a fact: mutations of an aggregate that is or was there, not validation errors.

Source: docs/log.md, CommandRefused.
"""

import logging

from agentlog_facts.errors import AgentlogError
from agentlog_facts.ids import Key, ThreadId
from agentlog_gateway.api.refusal_log import Refusal
from agentlog_gateway.api.request_context import Attempted, RequestContext
from agentlog_gateway.http.errors import Problem

log = logging.getLogger(__name__)

REFUSALS = frozenset({400, 404, 409})
"""Statuses with which a mutation is refused for what is there; 422 and 413 are wrong in themselves."""


async def note_refusal(context: RequestContext, error: Exception) -> None:
    """Remember a request that ends with this error, if it is one to remember; durable when this returns."""
    attempted, reason = context.attempted, _reason(error)
    if attempted is None or reason is None:
        return
    try:
        if await _is_or_was(context, attempted.key):
            await context.dependencies.refusals.record(_refusal(context, attempted, reason))
    except AgentlogError as fault:  # the refusal itself stands; that it could not be noted is told to operators
        log.error("refusal.not_recorded", extra={"key": attempted.key, "error": str(fault)})


def _reason(error: Exception) -> str | None:
    """Return the stable word for a refusal, "" where the decider had it, None for anything else."""
    match error:
        case Problem() if error.status in REFUSALS:
            return error.reason
        case AgentlogError() if error.status in REFUSALS:
            return error.code
        case _:
            return None


async def _is_or_was(context: RequestContext, key: Key) -> bool:
    dependencies = context.dependencies
    found = await dependencies.contexts.thread(ThreadId(key), dependencies.log.partition_of(key))
    return found.version is not None


def _refusal(context: RequestContext, attempted: Attempted, reason: str) -> Refusal:
    told = reason or attempted.reason or "not_possible"
    return Refusal(attempted.key, attempted.command, told, context.body_sha256, context.cause)
