"""The composition root of all duties: settings and adapters in, services out, one process for one or more roles."""

import argparse
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

from agentlog_commands.leases import Limits
from agentlog_commands.submit import Submitter
from agentlog_facts.checkpoint_reads import CheckpointReads
from agentlog_facts.envelope import Actor, ActorKind
from agentlog_facts.errors import AgentlogError, Misconfigured
from agentlog_facts.ids import RunId
from agentlog_infra import kafka_topics, logs, redis_feed
from agentlog_infra.addresses import joined
from agentlog_infra.channel_views import ChannelViews
from agentlog_infra.graphs import Graphs
from agentlog_infra.graphs_config import load_config
from agentlog_infra.kafka_blobs import KafkaBlobs
from agentlog_infra.kafka_connection import BLOBS, EVENTS, connection
from agentlog_infra.kafka_frames import KafkaFrameLog
from agentlog_infra.kafka_log import KafkaLog
from agentlog_infra.kafka_producer import DurableProducer
from agentlog_infra.kafka_reader import KafkaReader
from agentlog_infra.kafka_tail import KafkaTail
from agentlog_infra.langgraph_runs import LangGraphRuns, RunTools
from agentlog_infra.partition_bases import partition_bases
from agentlog_infra.partitioner import partition_of
from agentlog_infra.settings import Settings
from agentlog_infra.state_access import LangGraphAccess, StateTools
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_infra.verdicts import HintVerdicts
from agentlog_processors.attempt import Attempt, Stuck
from agentlog_processors.crossing import Crossing, CrossingLog, CrossingReads
from agentlog_processors.end_in_place import Ender
from agentlog_processors.execute_runs import GIVE_BACK_S, ExecuteRuns
from agentlog_processors.job_loops import JobLoops
from agentlog_processors.keep_leases import KeepLeases
from agentlog_processors.outputs_end import RecentEnds
from agentlog_processors.patient_reads import PatientReads
from agentlog_processors.purge_rows import PurgeRows
from agentlog_processors.reap_runs import ReapRuns
from agentlog_processors.reconcile_queue import ReconcileQueue
from agentlog_processors.run_store import RunStore, RunStoreReads
from agentlog_processors.service import Endless, Service, supervise
from agentlog_processors.thread_views import LoopedViews
from agentlog_processors.tools import Timing, WorkerTools, Writing
from agentlog_processors.watch_the_lock import WatchTheLock
from agentlog_projections.announce import Announcer
from agentlog_projections.checkpoints import Checkpoints
from agentlog_projections.database import Pool, open_pool
from agentlog_projections.duties import Duties
from agentlog_projections.fold import FoldSettings, Outside
from agentlog_projections.ledger import Ledger
from agentlog_projections.purge import purge_deleted
from agentlog_projections.read_models import read_models
from agentlog_projections.runner import Projector, tune_memory
from agentlog_projections.store_items import StoreItems

log = logging.getLogger(__name__)

ROLES = ("worker", "housekeeper", "projector")
EXIT_MISCONFIGURED = 2
EXIT_REPLACE = 75
"""User code does not stop: whoever started us shall start another process in our place."""
STOP = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Plumbing:
    """The adapters that duties share."""

    settings: Settings
    timing: Timing
    crossing: Crossing
    pool: Pool
    feed: redis_feed.RedisFeed
    verdicts: HintVerdicts
    log: KafkaLog
    outputs: KafkaFrameLog
    submitter: Submitter

    def writing(self, kind: ActorKind, name: str) -> Writing:
        """Return the write side for an actor of this kind."""
        return Writing(self.submitter, self.log, SystemClock(), SystemIds(), Actor(kind, name))


def main(words: Sequence[str]) -> None:
    """Run roles until SIGTERM or SIGINT. Exit status 0: stopped in order; 2: cannot run so; 75: replace us."""
    roles, ready_fd = _arguments(words)
    try:
        settings = joined(Settings.load())
        logs.configure(settings.log_level, as_json=settings.log_json)
        uvloop.run(_serve(settings, roles, ready_fd))
        status = 0
    except Misconfigured as error:
        status = _refused(error, ready_fd)
    except AgentlogError as error:
        log.error("role.failed", extra={"roles": ",".join(roles), "error": str(error)})
        status = EXIT_REPLACE if isinstance(error, Stuck) else 1
    except Exception:  # a bug, ours or a library's: it must not keep us from ending either
        log.exception("role.failed", extra={"roles": ",".join(roles)})
        status = 1
    logging.shutdown()
    os._exit(status)  # not sys.exit: a thread that user code blocks would hold the process for ever


