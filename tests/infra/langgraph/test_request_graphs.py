"""Tests of graph access for requests: user code that blocks delays no other request."""

import asyncio
import importlib
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tests.infra.langgraph.executor_env import THREAD, ExecutorEnv
from tests.infra.projects import loaded

from agentlog_facts.graph_ports import BadUpdate, GraphFailed
from agentlog_facts.ids import stream
from agentlog_infra.langgraph.loading.graphs import Graphs
from agentlog_infra.langgraph.request_graphs import RequestGraphs
from agentlog_infra.langgraph.state import StateDependencies
from agentlog_infra.system_ports import SystemIds

SOURCE = """
import asyncio
import threading
from typing import Annotated, TypedDict
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

blocked, free = threading.Event(), threading.Event()
threads = []
blocks = []

def block():
    threads.append(threading.current_thread().name)
    if blocks:
        blocked.set()
        free.wait(30)

def add(old, new):
    block()
    return [*old, *new]

class State(TypedDict, total=False):
    said: Annotated[list, add]

def one(state):
    return {"said": ["one"]}

def ask(state):
    return {"said": [interrupt("who?")]}

builder = StateGraph(State).add_node("one", one).add_node("ask", ask).add_edge(START, "one").add_edge(START, "ask")
parallel = builder.compile()
plain = StateGraph(State).add_node("one", one).add_edge(START, "one").compile()

def factory():
    block()
    return plain

def exits():
    raise SystemExit(3)

async def stops():
    threads.append(threading.current_thread().name)
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    return plain
"""
NAMES = ("parallel", "plain", "factory", "exits", "stops")


@pytest.fixture
def graphs(tmp_path: Path) -> Iterator[Graphs]:
    with loaded(
        tmp_path, {"blocking_project.py": SOURCE}, {name: f"./blocking_project.py:{name}" for name in NAMES}
    ) as g:
        yield g


@pytest.fixture
async def env(graphs: Graphs) -> ExecutorEnv:
    return ExecutorEnv(graphs)


@pytest.fixture
async def access(env: ExecutorEnv) -> AsyncIterator[RequestGraphs]:
    found = RequestGraphs(StateDependencies(env.graphs, env.reads, env.store, SystemIds(), JsonPlusSerializer()))
    yield found
    free().set()
    found.close()


def free() -> threading.Event:
    found: threading.Event = vars(importlib.import_module("blocking_project"))["free"]
    return found


def ran_in() -> list[str]:
    found: list[str] = vars(importlib.import_module("blocking_project"))["threads"]
    return found


async def until_blocked() -> None:
    blocked: threading.Event = vars(importlib.import_module("blocking_project"))["blocked"]
    assert await asyncio.to_thread(blocked.wait, 10)


def block_from_now_on() -> None:
    ran_in().clear()
    vars(importlib.import_module("blocking_project"))["blocks"].append(True)


def calls(access: RequestGraphs) -> dict[str, Coroutine[object, object, object]]:
    return {
        "factory state": access.get_state("factory", THREAD),
        "factory history": access.get_history("factory", THREAD),
        "factory update": access.update_state("factory", THREAD, {"said": ["x"]}, as_node="one"),
        "reducer state": access.get_state("parallel", THREAD),
        "reducer update": access.update_state("parallel", THREAD, {"said": ["x"]}, as_node="one"),
    }


@pytest.mark.parametrize(
    "name", ["factory state", "factory history", "factory update", "reducer state", "reducer update"]
)
async def test_code_that_blocks_delays_only_its_own_request(env: ExecutorEnv, access: RequestGraphs, name: str) -> None:
    """A factory or a reducer that blocked stopped the whole gateway, `/ok` included."""
    await env.run("parallel" if "reducer" in name else "plain", input={"said": []})
    block_from_now_on()
    every = calls(access)
    blocking = asyncio.create_task(every.pop(name))
    for other in every.values():
        other.close()
    await until_blocked()
    assert len(await access.get_history("plain", THREAD, limit=2)) == 2
    assert not blocking.done()
    free().set()
    await asyncio.wait_for(blocking, 10)
    assert all(thread.startswith("graph-code-") for thread in ran_in())


async def test_a_read_that_runs_no_user_code_stays_on_the_loop(env: ExecutorEnv, access: RequestGraphs) -> None:
    await env.run("plain", input={"said": ["x"]})
    ran_in().clear()
    assert (await access.get_state("plain", THREAD)).fields["values"] == b'{"said":["x","one"]}'
    assert len(await access.get_history("plain", THREAD, limit=5)) == 3
    assert ran_in() == []


async def test_what_is_read_apart_is_the_same_as_without_a_loop_of_its_own(
    env: ExecutorEnv, access: RequestGraphs
) -> None:
    await env.run("parallel", input={"said": ["x"]})
    assert await access.get_state("parallel", THREAD) == await env.access.get_state("parallel", THREAD)
    assert await access.get_history("parallel", THREAD, limit=5) == await env.access.get_history(
        "parallel", THREAD, limit=5
    )
    change = await access.update_state("parallel", THREAD, {"said": ["y"]}, as_node="one")
    env.reads.fold(stream("thread", THREAD), (*change.facts, change.updated))
    assert await access.view("parallel", THREAD) == await env.access.view("parallel", THREAD)


async def test_errors_come_back_to_their_own_request(env: ExecutorEnv, access: RequestGraphs) -> None:
    await env.run("plain", input={"said": []})
    for _ in range(2):
        with pytest.raises(GraphFailed, match="SystemExit"):
            await access.get_state("exits", THREAD)
        with pytest.raises(BadUpdate):
            await access.update_state("plain", THREAD, {"said": ["x"]}, as_node="nobody")


async def test_code_that_stops_its_loop_stops_no_request(env: ExecutorEnv, access: RequestGraphs) -> None:
    """The loop was closed, so its call never ended, and each further one cost a loop."""
    await env.run("plain", input={"said": []})
    ran_in().clear()
    for _ in range(3):
        async with asyncio.timeout(10):
            assert (await access.get_state("stops", THREAD)).fields["next"] == b"[]"
    assert set(ran_in()) == {"graph-code-0"}
