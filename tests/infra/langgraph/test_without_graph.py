"""Tests of attempts whose graph cannot be opened, or cannot tell its state: what they leave to their thread."""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.infra.langgraph.executor_env import ExecutorEnv
from tests.infra.langgraph.graph_sources import MIXED
from tests.infra.langgraph.memory_checkpoints import CutLog
from tests.infra.projects import loaded

from agentlog_facts.checkpoint import CheckpointSaved
from agentlog_facts.execution_port import AttemptLost, RunAssignment, RunOutcome
from agentlog_facts.json_value import JsonObject
from agentlog_infra.langgraph.checkpoints import journal
from agentlog_infra.langgraph.loading.graphs import Graphs

SOURCE = f"""{MIXED}
import contextlib

broken, broken_at_exit, stop = [], [], []

def made_of(graph):
    @contextlib.asynccontextmanager
    async def factory():
        if broken:
            raise ValueError("no client")
        yield graph
        if broken_at_exit:
            stop[0].set()
            raise asyncio.CancelledError("a library's own")
    return factory

makes_mixed, makes_delta, makes_without_copies = made_of(mixed), made_of(delta), made_of(without_copies)
"""
GRAPHS = ("makes_mixed", "makes_delta", "makes_without_copies")
INPUT: JsonObject = {"plan": {}, "items": ["in"]}


@pytest.fixture
def graphs(tmp_path: Path) -> Iterator[Graphs]:
    names = {name: f"./broken_project.py:{name}" for name in GRAPHS}
    with loaded(tmp_path, {"broken_project.py": SOURCE}, names) as found:
        yield found


@pytest.fixture
async def env(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> ExecutorEnv:
    monkeypatch.setattr(journal, "FACTS_A_COMMIT", 1)
    return ExecutorEnv(graphs, CutLog)


def break_graphs(name: str, cause: object = True) -> None:
    """Let the factories fail from now on."""
    found: list[object] = vars(importlib.import_module("broken_project"))[name]
    found.append(cause)


def after(outcome: RunOutcome, order: RunAssignment) -> RunAssignment:
    """Return the order as it is on a thread that shows this outcome."""
    return replace(order, values=outcome.values, next=outcome.next)


@pytest.mark.parametrize("runs", [1, 2, 3])
@pytest.mark.parametrize("graph_id", GRAPHS)
async def test_a_run_that_wrote_nothing_leaves_the_state_of_before(env: ExecutorEnv, graph_id: str, runs: int) -> None:
    """The values of a `DeltaChannel`, of which a checkpoint has no copy, were taken from the thread."""
    earlier = [await env.run(graph_id, run=run, input=INPUT) for run in range(1, runs + 1)][-1]
    break_graphs("broken")
    outcome = await env.attempt(after(earlier, env.order(graph_id, runs + 1, 1, {"input": INPUT})))
    assert (outcome.status, outcome.error) == ("error", {"error": "ValueError", "message": "no client"})
    assert (outcome.values, outcome.next) == (earlier.values, ())
    assert outcome.checkpoint_id is None


@pytest.mark.parametrize("graph_id", GRAPHS)
@pytest.mark.parametrize("commits", [3, 4, 5])
async def test_a_second_attempt_without_its_graph_names_the_checkpoint_of_the_first(
    env: ExecutorEnv, graph_id: str, commits: int
) -> None:
    earlier = await env.run(graph_id, input=INPUT)
    kwargs: JsonObject = {"input": {"plan": {"sub": True, "sub_ask": True}, "items": ["more"]}}
    before = len(env.log.drafts)
    assert isinstance(env.log, CutLog)
    env.log.left = commits
    with pytest.raises(AttemptLost):
        await env.attempt(after(earlier, env.order(graph_id, 2, 1, kwargs)))
    env.log.left = None
    facts = [fact for draft in env.log.drafts[before:] for fact in draft.facts]
    saved = [fact for fact in facts if isinstance(fact, CheckpointSaved) and not fact.checkpoint_ns]
    break_graphs("broken")
    outcome = await env.attempt(after(earlier, env.order(graph_id, 2, 2, kwargs)))
    assert outcome.status == "error"
    assert outcome.checkpoint_id == saved[-1].checkpoint_id
    assert outcome.values is not None
    assert earlier.values is not None
    assert outcome.values.keys() == earlier.values.keys(), "no key of the thread is lost"
    assert outcome.values["plan"] == {"sub": True, "sub_ask": True}
    items = outcome.values["items"]
    assert isinstance(items, list)
    assert items[:2] == ["in", "begin0"]


async def test_a_stopped_run_whose_factory_ends_with_a_cancellation_is_interrupted(env: ExecutorEnv) -> None:
    """The attempt counted as lost, and the run was repeated."""
    break_graphs("stop", env.stop)
    break_graphs("broken_at_exit")
    outcome = await env.run("makes_mixed", input=INPUT)
    assert (outcome.status, outcome.error) == ("interrupted", None)
