"""What the routes work with: ports and queries, wired once in the composition root."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from agentlog_commands.submit import Submitter
from agentlog_facts.graph_access import GraphAccess
from agentlog_facts.ports import Clock, EventLog, Ids
from agentlog_gateway.consistency import Folded
from agentlog_gateway.presence import Presence
from agentlog_gateway.refusals import Refusals
from agentlog_gateway.streams import RunStreams
from agentlog_projections.assistants import Assistants
from agentlog_projections.decisions import Decisions
from agentlog_projections.health import ProjectionHealth
from agentlog_projections.runs import Runs
from agentlog_projections.threads import Threads

Check: TypeAlias = Callable[[], Awaitable[object]]
"""Asks a dependency for any answer. Raises: AgentlogError."""
HealthQuery: TypeAlias = Callable[[], Awaitable[ProjectionHealth]]
"""Asks how the projection is. Raises: Unavailable."""


class RunWaits(Protocol):
    """How a blocking call learns that a run may have ended."""

    def run_ended(self, run_id: str) -> AbstractContextManager[asyncio.Event]:
        """Give an event that is set when a hint says that the run ended; read the row after entering."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a request: sizes in bytes, times in seconds."""

    body_bytes: int
    deadline_s: float
    read_wait_s: float
    cancel_grace_s: float


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a route may use. `prepared` is set once every loaded graph has its assistant.

    `checks`: how each dependency is asked whether it is there.
    """

    clock: Clock
    ids: Ids
    log: EventLog
    submitter: Submitter
    refusals: Refusals
    presence: Presence
    folded: Folded
    waits: RunWaits
    streams: RunStreams
    graphs: GraphAccess
    decisions: Decisions
    threads: Threads
    runs: Runs
    assistants: Assistants
    limits: Limits
    checks: Mapping[str, Check]
    health: HealthQuery
    prepared: asyncio.Event
