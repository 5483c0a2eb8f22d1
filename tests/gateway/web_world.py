"""A gateway whose database does not answer: what can be said without rows, and what is said when they are missing."""

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
from tests.gateway.stream_world import Hints, Rows

import agentlog_infra.examples
from agentlog_commands.submit import Submitter
from agentlog_facts.json_value import JsonObject, as_object
from agentlog_gateway.consistency import Folded
from agentlog_gateway.cors import Cors
from agentlog_gateway.presence import Presence
from agentlog_gateway.refusals import Refusals
from agentlog_gateway.services import Limits, Services
from agentlog_gateway.streams import RunStreams
from agentlog_gateway.web import build_app
from agentlog_infra.graphs import Graphs
from agentlog_infra.graphs_config import load_config
from agentlog_infra.state_access import LangGraphAccess, StateTools
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_infra.verdicts import HintVerdicts
from agentlog_projections.assistants import Assistants
from agentlog_projections.checkpoints import Checkpoints
from agentlog_projections.database import Pool, open_pool
from agentlog_projections.decisions import Decisions
from agentlog_projections.health import health
from agentlog_projections.ledger import Ledger
from agentlog_projections.presence import PartitionPresence
from agentlog_projections.runs import Runs
from agentlog_projections.store_items import StoreItems
from agentlog_projections.threads import Threads

EXAMPLES = Path(agentlog_infra.examples.__file__).parent / "langgraph.json"
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
BODY_BYTES = 1000


def services(log: MemoryLog, pool: Pool, config: Path = EXAMPLES) -> Services:
    """Wire a gateway as its composition root does, over a log in memory."""
    clock, ids = SystemClock(), SystemIds()
    graphs = Graphs.load(load_config(config))
    decisions = Decisions(pool)
    presence = Presence(PartitionPresence(pool), log, clock, 1)
    return Services(
        clock=clock,
        ids=ids,
        log=log,
        submitter=Submitter(log, log, log, clock, ids),
        refusals=Refusals(log, clock, ids),
        presence=presence,
        folded=Folded(Ledger(pool), 1, 1),
        waits=HintVerdicts(Hints(), log, clock),
        streams=RunStreams(MemoryFrames(), Rows(), Hints()),
        graphs=LangGraphAccess(StateTools(graphs, Checkpoints(pool), StoreItems(pool), ids, JsonPlusSerializer())),
        decisions=decisions,
        threads=Threads(pool),
        runs=Runs(pool),
        assistants=Assistants(pool),
        limits=Limits(BODY_BYTES, 5, 1, 15),
        checks={"database": presence.ask, "log": partial(log.position, 0)},
        health=partial(health, pool),
        prepared=asyncio.Event(),
    )


@asynccontextmanager
async def without_database(*origins: str) -> AsyncGenerator[tuple[AsyncClient, MemoryLog]]:
    """Give a client of such a gateway, and its log."""
    log, pool = MemoryLog(), await open_pool(NOWHERE, 2)
    wired = services(log, pool)
    transport = ASGITransport(
        build_app(lambda: wired, Cors(allow_origins=list(origins or ("*",)))), raise_app_exceptions=False
    )
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        yield client, log
    await pool.close()


def detail(content: bytes) -> str:
    """Return what a refusal tells, after checking that it is one text without a traceback."""
    told: JsonObject = as_object(json.loads(content))
    assert list(told) == ["detail"]
    text = told["detail"]
    assert isinstance(text, str)
    assert "Traceback" not in text
    return text
