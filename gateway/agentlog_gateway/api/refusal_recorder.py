"""Recorder of refused mutations of an existing or deleted aggregate; validation errors leave no fact.

Source: docs/log.md, CommandRefused.
"""

import logging

from agentlog_facts.envelope import Actor
from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_facts.keyed_digest import KeyedDigest, subject_of
from agentlog_gateway.api.refusal_log import Refusal
from agentlog_gateway.api.request_context import Attempted, RequestContext
from agentlog_gateway.http.errors import Problem

log = logging.getLogger(__name__)

REFUSALS = frozenset({400, 404, 409, 412})
"""Statuses of a mutation that the aggregate's state forbids; with 413 and 422 the request itself is invalid."""


async def note_refusal(context: RequestContext, error: Exception) -> None:
    """Record a refused request, if its aggregate exists or was deleted.

    On return the fact is durable, with two exceptions: the later refusals of a burst are only counted (`refusal_log`),
    and if log or rows do not answer, there is only a log line.
    """
    attempted, reason = context.attempted, _reason(error)
    if attempted is None or reason is None:
        return
    try:
        if await context.dependencies.ledger.knows(attempted.key):
            await context.dependencies.refusals.record(_refusal(context, attempted, reason))
    except AgentlogError as fault:  # the response stays; the log line tells operators that the fact is missing
        log.error("refusal.not_recorded", extra={"key": attempted.key, "error": str(fault)})


def _reason(error: Exception) -> str | None:
    """Return the code of a refusal, "" if the decider gave it, None for any other error."""
    match error:
        case Problem() if error.status in REFUSALS:
            return error.reason
        case AgentlogError() if error.status in REFUSALS:
            return error.code
        case _:
            return None


def _refusal(context: RequestContext, attempted: Attempted, reason: str) -> Refusal:
    found = reason or attempted.reason or "not_possible"
    cause = context.cause
    return Refusal(attempted.key, attempted.command, found, attempted.target, _digest(context, cause.actor), cause)


def _digest(context: RequestContext, actor: Actor) -> KeyedDigest | None:
    try:
        return context.dependencies.salts.digest(context.received, subject_of(actor.iss, actor.sub))
    except Unavailable as fault:  # the refusal is recorded all the same
        log.error("refusal.without_digest", extra={"error": str(fault)})
        return None
