"""Tests of graph access for requests: user code that blocks delays no other request."""

import asyncio
import importlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tests.infra.langgraph.executor_env import THREAD, ExecutorEnv
from tests.infra.projects import loaded

from agentlog_facts.graph_ports import At, BadUpdate, EncodedState, GraphFailed
from agentlog_facts.ids import ThreadId, stream
from agentlog_infra.langgraph.loading.graphs import Graphs
from agentlog_infra.langgraph.request_graphs import RequestGraphs
from agentlog_infra.langgraph.state import StateDependencies
from agentlog_infra.system_ports import SystemIds

SOURCE = """
import asyncio
import operator
import threading
from datetime import datetime, timezone
from typing import Annotated, TypedDict
from langgraph.channels.delta import DeltaChannel
from langgraph.channels.last_value import LastValue
from langgraph.graph import START, StateGraph
from langgraph.types import Send, interrupt
from pydantic import BaseModel, field_validator

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

class Checked(BaseModel):
    said: list = []

    @field_validator("said")
    def check(cls, value):
        block()
        return value

waiting = StateGraph(Checked).add_node("ask", ask).add_edge(START, "ask").compile()

class Holding(TypedDict, total=False):
    said: list
    held: list
    one: Checked

def hold(state):
    return {"one": Checked(said=["x"]), "held": [{"inside": Checked(said=["y"])}]}

holding = StateGraph(Holding).add_node("hold", hold).add_edge(START, "hold").compile()

def question(state):
    return {"said": [interrupt(Checked(said=["z"]))]}

asking = StateGraph(Holding).add_node("question", question).add_edge(START, "question").compile()

def extend(state, writes):
    block()
    return [*state, *(item for write in writes for item in write)]

class Inner(TypedDict, total=False):
    said: Annotated[list, DeltaChannel(extend)]

inner = StateGraph(Inner).add_node("one", one).add_node("ask", ask).add_edge(START, "one").add_edge("one", "ask")
nested = StateGraph(Holding).add_node("inner", inner.compile()).add_edge(START, "inner").compile()

class Known(TypedDict, total=False):
    said: Annotated[list, operator.add]
    at: datetime

def first(state):
    return {"at": datetime(2026, 1, 2, tzinfo=timezone.utc)}

def fan(state):
    return [Send("work", {"said": []}), "ask"]

knows = StateGraph(Known).add_node("first", first).add_node("work", ask).add_node("ask", ask)
knows = knows.add_edge(START, "first").add_conditional_edges("first", fan).compile()

class Blocking(LastValue):
    def get(self):
        block()
        return super().get()

class WithChannel(TypedDict, total=False):
    said: Annotated[list, Blocking]

class Bag:
    def __str__(self):
        block()
        return "bag"

class WithDefault(TypedDict, total=False):
    said: list
    bag: Annotated[Bag, operator.add]

own_default = StateGraph(WithDefault).add_node("one", one).add_edge(START, "one").compile()

own_channel = StateGraph(WithChannel).add_node("one", one).add_edge(START, "one").compile()

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
MADE = ("factory", "exits", "stops")
NAMES = ("parallel", "plain", "waiting", "holding", "asking", "nested", "knows", "own_channel", "own_default", *MADE)


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


Call: TypeAlias = Callable[[RequestGraphs], Coroutine[object, object, object]]


async def state_inside(access: RequestGraphs) -> EncodedState:
    """Read the state of the subgraph by its namespace."""
    [task] = json.loads((await access.get_state("nested", THREAD)).fields["tasks"])
    return await access.get_state("nested", THREAD, At(checkpoint_ns=task["checkpoint"]["checkpoint_ns"]))


CALLS: Mapping[str, Sequence[tuple[str, Call]]] = {
    "plain": [
        ("factory state", lambda access: access.get_state("factory", THREAD)),
        ("factory history", lambda access: access.get_history("factory", THREAD)),
        ("factory update", lambda access: access.update_state("factory", THREAD, {"said": ["x"]}, as_node="one")),
    ],
    "parallel": [
        ("state with a reducer", lambda access: access.get_state("parallel", THREAD)),
        ("update by a reducer", lambda access: access.update_state("parallel", THREAD, {"said": ["x"]}, as_node="one")),
    ],
    "waiting": [
        ("state with a validator", lambda access: access.get_state("waiting", THREAD)),
        ("history with a validator", lambda access: access.get_history("waiting", THREAD)),
        ("view with a validator", lambda access: access.view("waiting", THREAD)),
    ],
    "holding": [
        ("state with an object", lambda access: access.get_state("holding", THREAD)),
        ("history with an object", lambda access: access.get_history("holding", THREAD, limit=9)),
    ],
    "asking": [("interrupt with an object", lambda access: access.get_state("asking", THREAD))],
    "nested": [
        ("delta channel inside", lambda access: access.get_state("nested", THREAD, subgraphs=True)),
        ("delta channel of a namespace", state_inside),
    ],
    "own_channel": [("channel of a class of its own", lambda access: access.get_state("own_channel", THREAD))],
    "own_default": [
        ("state with a default of a class of its own", lambda access: access.get_state("own_default", THREAD)),
        ("history with a default of a class of its own", lambda access: access.get_history("own_default", THREAD)),
    ],
}


@pytest.mark.parametrize(
    ("graph_id", "call"),
    [pytest.param(graph_id, call, id=name) for graph_id, calls in CALLS.items() for name, call in calls],
)
async def test_code_that_blocks_delays_only_its_own_request(
    env: ExecutorEnv, access: RequestGraphs, graph_id: str, call: Call
) -> None:
    """A factory, reducer or validator that blocked stopped the whole gateway, `/ok` included."""
    await env.run(graph_id, input={"said": []})
    block_from_now_on()
    blocking = asyncio.create_task(call(access))
    await until_blocked()
    assert await access.get_history("plain", ThreadId("another")) == []
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


async def test_a_read_of_values_of_known_classes_stays_on_the_loop(env: ExecutorEnv, access: RequestGraphs) -> None:
    await env.run("knows", input={"said": []})
    before = threading.enumerate()
    state = await access.get_state("knows", THREAD)
    assert state.fields["next"] == b'["work","ask"]'
    assert state.fields["values"] == b'{"said":[],"at":"2026-01-02T00:00:00+00:00"}'
    assert set(threading.enumerate()) <= set(before)


async def test_only_what_no_code_of_users_took_part_in_is_lasting(env: ExecutorEnv, access: RequestGraphs) -> None:
    await env.run("parallel", input={"said": ["x"]})
    assert not (await access.get_state("parallel", THREAD)).lasting, "a reducer applied the write of a finished node"
    assert [one.lasting for one in await access.get_history("parallel", THREAD, limit=5)] == [True] * 2


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
