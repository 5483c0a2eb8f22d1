"""The composition root of the gateway: settings and adapters in, one application and its background services out."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agentlog_commands.submit import Submitter
from agentlog_facts.envelope import Place
from agentlog_facts.errors import Misconfigured
from agentlog_facts.ids import RunId
from agentlog_facts.ports import EventLog
from agentlog_facts.system import PartitionOpened
from agentlog_gateway.consistency import Folded
from agentlog_gateway.cors import cors_of
from agentlog_gateway.presence import Presence
from agentlog_gateway.refusals import Refusals
from agentlog_gateway.run_ends import RunRow
from agentlog_gateway.services import Limits, Services
from agentlog_gateway.shared_hints import SharedHints
from agentlog_gateway.streams import RunStreams
from agentlog_gateway.system_assistants import ensure_system_assistants
from agentlog_gateway.web import build_app
from agentlog_infra import kafka_topics, logs, redis_feed
from agentlog_infra.addresses import joined
from agentlog_infra.graphs import Graphs
from agentlog_infra.graphs_config import load_config
from agentlog_infra.kafka_blobs import KafkaBlobs
from agentlog_infra.kafka_connection import BLOBS, EVENTS, connection
from agentlog_infra.kafka_frames import KafkaFrameReads
from agentlog_infra.kafka_log import KafkaLog
from agentlog_infra.kafka_producer import DurableProducer
from agentlog_infra.kafka_reader import KafkaReader
from agentlog_infra.partition_bases import partition_bases
from agentlog_infra.settings import Settings
from agentlog_infra.state_access import LangGraphAccess, StateTools
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_infra.verdicts import HintVerdicts
from agentlog_projections.assistants import Assistants
from agentlog_projections.checkpoints import Checkpoints
from agentlog_projections.database import Pool, open_pool
from agentlog_projections.decisions import Decisions, RunEnd
from agentlog_projections.health import health
from agentlog_projections.ledger import Ledger
from agentlog_projections.presence import PartitionPresence
from agentlog_projections.runs import Runs
from agentlog_projections.store_items import StoreItems
from agentlog_projections.threads import Threads

log = logging.getLogger(__name__)

NAME = "agentlog-gateway"


class Gateway:
    """A wired gateway. `run()` carries what happens beside requests; it is `ready` once it can serve all of them."""

    def __init__(self, services: Services, app: FastAPI) -> None:
        self.services = services
        self.app = app
        self.ready = services.prepared

    async def run(self) -> None:
        """Run the background services until cancelled; the first that fails ends all."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.services.streams.run(), name="streams")
            tasks.create_task(self.services.refusals.run(), name="refusals")
            tasks.create_task(self._prepare(), name="assistants")

    async def _prepare(self) -> None:
        await ensure_system_assistants(self.services)
        self.ready.set()


@dataclass(frozen=True, slots=True)
class EndRows:
    """Keeps `run_ends.RunRows` over the projections."""

    decisions: Decisions

    async def rows(self, run_ids: Sequence[RunId]) -> Mapping[RunId, RunRow | None]:
        """Return the rows of which can be told. Raises: Unavailable."""
        found = await self.decisions.ends(run_ids)
        return {run_id: None if run is None else _end_row(run) for run_id, run in found.items()}


def _end_row(run: RunEnd) -> RunRow:
    return RunRow(
        run_id=run.run_id,
        thread_id=run.thread_id,
        status=run.status,
        resumable=run.resumable,
        epoch=run.epoch,
        outputs_from=run.outputs_from,
        outputs_to=run.outputs_to,
        finished_event_id=run.finished_event_id,
        error=run.error,
        deleted=run.deleted,
        version=run.version,
    )


@dataclass(frozen=True, slots=True)
class Plumbing:
    """The adapters of the gateway, connected."""

    log: KafkaLog
    events: KafkaReader
    pool: Pool
    feed: redis_feed.RedisFeed
    verdicts: HintVerdicts
    frames: KafkaFrameReads
    generation: int


