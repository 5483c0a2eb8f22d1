"""Decides which refused requests leave a fact: mutations of an aggregate that is or was there, not validation errors.

Source: docs/log.md, CommandRefused.
"""

import logging

from agentlog_facts.errors import AgentlogError
from agentlog_facts.ids import Key, ThreadId
from agentlog_gateway.call import Attempted, Call
from agentlog_gateway.errors import Problem
from agentlog_gateway.refusals import Refusal

log = logging.getLogger(__name__)

REFUSALS = frozenset({400, 404, 409})
"""Statuses with which a mutation is refused for what is there; 422 and 413 are wrong in themselves."""


async def note_refusal(call: Call, error: Exception) -> None:
    """Remember a request that ends with this error, if it is one to remember; durable when this returns."""
    attempted, reason = call.attempted, _reason(error)
    if attempted is None or reason is None:
        return
    try:
        if await _is_or_was(call, attempted.key):
            await call.services.refusals.record(_refusal(call, attempted, reason))
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


async def _is_or_was(call: Call, key: Key) -> bool:
    services = call.services
    found = await services.decisions.thread(ThreadId(key), services.log.partition_of(key))
    return found.version is not None


def _refusal(call: Call, attempted: Attempted, reason: str) -> Refusal:
    told = reason or attempted.reason or "not_possible"
    return Refusal(attempted.key, attempted.command, told, call.body_sha256, call.cause)
