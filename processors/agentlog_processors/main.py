"""Composition root of the roles: builds the services of one process, for one or more roles, from the settings."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import uvloop
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agentlog_commands.assistants import DeletionFollowers
from agentlog_commands.claims import ClaimLimits
from agentlog_facts.checkpoint_ports import CheckpointReads, RunVersions
from agentlog_facts.envelope import Actor, ActorKind
from agentlog_facts.errors import AgentlogError, Misconfigured
from agentlog_facts.ids import RunId
from agentlog_infra import logs
from agentlog_infra.adapters import Adapters, open_adapters, open_feed, secrets_of
from agentlog_infra.kafka import topics
from agentlog_infra.kafka.connection import connection
from agentlog_infra.kafka.event_tail import open_event_tail
from agentlog_infra.kafka.outputs.frame_log import KafkaFrameLog
from agentlog_infra.kafka.partitions import partition_of
from agentlog_infra.langgraph.checkpoints.channel_state import ChannelState
from agentlog_infra.langgraph.executor import ExecutorDependencies, LangGraphRuns
from agentlog_infra.langgraph.loading.config import load_config, served_graphs
from agentlog_infra.langgraph.loading.graphs import Graphs
from agentlog_infra.langgraph.loading.thread_ttl import ThreadTtl, thread_ttl
from agentlog_infra.langgraph.state import LangGraphAccess, StateDependencies
from agentlog_infra.process.description import describe_process
from agentlog_infra.process.exit_status import EXIT_LEFT, EXIT_MISCONFIGURED, EXIT_REPLACE
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_postgres.connection import Pool, open_pool
from agentlog_processors import timeouts
from agentlog_processors.arguments import arguments_of
from agentlog_processors.housekeeper.finish_copies import CopyQueries, FinishCopies
from agentlog_processors.housekeeper.finish_deletions import FinishDeletions
from agentlog_processors.housekeeper.finish_runs import RunFinisher
from agentlog_processors.housekeeper.fire_crons import CronRuns, FireCrons
from agentlog_processors.housekeeper.purge_rows import PurgeRows
from agentlog_processors.housekeeper.reap_runs import ReapRuns
from agentlog_processors.housekeeper.reconcile_queue import ReconcileQueue
from agentlog_processors.housekeeper.sweep_threads import SweepQueries, SweepThreads
from agentlog_processors.runs.dependencies import CommitWriter, SuspectsOnly, WorkerDependencies, WorkerTimeouts
from agentlog_processors.runs.final_state import FinalStateReader
from agentlog_processors.runs.output_offsets import CachedEndOffsets
from agentlog_processors.runs.retrying_reads import RetryingReads
from agentlog_processors.runtime.garbage_collection import FOLD_THRESHOLDS, WORKER_THRESHOLDS, collect_rarely
from agentlog_processors.runtime.gil_watchdog import GilWatchdog
from agentlog_processors.runtime.loop_bridge import (
    BridgedCheckpointReads,
    BridgedEventLog,
    BridgedRunVersions,
    LoopBridge,
)
from agentlog_processors.runtime.service import Endless, Service, supervise
from agentlog_processors.runtime.user_loops import JobLoops
from agentlog_processors.worker.announce_jobs import AnnounceJobs
from agentlog_processors.worker.attempt import Attempt, Stuck
from agentlog_processors.worker.execute_runs import ExecuteRuns
from agentlog_processors.worker.store import RunStore, RunStoreReads
from agentlog_processors.worker.watch_claims import WatchClaims
from agentlog_projections.models.assistants import Assistants
from agentlog_projections.models.checkpoints import Checkpoints
from agentlog_projections.models.crons.model import Crons
from agentlog_projections.models.registry import read_models
from agentlog_projections.models.store import StoreItems
from agentlog_projections.projector.announcer import Announcer
from agentlog_projections.projector.ledger import Ledger
from agentlog_projections.projector.projector import Projector
from agentlog_projections.projector.session import FoldPorts, FoldSettings
from agentlog_projections.queries.postgres_command_context import PostgresCommandContexts
from agentlog_projections.queries.postgres_worker import PostgresWorkerQueries
from agentlog_projections.queries.purge import expired_threads, purge_deleted
from agentlog_projections.queries.thread_copying import ThreadCopying
from agentlog_projections.queries.thread_storage import StoredCheckpoints
from agentlog_projections.sql.caught_up import open_rows

log = logging.getLogger(__name__)

EXECUTING = frozenset({"worker", "spare"})


@dataclass(frozen=True, slots=True)
class RoleAdapters:
    """The adapters of worker and housekeeper, connected."""

    settings: Settings
    timeouts: WorkerTimeouts
    bridge: LoopBridge
    pool: Pool
    shared: Adapters
    outputs: KafkaFrameLog

    def writer(self, kind: ActorKind, name: str) -> CommitWriter:
        """Return a writer for an actor of this kind."""
        return CommitWriter(self.shared.submitter, self.shared.log, SystemClock(), SystemIds(), Actor(kind, name))


def main(words: Sequence[str]) -> None:
    """Run roles until SIGTERM or SIGINT. Exit status 0: stopped; else see `exit_status`."""
    found = arguments_of(words)
    roles, ready_fd = found.roles, found.ready_fd
    try:
        settings = joined(Settings.load())
        logs.configure(settings.log_level, as_json=settings.log_json)
        left = uvloop.run(_serve(settings, roles, ready_fd, leaves=found.leave_when_idle))
        status = EXIT_LEFT if left else 0
    except Misconfigured as error:
        status = _refused(error, ready_fd)
    except AgentlogError as error:
        log.error("role.failed", extra={"roles": ",".join(roles), "error": str(error)})
        status = EXIT_REPLACE if isinstance(error, Stuck) else 1
    except Exception:  # a bug, ours or a library's: the process must end in this case too
        log.exception("role.failed", extra={"roles": ",".join(roles)})
        status = 1
    logging.shutdown()
    os._exit(status)  # not sys.exit: a thread that user code blocks would keep the process alive


def _refused(error: Misconfigured, ready_fd: int | None) -> int:
    sys.stderr.write(f"error: {error}\n")
    _report(ready_fd, {"error": str(error)})
    return EXIT_MISCONFIGURED


def _report(ready_fd: int | None, line: Mapping[str, object]) -> None:
    if ready_fd is not None:
        with os.fdopen(ready_fd, "w") as pipe:
            pipe.write(json.dumps(line) + "\n")


async def _serve(settings: Settings, roles: Sequence[str], ready_fd: int | None, *, leaves: bool) -> bool:
    """Run roles until a signal, or until a spare worker leaves; return whether it left."""
    stop, left = asyncio.Event(), asyncio.Event()

    def leave() -> None:
        left.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await topics.check(settings)
    async with AsyncExitStack() as stack:
        services: list[Service] = []
        if "worker" in roles:
            services += _worker(await _adapters(stack, settings), stack)
        if "spare" in roles:
            spare = SuspectsOnly(leave if leaves else None)
            services += _worker(await _adapters(stack, settings), stack, spare)
        if not EXECUTING.isdisjoint(roles):
            collect_rarely(WORKER_THRESHOLDS)
        if "housekeeper" in roles:
            services += _housekeeper(await _adapters(stack, settings), stack)
        if "projector" in roles:
            services += await _projector(stack, settings)
        if "housekeeper" in roles or not EXECUTING.isdisjoint(
            roles
        ):  # both run user code; the housekeeper does to end a run
            services.append(GilWatchdog(_timeouts(settings).stubborn))
        _report(ready_fd, {"role": ",".join(roles), "pid": os.getpid()})
        log.info("role.started", extra={"roles": ",".join(roles)})
        patience = timeouts.SERVICE_STOP
        if not EXECUTING.isdisjoint(roles):
            patience += timedelta(seconds=settings.shutdown_grace_secs + timeouts.GIVE_BACK_S)
        await supervise(services, stop, patience)
    return left.is_set()


def _timeouts(settings: Settings) -> WorkerTimeouts:
    def seconds(length: float) -> timedelta:
        return timedelta(seconds=length)

    limits = ClaimLimits(
        seconds(settings.lost_after_secs),
        seconds(settings.run_timeout_secs),
        settings.run_max_retries,
        seconds(settings.cancel_grace_secs),
    )
    return WorkerTimeouts(
        jobs=settings.jobs_per_worker,
        lease_ttl=seconds(settings.lease_ttl_secs),
        lease_renew=seconds(settings.lease_renew_secs),
        look=seconds(settings.look_secs),
        reconcile=seconds(settings.reconcile_secs),
        grace=seconds(settings.shutdown_grace_secs),
        limits=limits,
        stubborn=seconds(settings.stuck_secs),
        suspects_after=seconds(settings.suspects_after_secs or settings.lease_ttl_secs),
    )


async def _projector(stack: AsyncExitStack, settings: Settings) -> list[Service]:
    """Return the projector and its announcer. Raises: Unavailable."""
    collect_rarely(FOLD_THRESHOLDS)
    pool = await open_pool(settings.database_uri or "", 2)  # of the index of blobs, which the fold needs
    stack.push_async_callback(pool.close)
    feed = await open_feed(settings, stack)
    tail = await open_event_tail(settings, pool, "agentlog-projector", stack)
    announcer = Announcer(feed, feed)
    ports = FoldPorts(tail, lambda key: partition_of(key.encode(), settings.partitions), SystemClock(), announcer)
    cache_bytes = settings.projector_cache_bytes
    fold = FoldSettings(settings.database_uri or "", owner=SystemIds().uuid7(), cache_bytes=cache_bytes)
    projector = Projector(fold, ports, *read_models(cache_bytes))
    return [Endless("projector", projector.run), Endless("announcer", announcer.run)]


async def _adapters(stack: AsyncExitStack, settings: Settings) -> RoleAdapters:
    """Connect to log, rows and queue; `stack` closes the connections. Raises: Unavailable, Misconfigured."""
    pool = await open_rows(settings.database_uri or "", settings.postgres_pool_max_size)
    stack.push_async_callback(pool.close)
    shared = await open_adapters(settings, "agentlog-duties", pool, Ledger(pool), stack)
    headers = await shared.log.headers()
    outputs = KafkaFrameLog(connection(settings), settings.partitions, lambda partition: headers[partition].base)
    await outputs.start()
    stack.push_async_callback(outputs.stop)
    bridge = LoopBridge(asyncio.get_running_loop())
    return RoleAdapters(settings, _timeouts(settings), bridge, pool, shared, outputs)


def _worker(adapters: RoleAdapters, stack: AsyncExitStack, spare: SuspectsOnly | None = None) -> list[Service]:
    """Load the graphs and return the services of a worker; with `spare`, of a spare worker.

    Raises: Misconfigured for a graph that cannot be loaded.
    """
    settings, bridge = adapters.settings, adapters.bridge
    graphs = Graphs.load(load_config(settings.config))
    loops = JobLoops(bridge.home, uvloop.new_event_loop, isolated=settings.isolated_loops)
    stack.callback(loops.close)
    retrying = RetryingReads(Checkpoints(adapters.pool), SystemClock())
    worker = settings.worker_id or SystemIds().uuid7()
    writer = adapters.writer("worker", worker)
    queries = PostgresWorkerQueries(adapters.pool)
    store = RunStore(bridge, StoreItems(adapters.pool), writer)
    executor = _execution(adapters, graphs, retrying, queries, store)
    provenance = {graph_id: graphs.provenance(graph_id) for graph_id in graphs.ids()}
    dependencies = WorkerDependencies(
        worker=worker,
        writer=writer,
        queries=queries,
        queue=adapters.shared.feed,
        outputs=adapters.outputs,
        ends=CachedEndOffsets(adapters.outputs, adapters.shared.log.partition_of, SystemClock()),
        execution=LangGraphRuns(executor),
        graph_ids=graphs.ids(),
        final_state=_final_state(adapters, loops, retrying, lambda: graphs),
        provenance=provenance.__getitem__,
        hints=adapters.shared.verdicts,
        loops=loops,
        bridge=bridge,
        timeouts=adapters.timeouts,
        spare=spare,
        process=describe_process("worker" if spare is None else "spare"),
    )
    active: dict[RunId, Attempt] = {}
    announcing = AnnounceJobs(adapters.shared.feed.announce_jobs, worker, adapters.timeouts)
    services: list[Service] = [ExecuteRuns(dependencies, active), WatchClaims(dependencies, active)]
    return services if spare else [*services, announcing]


def _execution(
    adapters: RoleAdapters, graphs: Graphs, reads: CheckpointReads, versions: RunVersions, store: RunStore
) -> ExecutorDependencies:
    """Return what the execution of graphs needs, for the loops of user code."""
    settings, bridge = adapters.settings, adapters.bridge
    return ExecutorDependencies(
        graphs,
        BridgedCheckpointReads(bridge, reads),
        store,
        BridgedEventLog(bridge, adapters.shared.log),
        SystemClock(),
        SystemIds(),
        _serializer(settings),
        f"http://{settings.host}:{settings.port}",
        secrets=secrets_of(settings),
        versions=BridgedRunVersions(bridge, versions),
        overlay_bytes=settings.checkpoint_memory_bytes // settings.jobs_per_worker,
    )


def _housekeeper(adapters: RoleAdapters, stack: AsyncExitStack) -> list[Service]:
    """Return the services of a housekeeper; graphs are loaded only when a run must be ended for its worker."""
    loops = JobLoops(adapters.bridge.home, uvloop.new_event_loop)
    stack.callback(loops.close)
    queries, feed = PostgresWorkerQueries(adapters.pool), adapters.shared.feed
    final_state = _final_state(adapters, loops, Checkpoints(adapters.pool), LazyGraphs(adapters.settings))
    finisher = RunFinisher(adapters.writer("system", "housekeeper"), queries, adapters.outputs, final_state)
    return [
        ReapRuns(finisher, feed, feed, adapters.timeouts, partial(served_graphs, adapters.settings.config)),
        ReconcileQueue(queries, feed, adapters.timeouts),
        PurgeRows(
            partial(purge_deleted, adapters.pool), timedelta(milliseconds=adapters.settings.outputs_retention_ms)
        ),
        _sweep(adapters),
        _copies(adapters),
        _finish_deletions(adapters),
        _fire_crons(adapters),
    ]


def _ttl(adapters: RoleAdapters) -> ThreadTtl:
    """Return the TTL of threads as `langgraph.json` states it, if it can be read."""
    try:
        return thread_ttl(load_config(adapters.settings.config))
    except Misconfigured as error:  # threads have a TTL of their own, whatever the file says
        log.warning("sweep.default_interval", extra={"error": str(error)})
        return ThreadTtl()


def _sweep(adapters: RoleAdapters) -> SweepThreads:
    """Return the sweep of expired threads, as often as `langgraph.json` says."""
    ttl = _ttl(adapters)
    pool = adapters.pool
    queries = SweepQueries(
        partial(expired_threads, pool), PostgresCommandContexts(pool), StoredCheckpoints(pool).earlier
    )
    return SweepThreads(queries, adapters.writer("system", "housekeeper"), ttl.sweep_interval, ttl.sweep_limit)


def _fire_crons(adapters: RoleAdapters) -> FireCrons:
    pool = adapters.pool
    runs = CronRuns(
        Crons(pool),
        PostgresCommandContexts(pool),
        secrets_of(adapters.settings),
        adapters.timeouts.limits.cancel_grace,
        _ttl(adapters).default,
    )
    return FireCrons(runs, adapters.writer("system", "housekeeper"))


def _finish_deletions(adapters: RoleAdapters) -> FinishDeletions:
    shared = adapters.shared
    followers = DeletionFollowers(
        shared.submitter,
        PostgresCommandContexts(adapters.pool),
        shared.log.partition_of,
        SystemClock(),
        adapters.timeouts.limits.cancel_grace,
    )
    writer = adapters.writer("system", "housekeeper")
    return FinishDeletions(Assistants(adapters.pool).open_deletions, followers, writer)


def _copies(adapters: RoleAdapters) -> FinishCopies:
    copying = ThreadCopying(adapters.pool)
    queries = CopyQueries(copying.open_copies, copying, Ledger(adapters.pool))
    return FinishCopies(queries, adapters.writer("system", "housekeeper"))


def _serializer(settings: Settings) -> JsonPlusSerializer:
    return JsonPlusSerializer(pickle_fallback=settings.pickle_fallback)


def _final_state(
    adapters: RoleAdapters, loops: JobLoops, reads: CheckpointReads, graphs: Callable[[], Graphs]
) -> FinalStateReader:
    """Return the reader of final states; it calls `graphs` on the loop that runs their code."""
    store = RunStoreReads(adapters.bridge, StoreItems(adapters.pool), SystemClock())
    serde = _serializer(adapters.settings)

    def of_graph(reads: CheckpointReads) -> LangGraphAccess:
        bridge = BridgedCheckpointReads(adapters.bridge, reads)
        return LangGraphAccess(StateDependencies(graphs(), bridge, store, SystemIds(), serde))

    def plain(reads: CheckpointReads) -> ChannelState:
        return ChannelState(BridgedCheckpointReads(adapters.bridge, reads), serde)

    return FinalStateReader(loops, reads, SystemClock(), of_graph, plain)


class LazyGraphs:
    """Graphs that are loaded at the first call, for a process that seldom needs them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._graphs: Graphs | None = None

    def __call__(self) -> Graphs:
        """Return the graphs. Raises: Misconfigured."""
        if self._graphs is None:
            self._graphs = Graphs.load(load_config(self._settings.config))
        return self._graphs