def load_settings() -> Settings:
    """Read the settings and set logging up. Raises: Misconfigured, Unavailable."""
    settings = joined(Settings.load())
    logs.configure(settings.log_level, as_json=settings.log_json)
    return settings


@asynccontextmanager
async def open_gateway(settings: Settings) -> AsyncGenerator[Gateway]:
    """Connect everything and give the gateway; all is closed behind it. Raises: Unavailable, Misconfigured."""
    config = load_config(settings.config)
    cors = cors_of(config.document, settings.cors_allow_origins)
    graphs = Graphs.load(config)
    await kafka_topics.check(settings)
    async with AsyncExitStack() as stack:
        services = _services(settings, await _plumbing(stack, settings), graphs)
        yield Gateway(services, build_app(lambda: services, cors))


async def _plumbing(stack: AsyncExitStack, settings: Settings) -> Plumbing:
    connected = connection(settings)
    pool = await open_pool(settings.database_uri or "", settings.postgres_pool_max_size)
    stack.push_async_callback(pool.close)
    feed = redis_feed.RedisFeed(redis_feed.connect(settings), settings.redis_key_prefix, SystemIds())
    stack.push_async_callback(feed.stop)
    verdicts = HintVerdicts(feed, Ledger(pool), SystemClock())
    await verdicts.start()
    stack.push_async_callback(verdicts.stop)
    producer = DurableProducer(connected, NAME)
    await producer.start()
    stack.push_async_callback(producer.stop)
    events, blobs = KafkaReader(connected, EVENTS, NAME), KafkaReader(connected, BLOBS, NAME)
    stack.push_async_callback(events.stop)
    stack.push_async_callback(blobs.stop)
    kafka = KafkaLog(producer, events, KafkaBlobs(producer, blobs, pool, settings.partitions), settings.partitions)
    bases = await partition_bases(events, settings.partitions)
    frames = KafkaFrameReads(connected, settings.partitions, bases.__getitem__)
    stack.push_async_callback(frames.stop)
    return Plumbing(kafka, events, pool, feed, verdicts, frames, await _generation(kafka))


async def _generation(events: EventLog) -> int:
    """Return the generation of the log, from its first record. Raises: Unavailable, Misconfigured."""
    first = (await events.read(Place(0, 0))).draft.facts[0]
    if not isinstance(first, PartitionOpened):
        raise Misconfigured(f"{EVENTS}-0: expected PartitionOpened as the first record; run `agentlog topics apply`")
    return first.generation


def _services(settings: Settings, plumbing: Plumbing, graphs: Graphs) -> Services:
    clock, ids, pool = SystemClock(), SystemIds(), plumbing.pool
    ledger, decisions, items = Ledger(pool), Decisions(pool), StoreItems(pool)
    folded = Folded(ledger, plumbing.generation, settings.partitions)
    plumbing.verdicts.listen(folded.hear)
    presence = Presence(PartitionPresence(pool), plumbing.log, clock, settings.partitions)
    return Services(
        clock=clock,
        ids=ids,
        log=plumbing.log,
        submitter=Submitter(plumbing.log, plumbing.verdicts, ledger, clock, ids),
        refusals=Refusals(plumbing.log, clock, ids),
        presence=presence,
        folded=folded,
        waits=plumbing.verdicts,
        streams=RunStreams(plumbing.frames, EndRows(decisions), SharedHints(plumbing.feed, plumbing.verdicts)),
        graphs=LangGraphAccess(StateTools(graphs, Checkpoints(pool), items, ids, JsonPlusSerializer())),
        decisions=decisions,
        threads=Threads(pool),
        runs=Runs(pool),
        assistants=Assistants(pool),
        limits=Limits(
            settings.max_request_body_bytes,
            settings.request_deadline_secs,
            settings.read_wait_secs,
            settings.cancel_grace_secs,
        ),
        checks={"database": presence.ask, "redis": plumbing.feed.ping, "log": partial(plumbing.events.end, 0)},
        health=partial(health, pool),
        prepared=asyncio.Event(),
    )