def _arguments(words: Sequence[str]) -> tuple[list[str], int | None]:
    parser = argparse.ArgumentParser(prog="agentlog_processors", description="Run duties of agentlog.")
    parser.add_argument("roles", metavar="ROLE[,ROLE...]", help=f"of {', '.join(ROLES)}")
    parser.add_argument("--ready-fd", type=int, help="write one line of JSON here when ready")
    found = parser.parse_args(words)
    roles = str(found.roles).split(",")
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        parser.error(f"unknown role {', '.join(unknown)}; there are {', '.join(ROLES)}")
    return roles, found.ready_fd


def _refused(error: Misconfigured, ready_fd: int | None) -> int:
    sys.stderr.write(f"error: {error}\n")
    _say(ready_fd, {"error": str(error)})
    return EXIT_MISCONFIGURED


def _say(ready_fd: int | None, line: Mapping[str, object]) -> None:
    if ready_fd is not None:
        with os.fdopen(ready_fd, "w") as pipe:
            pipe.write(json.dumps(line) + "\n")


async def _serve(settings: Settings, roles: Sequence[str], ready_fd: int | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await kafka_topics.check(settings)
    async with AsyncExitStack() as stack:
        services: list[Service] = []
        if "worker" in roles:
            services += _worker(await _plumbing(stack, settings), stack)
        if "housekeeper" in roles:
            services += _housekeeper(await _plumbing(stack, settings), stack)
        if "projector" in roles:
            services += await _projector(stack, settings)
        if "worker" in roles or "housekeeper" in roles:  # both run user code: the housekeeper to end a run in its place
            services.append(WatchTheLock(_timing(settings).stubborn))
        _say(ready_fd, {"role": ",".join(roles), "pid": os.getpid()})
        log.info("role.started", extra={"roles": ",".join(roles)})
        patience = STOP
        if "worker" in roles:
            patience += timedelta(seconds=settings.shutdown_grace_secs + GIVE_BACK_S)
        await supervise(services, stop, patience)


def _timing(settings: Settings) -> Timing:
    def seconds(length: float) -> timedelta:
        return timedelta(seconds=length)

    limits = Limits(
        seconds(settings.lost_after_secs),
        seconds(settings.run_timeout_secs),
        settings.run_max_retries,
        seconds(settings.cancel_grace_secs),
    )
    return Timing(
        jobs=settings.jobs_per_worker,
        lease_ttl=seconds(settings.lease_ttl_secs),
        lease_renew=seconds(settings.lease_renew_secs),
        look=seconds(settings.look_secs),
        reconcile=seconds(settings.reconcile_secs),
        grace=seconds(settings.shutdown_grace_secs),
        limits=limits,
        stubborn=seconds(settings.stuck_secs),
    )


async def _projector(stack: AsyncExitStack, settings: Settings) -> list[Service]:
    """Return what folds the log into rows, and what announces it. Raises: Unavailable."""
    tune_memory()
    connected = connection(settings)
    pool = await open_pool(settings.database_uri or "", 2)
    stack.push_async_callback(pool.close)
    feed = redis_feed.RedisFeed(redis_feed.connect(settings), settings.redis_key_prefix, SystemIds())
    stack.push_async_callback(feed.stop)
    producer, reader = (
        DurableProducer(connected, "agentlog-projector"),
        KafkaReader(connected, BLOBS, "agentlog-projector"),
    )
    stack.push_async_callback(reader.stop)
    tail = KafkaTail(
        connected, KafkaBlobs(producer, reader, pool, settings.partitions), settings.partitions, "agentlog-projector"
    )
    await tail.start()
    stack.push_async_callback(tail.stop)
    announcer = Announcer(feed, feed)
    outside = Outside(tail, lambda key: partition_of(key.encode(), settings.partitions), SystemClock(), announcer)
    fold = FoldSettings(settings.database_uri or "", owner=SystemIds().uuid7())
    projector = Projector(fold, outside, *read_models())
    return [Endless("projector", projector.run), Endless("announcer", announcer.run)]


async def _plumbing(stack: AsyncExitStack, settings: Settings) -> Plumbing:
    """Connect to log, rows and queue; everything is closed with `stack`. Raises: Unavailable, Misconfigured."""
    connected = connection(settings)
    pool = await open_pool(settings.database_uri or "", settings.postgres_pool_max_size)
    stack.push_async_callback(pool.close)
    ledger = Ledger(pool)
    feed = redis_feed.RedisFeed(redis_feed.connect(settings), settings.redis_key_prefix, SystemIds())
    stack.push_async_callback(feed.stop)
    verdicts = HintVerdicts(feed, ledger, SystemClock())
    await verdicts.start()
    stack.push_async_callback(verdicts.stop)
    producer = DurableProducer(connected, "agentlog-duties")
    await producer.start()
    stack.push_async_callback(producer.stop)
    blobs, events = KafkaReader(connected, BLOBS, "agentlog-duties"), KafkaReader(connected, EVENTS, "agentlog-duties")
    stack.push_async_callback(blobs.stop)
    stack.push_async_callback(events.stop)
    kafka = KafkaLog(producer, events, KafkaBlobs(producer, blobs, pool, settings.partitions), settings.partitions)
    bases = await partition_bases(events, settings.partitions)
    outputs = KafkaFrameLog(connected, settings.partitions, bases.__getitem__)
    await outputs.start()
    stack.push_async_callback(outputs.stop)
    return Plumbing(
        settings=settings,
        timing=_timing(settings),
        crossing=Crossing(asyncio.get_running_loop()),
        pool=pool,
        feed=feed,
        verdicts=verdicts,
        log=kafka,
        outputs=outputs,
        submitter=Submitter(kafka, verdicts, ledger, SystemClock(), SystemIds()),
    )


def _worker(plumbing: Plumbing, stack: AsyncExitStack) -> list[Service]:
    """Load the graphs and return what executes their runs. Raises: Misconfigured for a graph that cannot be loaded."""
    settings, crossing = plumbing.settings, plumbing.crossing
    graphs = Graphs.load(load_config(settings.config))
    loops = JobLoops(crossing.home, uvloop.new_event_loop, isolated=settings.isolated_loops)
    stack.callback(loops.close)
    patient = PatientReads(Checkpoints(plumbing.pool), SystemClock())
    reads = CrossingReads(crossing, patient)
    worker = settings.worker_id or SystemIds().uuid7()
    events = CrossingLog(crossing, plumbing.log)
    api_url = f"http://{settings.host}:{settings.port}"
    writing = plumbing.writing("worker", worker)
    store = RunStore(crossing, StoreItems(plumbing.pool), writing)
    run_tools = RunTools(graphs, reads, store, events, SystemClock(), SystemIds(), JsonPlusSerializer(), api_url)
    provenance = {graph_id: graphs.provenance(graph_id) for graph_id in graphs.ids()}
    tools = WorkerTools(
        worker=worker,
        writing=writing,
        duties=Duties(plumbing.pool),
        queue=plumbing.feed,
        outputs=plumbing.outputs,
        ends=RecentEnds(plumbing.outputs, plumbing.log.partition_of, SystemClock()),
        execution=LangGraphRuns(run_tools),
        graph_ids=graphs.ids(),
        views=_views(plumbing, loops, patient, lambda: graphs),
        provenance=provenance.__getitem__,
        hints=plumbing.verdicts,
        loops=loops,
        crossing=crossing,
        timing=plumbing.timing,
    )
    active: dict[RunId, Attempt] = {}
    return [ExecuteRuns(tools, active), KeepLeases(tools, active)]


def _housekeeper(plumbing: Plumbing, stack: AsyncExitStack) -> list[Service]:
    """Return reaper, reconciler and purge; graphs are loaded only when a run has to be ended for its worker."""
    loops = JobLoops(plumbing.crossing.home, uvloop.new_event_loop)
    stack.callback(loops.close)
    duties = Duties(plumbing.pool)
    views = _views(plumbing, loops, Checkpoints(plumbing.pool), LazyGraphs(plumbing.settings))
    ender = Ender(plumbing.writing("system", "housekeeper"), duties, plumbing.outputs, views)
    return [
        ReapRuns(ender, plumbing.feed, plumbing.feed, plumbing.timing),
        ReconcileQueue(duties, plumbing.feed, plumbing.timing),
        PurgeRows(
            partial(purge_deleted, plumbing.pool), timedelta(milliseconds=plumbing.settings.outputs_retention_ms)
        ),
    ]


def _views(plumbing: Plumbing, loops: JobLoops, reads: CheckpointReads, graphs: Callable[[], Graphs]) -> LoopedViews:
    """Return the states that runs leave; `graphs` is asked on the loop where their code runs."""
    store = RunStoreReads(plumbing.crossing, StoreItems(plumbing.pool), SystemClock())

    def of_graph(reads: CheckpointReads) -> LangGraphAccess:
        crossing = CrossingReads(plumbing.crossing, reads)
        return LangGraphAccess(StateTools(graphs(), crossing, store, SystemIds(), JsonPlusSerializer()))

    def plain(reads: CheckpointReads) -> ChannelViews:
        return ChannelViews(CrossingReads(plumbing.crossing, reads), JsonPlusSerializer())

    return LoopedViews(loops, reads, SystemClock(), of_graph, plain)


class LazyGraphs:
    """The graphs of a process that seldom needs them, loaded at the first question."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._graphs: Graphs | None = None

    def __call__(self) -> Graphs:
        """Return the graphs. Raises: Misconfigured."""
        if self._graphs is None:
            self._graphs = Graphs.load(load_config(self._settings.config))
        return self._graphs
