"""Tests of nodes that catch their cancel and return what they have so far."""

import asyncio
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.infra.langgraph.executor_env import THREAD, ExecutorEnv
from tests.infra.projects import loaded

from agentlog_facts.checkpoint import CheckpointSaved
from agentlog_facts.execution_port import RunOutcome
from agentlog_facts.json_value import as_object
from agentlog_infra.langgraph.loading.graphs import Graphs

SOURCE = """
import asyncio
import operator
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph

class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]

calls = []
works = asyncio.Event()
release = asyncio.Event()

async def write(state):
    calls.append("write")
    try:
        works.set()
        await release.wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0)
        return {"log": ["partial"]}
    return {"log": ["whole"]}

async def other(state):
    calls.append("other")
    await release.wait()
    return {"log": ["other"]}

def publish(state):
    calls.append("publish")
    return {"log": ["published"]}

def graph(*parallel):
    builder = StateGraph(State).add_node(publish)
    for node in parallel:
        builder.add_node(node).add_edge(START, node.__name__).add_edge(node.__name__, "publish")
    return builder

save = graph(write).compile()
last = StateGraph(State).add_node(write).add_edge(START, "write").compile()
both = graph(write, other).compile()
answer = StateGraph(State).add_node("n", lambda state: {"log": ["next"]}).add_edge(START, "n").compile()
outer = StateGraph(State).add_node("sub", save).add_edge(START, "sub").compile()
"""
DURABILITIES = ("async", "sync", "exit")


@pytest.fixture
def graphs(tmp_path: Path) -> Iterator[Graphs]:
    names = {name: f"./caught_project.py:{name}" for name in ("save", "last", "both", "answer", "outer")}
    with loaded(tmp_path, {"caught_project.py": SOURCE}, names) as found:
        yield found


@pytest.fixture
async def env(graphs: Graphs) -> ExecutorEnv:
    return ExecutorEnv(graphs)


def event(name: str) -> asyncio.Event:
    found: asyncio.Event = vars(importlib.import_module("caught_project"))[name]
    return found


def calls() -> list[str]:
    found: list[str] = vars(importlib.import_module("caught_project"))["calls"]
    return found


async def stopped(env: ExecutorEnv, graph_id: str, durability: str) -> RunOutcome:
    """Stop a run while its node waits."""
    work = asyncio.create_task(env.run(graph_id, input={"log": ["question"]}, durability=durability))
    await event("works").wait()
    env.stop.set()
    outcome = await work
    env.stop.clear()
    return outcome


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_the_step_of_a_node_that_returns_on_its_cancel_is_saved(env: ExecutorEnv, durability: str) -> None:
    outcome = await stopped(env, "save", durability)
    assert (outcome.status, outcome.next) == ("interrupted", ("publish",))
    assert outcome.values == {"log": ["question", "partial"]}
    after = await env.run("answer", run=2, input={"log": ["second"]})
    assert after.values == {"log": ["question", "partial", "second", "next"]}


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_stopped_run_goes_on_after_the_node_that_returned(env: ExecutorEnv, durability: str) -> None:
    await stopped(env, "save", durability)
    after = await env.run("save", run=2, input=None)
    assert after.values == {"log": ["question", "partial", "published"]}
    assert calls() == ["write", "publish"]


async def test_a_state_update_keeps_the_step(env: ExecutorEnv) -> None:
    await stopped(env, "save", "async")
    change = await env.access.update_state("save", THREAD, {"log": ["noted"]})
    assert change.updated.next == ("publish",)
    [saved] = [fact for fact in change.facts if isinstance(fact, CheckpointSaved)]
    entries = [as_object(entry) for entry in saved.channels]
    assert [entry["items"] for entry in entries if entry["channel"] == "log"] == [["noted"]]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_run_that_is_stopped_in_its_last_node_is_interrupted(env: ExecutorEnv, durability: str) -> None:
    outcome = await stopped(env, "last", durability)
    assert (outcome.status, outcome.next) == ("interrupted", ())
    assert outcome.values == {"log": ["question", "partial"]}


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_a_parallel_node_that_did_not_return_runs_again_and_no_other(env: ExecutorEnv, durability: str) -> None:
    outcome = await stopped(env, "both", durability)
    assert (outcome.status, outcome.next) == ("interrupted", ("other",))
    assert outcome.values == {"log": ["question", "partial"]}
    event("release").set()
    after = await env.run("both", run=2, input=None)
    assert after.values == {"log": ["question", "other", "partial", "published"]}
    assert sorted(calls()) == ["other", "other", "publish", "write"]


async def test_the_output_of_a_node_in_a_subgraph_is_kept_for_the_resume(env: ExecutorEnv) -> None:
    outcome = await stopped(env, "outer", "async")
    assert (outcome.status, outcome.next) == ("interrupted", ("sub",))
    after = await env.run("outer", run=2, input=None)
    assert after.values is not None
    assert "partial" in str(after.values)
    assert calls() == ["write", "publish"]


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_what_a_node_returns_when_its_worker_drains_is_no_answer(env: ExecutorEnv, durability: str) -> None:
    work = asyncio.create_task(env.run("save", input={"log": ["question"]}, durability=durability))
    await event("works").wait()
    env.stop.set()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    env.stop.clear()
    event("release").set()
    outcome = await env.run("save", attempt=2, input={"log": ["question"]}, durability=durability)
    assert outcome.values == {"log": ["question", "whole", "published"]}
