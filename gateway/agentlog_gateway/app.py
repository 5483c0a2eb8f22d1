"""Composition root of the gateway: makes the application and its background services from settings and adapters.

`_dependencies` is longer than 40 lines, because it names every dependency of the endpoints once.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from socket import gethostname

from fastapi import FastAPI
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agentlog_commands.metadata_limit import MetadataLimit
from agentlog_facts.json_value import JsonObject
from agentlog_gateway.api.accepted_settings import record_accepted_settings
from agentlog_gateway.api.dependencies import Dependencies, Limits
from agentlog_gateway.api.refusal_log import Refusals
from agentlog_gateway.application import build_app
from agentlog_gateway.assistants.system_assistants import ensure_system_assistants
from agentlog_gateway.http.connection import BoundedConnection, ConnectionLimits
from agentlog_gateway.http.cors import cors_of
from agentlog_gateway.http.descriptors import DescriptorGate, raise_descriptor_limit
from agentlog_gateway.http.request_metrics import RequestMetrics
from agentlog_gateway.metrics.exposition import process_registry
from agentlog_gateway.reads.caught_up import CatchUpGate
from agentlog_gateway.reads.consistency_token import ProjectionProgress
from agentlog_gateway.reads.remembered_answers import RememberedAnswers
from agentlog_gateway.streaming.run_streams import RunStreams
from agentlog_gateway.streaming.run_watcher import RunWatcher
from agentlog_gateway.streaming.sse import Framer
from agentlog_gateway.streaming.threads.announcer import OutputsAnnouncer
from agentlog_gateway.streaming.threads.thread_streams import ThreadStreams
from agentlog_infra import logs
from agentlog_infra.adapters import Adapters, open_adapters, salts_of, secrets_of
from agentlog_infra.kafka import topics
from agentlog_infra.kafka.connection import connection
from agentlog_infra.kafka.outputs.frame_log import KafkaFrameLog, KafkaFrameReads
from agentlog_infra.langgraph.loading.config import load_config
from agentlog_infra.langgraph.loading.graphs import Graphs
from agentlog_infra.langgraph.loading.thread_ttl import thread_ttl
from agentlog_infra.langgraph.request_graphs import RequestGraphs
from agentlog_infra.langgraph.run_config import server_metadata
from agentlog_infra.langgraph.state import StateDependencies
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_postgres.connection import Pool
from agentlog_projections.models.assistants import Assistants
from agentlog_projections.models.checkpoints import Checkpoints
from agentlog_projections.models.crons.model import Crons
from agentlog_projections.models.runs import Runs
from agentlog_projections.models.store import StoreItems
from agentlog_projections.models.threads import Threads
from agentlog_projections.projector.ledger import Ledger
from agentlog_projections.queries.health import health
from agentlog_projections.queries.postgres_command_context import PostgresCommandContexts
from agentlog_projections.queries.run_health import queue_figures, run_health
from agentlog_projections.queries.run_status import RunStatusRows
from agentlog_projections.queries.state_version import PostgresStateVersions
from agentlog_projections.queries.thread_copying import ThreadCopying
from agentlog_projections.queries.thread_places import PostgresThreadPlaces
from agentlog_projections.queries.thread_storage import StoredCheckpoints
from agentlog_projections.sql.caught_up import PartitionCatchUp, open_rows

log = logging.getLogger(__name__)

NAME = "agentlog-gateway"


class Gateway:
    """A wired gateway. `run()` runs the background services; `ready` is set once it can serve all requests."""

    def __init__(self, dependencies: Dependencies, app: FastAPI, accepted: Sequence[str] = ()) -> None:
        """`accepted`: settings of topics that Kafka does not show, as `KafkaSettingsAccepted` holds them."""
        self.dependencies = dependencies
        self._accepted = accepted
        self.app = app
        self.ready = dependencies.prepared

    async def run(self) -> None:
        """Run the background services until cancelled; the first failure ends all of them."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.dependencies.run_watcher.run(), name="run watcher")
            tasks.create_task(self.dependencies.refusals.run(), name="refusals")
            tasks.create_task(self.dependencies.announcer.run(), name="announcer")
            tasks.create_task(self._prepare(), name="assistants")
            tasks.create_task(
                record_accepted_settings(self.dependencies, self._accepted, gethostname()), name="accepted settings"
            )

    async def _prepare(self) -> None:
        await ensure_system_assistants(self.dependencies)
        self.ready.set()


def load_settings() -> Settings:
    """Read the settings and configure logging. Raises: Misconfigured, Unavailable."""
    settings = joined(Settings.load())
    logs.configure(settings.log_level, as_json=settings.log_json)
    return settings


