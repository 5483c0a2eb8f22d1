"""Gateway that remembers answers beside one that reads each of them again, over one database."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from httpx2 import ASGITransport, AsyncClient, Response
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tests.fakes.memory_log import MemoryLog
from tests.gateway.web_env import dependencies

from agentlog_facts.ids import ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_gateway.application import build_app
from agentlog_gateway.http.cors import Cors
from agentlog_gateway.reads.remembered_answers import Answer, RememberedAnswers
from agentlog_infra.langgraph.loading.config import load_config
from agentlog_infra.langgraph.loading.graphs import Graphs
from agentlog_infra.langgraph.request_graphs import RequestGraphs
from agentlog_infra.langgraph.state import StateDependencies
from agentlog_infra.system_ports import SystemIds
from agentlog_postgres.connection import Pool, open_pool
from agentlog_projections.models.checkpoints import Checkpoints
from agentlog_projections.models.store import StoreItems


class CountedAnswers(RememberedAnswers):
    """Counts the answers from memory."""

    found = 0

    def find(self, thread_id: ThreadId, question: bytes, version: str, read_at: int) -> Answer | None:
        answer = super().find(thread_id, question, version, read_at)
        self.found += answer is not None
        return answer


class TwoGateways:
    """Clients of both gateways."""

    def __init__(self, remembering: AsyncClient, forgetful: AsyncClient, answers: CountedAnswers) -> None:
        self.remembering = remembering
        self.forgetful = forgetful
        self.answers = answers

    async def compare(self, thread_id: str, *, checkpoints: bool = True) -> None:
        """Ask questions about a thread's states, twice where answers are remembered; all answers must be equal."""
        path = f"/threads/{thread_id}"
        shown = await self._compared("POST", f"{path}/history", {"limit": 100})
        await self._compared("GET", f"{path}/state?subgraphs=true")
        if not checkpoints or shown.status_code != 200:
            return
        for last in ("state", "state?select=next,values.done", "history?limit=5"):
            await self._compared("GET", f"{path}/{last}")
        await self._compared("POST", f"{path}/history", {"limit": 9, "metadata": {"source": "loop"}})
        states: list[JsonObject] = shown.json()
        for one in states[:: max(1, len(states) // 3)]:
            await self._compared("GET", f"{path}/state/{one['checkpoint_id']}")
            await self._compared("POST", f"{path}/state/checkpoint", {"checkpoint": one["checkpoint"]})
            await self._compared("POST", f"{path}/history", {"limit": 2, "before": one["checkpoint_id"]})

    async def _compared(self, method: str, path: str, body: JsonObject | None = None) -> Response:
        first = await self.remembering.request(method, path, json=body)
        again = await self.remembering.request(method, path, json=body)
        fresh = await self.forgetful.request(method, path, json=body)
        shown = [(one.status_code, one.content, one.headers.get("etag")) for one in (first, again, fresh)]
        assert shown[0] == shown[1] == shown[2], (method, path, body)
        return again


@asynccontextmanager
async def _client(pool: Pool, config: Path, answers: RememberedAnswers) -> AsyncGenerator[AsyncClient]:
    graphs = RequestGraphs(
        StateDependencies(
            Graphs.load(load_config(config)), Checkpoints(pool), StoreItems(pool), SystemIds(), JsonPlusSerializer()
        )
    )
    wired = replace(dependencies(MemoryLog(), pool, config), answers=answers, graphs=graphs)
    app = build_app(lambda: wired, Cors(allow_origins=["*"]))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://answers") as client:
        yield client
    graphs.close()


@asynccontextmanager
async def two_gateways(uri: str, config: Path, budget_bytes: int = 2**26) -> AsyncGenerator[TwoGateways]:
    """Yield clients of both gateways over the database at `uri`; they only read."""
    pool = await open_pool(uri, 4)
    answers = CountedAnswers(budget_bytes)
    try:
        async with _client(pool, config, answers) as remembering:
            async with _client(pool, config, RememberedAnswers(0)) as forgetful:
                yield TwoGateways(remembering, forgetful, answers)
    finally:
        await pool.close()
