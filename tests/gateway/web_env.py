"""Test environment of a gateway whose database does not answer."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from httpx2 import ASGITransport, AsyncClient
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tests.contracts.memory_frames import MemoryFrames
from tests.fakes.memory_log import MemoryLog
from tests.gateway.stream_env import Rows

import agentlog_infra.examples
from agentlog_commands.submit import Submitter
from agentlog_facts.json_value import JsonObject, as_object
from agentlog_facts.secret_values import SecretKeys, Secrets
from agentlog_gateway.api.dependencies import Dependencies, Limits
from agentlog_gateway.api.refusal_log import Refusals
from agentlog_gateway.application import build_app
from agentlog_gateway.http.cors import Cors
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
from agentlog_infra.aes_cipher import AesGcmCipher
from agentlog_infra.langgraph.code_loops import CodeLoops
from agentlog_infra.langgraph.loading.config import load_config
from agentlog_infra.langgraph.loading.graphs import Graphs
from agentlog_infra.langgraph.state import LangGraphAccess, StateDependencies
from agentlog_infra.langgraph.store import LogStore
from agentlog_infra.langgraph.structure.structures import LoadedStructures
from agentlog_infra.subject_salts import SubjectSalts
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_postgres.connection import Pool, open_pool
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
from agentlog_projections.queries.state_version import PostgresStateVersions
from agentlog_projections.queries.thread_copying import ThreadCopying
from agentlog_projections.queries.thread_places import PostgresThreadPlaces
from agentlog_projections.queries.thread_storage import StoredCheckpoints
from agentlog_projections.sql.caught_up import PartitionCatchUp

EXAMPLES = Path(agentlog_infra.examples.__file__).parent / "langgraph.json"
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
BODY_BYTES = 1000


async def no_deaths() -> int:
    """Return the number of dead workers."""
    return 0


def dependencies(log: MemoryLog, pool: Pool, config: Path = EXAMPLES) -> Dependencies:
    """Wire a gateway as its composition root does, over a log in memory."""
    clock, ids = SystemClock(), SystemIds()
    graphs = Graphs.load(load_config(config))
    run_watcher = RunWatcher(Rows())
    frames = MemoryFrames()
    streams = RunStreams(frames, run_watcher)
    caught_up = CatchUpGate(PartitionCatchUp(pool), log, clock, 1)
    return Dependencies(
        clock=clock,
        ids=ids,
        log=log,
        ledger=log,
        submitter=Submitter(log, log, log, clock, ids),
        refusals=Refusals(log, clock, ids),
        caught_up=caught_up,
        progress=ProjectionProgress(Ledger(pool), 1, 1),
        run_watcher=run_watcher,
        streams=streams,
        thread_streams=ThreadStreams(streams.sources, PostgresThreadPlaces(pool)),
        announcer=OutputsAnnouncer(frames),
        framer=Framer(),
        graphs=LangGraphAccess(
            StateDependencies(graphs, Checkpoints(pool), StoreItems(pool), ids, JsonPlusSerializer())
        ),
        structures=LoadedStructures(graphs, LogStore(StoreItems(pool)), CodeLoops()),
        secrets=Secrets(SecretKeys(), AesGcmCipher("0123456789abcdef", config.parent)),
        salts=SubjectSalts(lambda: b"0123456789abcdef"),
        server_metadata={},
        provenance=graphs.provenance,
        contexts=PostgresCommandContexts(pool),
        threads=Threads(pool),
        stored_checkpoints=StoredCheckpoints(pool),
        copies=ThreadCopying(pool),
        state_versions=PostgresStateVersions(pool),
        answers=RememberedAnswers(),
        runs=Runs(pool),
        assistants=Assistants(pool),
        crons=Crons(pool),
        store=StoreItems(pool),
        limits=Limits(BODY_BYTES, 5, 15),
        checks={"database": caught_up.refresh, "log": partial(log.position, 0)},
        health=partial(health, pool),
        run_health=partial(run_health, pool),
        worker_deaths=no_deaths,
        queue=partial(queue_figures, pool),
        jobs=no_deaths,
        requests=RequestMetrics(process_registry()),
        prepared=asyncio.Event(),
    )


@asynccontextmanager
async def without_database(*origins: str) -> AsyncGenerator[tuple[AsyncClient, MemoryLog]]:
    """Yield a client of such a gateway, and its log."""
    log, pool = MemoryLog(), await open_pool(NOWHERE, 2)
    wired = dependencies(log, pool)
    transport = ASGITransport(
        build_app(lambda: wired, Cors(allow_origins=list(origins or ("*",)))), raise_app_exceptions=False
    )
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        yield client, log
    await pool.close()


def detail(content: bytes) -> str:
    """Return the text of a refusal, after a check that it is one text without a traceback."""
    body: JsonObject = as_object(json.loads(content))
    assert list(body) == ["detail"]
    text = body["detail"]
    assert isinstance(text, str)
    assert "Traceback" not in text
    return text
