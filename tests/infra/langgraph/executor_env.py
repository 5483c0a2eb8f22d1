"""Attempts of runs over a log in memory, which a test can cut off."""

import asyncio
from pathlib import Path

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tests.fakes.memory_store import MemoryStore
from tests.infra.langgraph.memory_checkpoints import CutLog, MemoryCheckpoints, MemoryLog
from tests.infra.langgraph.own_snapshots import OwnSnapshots

from agentlog_facts.checkpoint import CheckpointSaved
from agentlog_facts.envelope import Actor, Cause
from agentlog_facts.execution_port import AttemptLost, RunAssignment, RunOutcome
from agentlog_facts.frame import Frame
from agentlog_facts.graph_ports import LATEST, At
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject, load_object
from agentlog_facts.secret_values import SecretKeys, Secrets
from agentlog_infra.aes_cipher import AesGcmCipher
from agentlog_infra.langgraph.executor import ExecutorDependencies, LangGraphRuns
from agentlog_infra.langgraph.loading.graphs import Graphs
from agentlog_infra.langgraph.state import LangGraphAccess, StateDependencies
from agentlog_infra.system_ports import SystemClock, SystemIds

THREAD = ThreadId("t1")
SECRETS = Secrets(SecretKeys(), AesGcmCipher("0123456789abcdef", Path("nowhere")))
API_URL = "http://127.0.0.1:2024"


def order_id(run: int) -> str:
    """Return the id of a run by its number."""
    return f"00000000-0000-7000-8000-{run:012}"


class ExecutorEnv:
    """A log whose facts are projected at once, with the runs over it, which keep as little as possible in memory."""

    def __init__(self, graphs: Graphs, log: type[MemoryLog] = MemoryLog, overlay_bytes: int = 0) -> None:
        self.graphs = graphs
        self.reads = MemoryCheckpoints()
        self.log = log(self.reads)
        self.store = MemoryStore()
        self.serde = serde = JsonPlusSerializer()
        dependencies = ExecutorDependencies(
            graphs,
            self.reads,
            self.store,
            self.log,
            SystemClock(),
            SystemIds(),
            serde,
            API_URL,
            secrets=SECRETS,
            versions=self.log,
            overlay_bytes=overlay_bytes,
        )
        self.runs = LangGraphRuns(dependencies)
        self.access = LangGraphAccess(StateDependencies(graphs, self.reads, self.store, SystemIds(), serde))
        self.frames: list[Frame] = []
        self.stop = asyncio.Event()

    async def run(self, graph_id: str, *, run: int = 1, attempt: int = 1, **kwargs: Json) -> RunOutcome:
        return await self.attempt(self.order(graph_id, run, attempt, kwargs))

    async def attempt(self, order: RunAssignment) -> RunOutcome:
        return await self.runs.execute(order, self.frames.append, self.stop)

    async def state(
        self, graph_id: str, thread_id: ThreadId, at: At = LATEST, *, subgraphs: bool = False
    ) -> JsonObject:
        """Return a state; it must equal LangGraph's own snapshot."""
        found = load_object((await self.access.get_state(graph_id, thread_id, at, subgraphs=subgraphs)).document())
        assert found == await OwnSnapshots(self.graphs, self.reads, self.serde).state(
            graph_id, thread_id, at, subgraphs=subgraphs
        )
        return found

    async def history(
        self,
        graph_id: str,
        thread_id: ThreadId,
        at: At = LATEST,
        *,
        before: str | None = None,
        limit: int = 1,
        metadata: JsonObject | None = None,
    ) -> list[JsonObject]:
        """Return a history; its states must equal LangGraph's own snapshots."""
        states = await self.access.get_history(graph_id, thread_id, at, before=before, limit=limit, metadata=metadata)
        found = [load_object(one.document()) for one in states]
        own = OwnSnapshots(self.graphs, self.reads, self.serde)
        assert found == await own.history(graph_id, thread_id, at, before, limit, metadata)
        return found

    def order(self, graph_id: str, run: int, attempt: int, kwargs: JsonObject) -> RunAssignment:
        run_id = RunId(order_id(run))
        versions = [draft for draft in self.log.drafts if draft.stream == f"run-{run_id}"]
        return RunAssignment(
            run_id=run_id,
            thread_id=THREAD,
            graph_id=graph_id,
            epoch=run * 10 + attempt,
            attempt=attempt,
            assistant={"assistant_id": "as1", "config": {"configurable": {"mood": "good"}}},
            kwargs=kwargs,
            metadata={},
            thread_metadata={},
            cause=Cause(Actor("worker", "w1"), "c1"),
            run_version=len(versions) - 1 if versions else None,
            has_checkpoints=self.reads.has_checkpoints(THREAD),
        )

    async def cut_off(
        self, graph_id: str, commits: int, *, run: int = 1, answers_last: bool = True, **kwargs: Json
    ) -> RunOutcome:
        """Execute an attempt whose worker dies after so many commits, before its end, then the next attempt."""
        assert isinstance(self.log, CutLog)
        self.log.left, self.log.answers_last = commits, answers_last
        with pytest.raises(AttemptLost):
            await self.attempt(self.order(graph_id, run, 1, kwargs))
        assert self.log.left == 0
        self.log.left = None
        return await self.attempt(self.order(graph_id, run, 2, kwargs))

    def of(self, mode: str) -> list[Json]:
        return [frame.data for frame in self.frames if frame.event == mode]

    def forget_after(self, checkpoints: int) -> None:
        """Restore the log to the moment when this number of checkpoints was accepted, as after a crash."""
        drafts, self.log.drafts = self.log.drafts, []
        self.reads.begin_again()
        for draft in drafts:
            if checkpoints == 0:
                break
            self.log.drafts.append(draft)
            self.reads.fold(draft.stream, draft.facts)
            checkpoints -= sum(isinstance(fact, CheckpointSaved) for fact in draft.facts)
