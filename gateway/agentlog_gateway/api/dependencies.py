"""Dependencies of the endpoints: ports and queries, wired once in the composition root."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from agentlog_commands.metadata_limit import DEFAULT, MetadataLimit
from agentlog_commands.submit import Submitter
from agentlog_commands.thread_copies import CopyReads
from agentlog_facts.graph_ports import GraphAccess, GraphStructures
from agentlog_facts.json_value import JsonObject
from agentlog_facts.keyed_digest import Salts
from agentlog_facts.ports import Clock, EventLog, Ids, LedgerReads
from agentlog_facts.secret_values import Secrets
from agentlog_facts.store_ports import StoreRows
from agentlog_gateway.api.refusal_log import Refusals
from agentlog_gateway.http.request_metrics import RequestMetrics
from agentlog_gateway.reads.caught_up import CatchUpGate
from agentlog_gateway.reads.consistency_token import ProjectionProgress
from agentlog_gateway.reads.remembered_answers import RememberedAnswers
from agentlog_gateway.streaming.run_streams import RunStreams
from agentlog_gateway.streaming.run_watcher import RunWatcher
from agentlog_gateway.streaming.sse import Framer
from agentlog_gateway.streaming.threads.announcer import OutputsAnnouncer
from agentlog_gateway.streaming.threads.thread_streams import ThreadStreams
from agentlog_projections.models.assistants import Assistants
from agentlog_projections.models.crons.model import Crons
from agentlog_projections.models.runs import Runs
from agentlog_projections.models.threads import Threads
from agentlog_projections.queries.command_context import CommandContexts
from agentlog_projections.queries.health import ProjectionHealth
from agentlog_projections.queries.run_health import QueueFigures, RunHealth
from agentlog_projections.queries.state_version import StateVersions
from agentlog_projections.queries.thread_storage import StoredCheckpoints

Check: TypeAlias = Callable[[], Awaitable[object]]
"""Checks that a dependency answers. Raises: AgentlogError."""
HealthQuery: TypeAlias = Callable[[], Awaitable[ProjectionHealth]]
"""Reads the health of the projection. Raises: Unavailable."""
RunHealthQuery = Callable[[], Awaitable[RunHealth]]
"""Reads which runs wait for more than their turn. Raises: Unavailable."""
QueueQuery = Callable[[], Awaitable[tuple[QueueFigures, Mapping[str, QueueFigures]]]]
"""Reads the figures of all runs that have not ended, and those of each graph. Raises: Unavailable."""
AnnouncedJobs = Callable[[], Awaitable[int]]
"""Returns how many runs all workers may execute at once, as far as it is known. Raises: Unavailable."""
WorkerDeaths = Callable[[], Awaitable[int]]
"""Returns the number of workers that died in the last ten minutes, as far as it is known. Raises: Unavailable."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a request: sizes in bytes, times in seconds."""

    body_bytes: int
    deadline_s: float
    cancel_grace_s: float
    metadata: MetadataLimit = DEFAULT


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Ports and queries of the endpoints.

    `prepared` is set once every loaded graph has its assistant. `checks` has a health check for each dependency.
    `server_metadata` names this server in the metadata of runs, `provenance` the code of a graph. `default_ttl` is that
    of new threads, as in `ThreadCreated`.
    """

    clock: Clock
    ids: Ids
    log: EventLog
    ledger: LedgerReads
    submitter: Submitter
    refusals: Refusals
    caught_up: CatchUpGate
    progress: ProjectionProgress
    run_watcher: RunWatcher
    streams: RunStreams
    thread_streams: ThreadStreams
    announcer: OutputsAnnouncer
    framer: Framer
    graphs: GraphAccess
    structures: GraphStructures
    secrets: Secrets
    salts: Salts
    server_metadata: JsonObject
    provenance: Callable[[str], JsonObject]
    contexts: CommandContexts
    threads: Threads
    stored_checkpoints: StoredCheckpoints
    copies: CopyReads
    state_versions: StateVersions
    answers: RememberedAnswers
    runs: Runs
    assistants: Assistants
    crons: Crons
    store: StoreRows
    limits: Limits
    checks: Mapping[str, Check]
    health: HealthQuery
    run_health: RunHealthQuery
    worker_deaths: WorkerDeaths
    queue: QueueQuery
    jobs: AnnouncedJobs
    requests: RequestMetrics
    prepared: asyncio.Event
    default_ttl: JsonObject | None = None