def connections(settings: Settings) -> Callable[..., BoundedConnection]:
    """Return the factory of connections, with a raised limit of descriptors."""
    limits = ConnectionLimits(
        settings.http_head_bytes,
        settings.http_head_secs,
        settings.http_body_secs,
        settings.http_body_bytes_per_sec,
    )
    return partial(BoundedConnection, limits=limits, gate=DescriptorGate(raise_descriptor_limit()))


@asynccontextmanager
async def open_gateway(settings: Settings) -> AsyncGenerator[Gateway]:
    """Connect everything and yield the gateway; close everything afterwards. Raises: Unavailable, Misconfigured."""
    config = load_config(settings.config)
    cors = cors_of(config.document, settings.cors_allow_origins)
    graphs = Graphs.load(config)
    default_ttl = thread_ttl(config).default
    accepted = await topics.check(settings)
    async with AsyncExitStack() as stack:
        pool = await open_rows(settings.database_uri or "", settings.postgres_pool_max_size)
        stack.push_async_callback(pool.close)
        ledger = Ledger(pool)
        adapters = await open_adapters(settings, NAME, pool, ledger, stack)
        headers = await adapters.log.headers()
        frames = KafkaFrameReads(connection(settings), settings.partitions, lambda partition: headers[partition].base)
        stack.push_async_callback(frames.stop)
        outputs = KafkaFrameLog(connection(settings), settings.partitions, lambda partition: headers[partition].base)
        stack.push_async_callback(outputs.stop)
        await outputs.start()
        progress = ProjectionProgress(ledger, headers[0].generation, settings.partitions)
        adapters.verdicts.listen(progress.on_hint)
        serde = JsonPlusSerializer(pickle_fallback=settings.pickle_fallback)
        reads, keys = Checkpoints(pool), secrets_of(settings).keys
        access = RequestGraphs(StateDependencies(graphs, reads, StoreItems(pool), SystemIds(), serde, keys))
        stack.callback(access.close)
        code = graphs.provenance
        dependencies = _dependencies(settings, adapters, pool, frames, outputs, access, progress, code)
        dependencies = replace(dependencies, default_ttl=default_ttl)
        app = build_app(lambda: dependencies, cors)
        yield Gateway(dependencies, app, [change.requirement for change in accepted])


def _dependencies(
    settings: Settings,
    adapters: Adapters,
    pool: Pool,
    frames: KafkaFrameReads,
    outputs: KafkaFrameLog,
    access: RequestGraphs,
    progress: ProjectionProgress,
    provenance: Callable[[str], JsonObject],
) -> Dependencies:
    clock, ids, run_watcher = SystemClock(), SystemIds(), _run_watcher(adapters, pool)
    streams = RunStreams(frames, run_watcher)
    caught_up = CatchUpGate(PartitionCatchUp(pool), adapters.log, clock, settings.partitions)
    return Dependencies(
        clock=clock,
        ids=ids,
        log=adapters.log,
        ledger=Ledger(pool),
        submitter=adapters.submitter,
        refusals=Refusals(adapters.log, clock, ids),
        caught_up=caught_up,
        progress=progress,
        run_watcher=run_watcher,
        streams=streams,
        thread_streams=ThreadStreams(streams.sources, PostgresThreadPlaces(pool)),
        announcer=OutputsAnnouncer(outputs),
        framer=Framer(),
        graphs=access,
        structures=access.structures,
        secrets=secrets_of(settings),
        salts=salts_of(settings),
        server_metadata=server_metadata(f"http://{settings.host}:{settings.port}"),
        provenance=provenance,
        contexts=PostgresCommandContexts(pool),
        threads=Threads(pool),
        stored_checkpoints=StoredCheckpoints(pool),
        copies=ThreadCopying(pool),
        state_versions=PostgresStateVersions(pool),
        answers=RememberedAnswers(settings.gateway_cache_bytes),
        runs=Runs(pool),
        assistants=Assistants(pool),
        crons=Crons(pool),
        store=StoreItems(pool),
        limits=_limits(settings),
        checks={"database": caught_up.refresh, "redis": adapters.feed.check, "log": adapters.log.check},
        health=partial(health, pool, adapters.log),
        run_health=partial(run_health, pool),
        worker_deaths=adapters.feed.worker_deaths,
        queue=partial(queue_figures, pool),
        jobs=adapters.feed.announced_jobs,
        requests=RequestMetrics(process_registry()),
        prepared=asyncio.Event(),
    )


def _run_watcher(adapters: Adapters, pool: Pool) -> RunWatcher:
    watcher = RunWatcher(RunStatusRows(pool))
    adapters.verdicts.listen(watcher.on_hint)
    return watcher


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.max_request_body_bytes,
        settings.request_deadline_secs,
        settings.cancel_grace_secs,
        MetadataLimit(settings.metadata_max_bytes, settings.metadata_max_values),
    )
