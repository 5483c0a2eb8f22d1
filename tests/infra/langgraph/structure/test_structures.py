"""Tests of drawings, schemas and subgraphs: their shapes, the thread that makes them, and what is remembered."""

import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from tests.fakes.memory_store import MemoryStore
from tests.infra.projects import loaded

from agentlog_facts.graph_ports import GraphFailed, GraphNotFound
from agentlog_facts.json_value import Json, JsonObject, as_object, load_object
from agentlog_infra.langgraph.code_loops import CodeLoops
from agentlog_infra.langgraph.loading.graphs import Graphs
from agentlog_infra.langgraph.store import LogStore
from agentlog_infra.langgraph.structure.structures import LoadedStructures

T = TypeVar("T")
SOURCE = """
import threading
from dataclasses import dataclass
from typing import Any, TypedDict

from langgraph.func import entrypoint
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel
from typing_extensions import TypedDict as NewTypedDict

class Old(TypedDict, total=False):
    said: list[str]
    inner: "Part"

class Part(TypedDict):
    count: int

class New(NewTypedDict):
    said: list[str]

class Asked(NewTypedDict):
    question: str

class Model(BaseModel):
    said: list[str] = []

class Opaque:
    pass

class Closed(NewTypedDict):
    thing: Opaque

@dataclass
class Settings:
    model: str = "small"

def say(state):
    return {"said": ["x"]}

deep = StateGraph(New).add_node("deep", say).add_edge(START, "deep").compile()
middle = StateGraph(New).add_node("inner", deep).add_edge(START, "inner").compile()
outer = StateGraph(New, context_schema=Settings, input_schema=Asked)
outer = outer.add_node("one", say).add_node("child", middle).add_edge(START, "one")
outer = outer.add_conditional_edges("one", lambda state: "child", ["child", END]).compile()
old = StateGraph(Old).add_node("say", say).add_edge(START, "say").compile()
model = StateGraph(Model).add_node("say", say).add_edge(START, "say").compile()
closed = StateGraph(Closed).add_node("say", say).add_edge(START, "say").compile()

@entrypoint()
def func(given: dict) -> str:
    return "done"

calls = []

def factory(config):
    calls.append((threading.current_thread().name, config["configurable"], config.get("tags")))
    if config["configurable"].get("fail"):
        raise ValueError("no such model")
    if config["configurable"].get("exit"):
        raise SystemExit(3)
    if config["configurable"].get("none"):
        return None
    name = config["configurable"].get("node", "say")
    return StateGraph(New).add_node(name, say).add_edge(START, name).compile()
"""
NAMES = ("outer", "old", "model", "closed", "func", "factory")
TEXTS: JsonObject = {"items": {"type": "string"}, "title": "Said", "type": "array"}


@pytest.fixture
def graphs(tmp_path: Path) -> Iterator[Graphs]:
    with loaded(tmp_path, {"mine.py": SOURCE}, {name: f"./mine.py:{name}" for name in NAMES}) as found:
        yield found


@pytest.fixture
async def structures(graphs: Graphs) -> AsyncIterator[LoadedStructures]:
    loops = CodeLoops()
    yield LoadedStructures(graphs, LogStore(MemoryStore()), loops)
    loops.close()


async def drawn(
    structures: LoadedStructures, graph_id: str, xray: bool | int = False, **configurable: Json
) -> JsonObject:
    return load_object(await structures.drawing(graph_id, {"configurable": configurable}, xray))


def ids(drawing: JsonObject) -> list[Json]:
    nodes = drawing["nodes"]
    assert isinstance(nodes, list)
    return [as_object(node)["id"] for node in nodes]


async def test_a_drawing_has_nodes_and_edges(structures: LoadedStructures) -> None:
    drawing = await drawn(structures, "outer")
    assert drawing["edges"] == [
        {"source": "__start__", "target": "one"},
        {"source": "one", "target": "__end__", "conditional": True},
        {"source": "one", "target": "child", "conditional": True},
        {"source": "child", "target": "__end__"},
    ]
    nodes = drawing["nodes"]
    assert isinstance(nodes, list)
    first = as_object(nodes[0])
    assert (first["id"], first["type"], as_object(first["data"])["name"]) == ("__start__", "runnable", "__start__")
    assert {"id": "__end__"} in nodes


@pytest.mark.parametrize(
    ("xray", "child"), [(False, "child"), (True, "child:inner:deep"), (1, "child:inner"), (2, "child:inner:deep")]
)
async def test_an_xray_shows_subgraphs_to_its_depth(structures: LoadedStructures, xray: bool | int, child: str) -> None:
    for _ in range(2):
        assert [name for name in ids(await drawn(structures, "outer", xray)) if str(name).startswith("child")] == [
            child
        ]


async def test_an_entrypoint_has_a_drawing_and_schemas(structures: LoadedStructures) -> None:
    assert "func" in ids(await drawn(structures, "func"))
    found = load_object(await structures.schemas("func", {}))
    assert as_object(found["output_schema"])["type"] == "string"
    assert found["state_schema"] == found["output_schema"]


async def test_the_schemas_of_a_graph_are_those_of_its_classes(structures: LoadedStructures) -> None:
    found = load_object(await structures.schemas("outer", {}))
    state: JsonObject = {"properties": {"said": TEXTS}, "required": ["said"], "title": "New", "type": "object"}
    settings: JsonObject = {"default": "small", "title": "Model", "type": "string"}
    assert found == {
        "graph_id": "outer",
        "input_schema": {
            "properties": {"question": {"title": "Question", "type": "string"}},
            "required": ["question"],
            "title": "Asked",
            "type": "object",
        },
        "output_schema": state,
        "state_schema": state,
        "config_schema": {"properties": {"model": settings}, "title": "Settings", "type": "object"},
        "context_schema": {"properties": {"model": settings}, "title": "Settings", "type": "object"},
    }
    plain = load_object(await structures.schemas("model", {}))
    assert (plain["config_schema"], plain["context_schema"]) == ({}, None)
    assert as_object(plain["state_schema"])["title"] == "Model"


async def test_a_typed_dict_of_typing_has_schemas_although_pydantic_refuses_it(structures: LoadedStructures) -> None:
    found = load_object(await structures.schemas("old", {}))
    for name in ("input_schema", "output_schema", "state_schema"):
        schema = as_object(found[name])
        assert as_object(schema["properties"])["said"] == TEXTS
        assert "required" not in schema
        assert as_object(as_object(schema["$defs"])["Part"])["required"] == ["count"]


async def test_a_class_without_a_json_form_has_no_schema(structures: LoadedStructures) -> None:
    found = load_object(await structures.schemas("closed", {}))
    assert (found["state_schema"], found["input_schema"]) == (None, None)


@pytest.mark.parametrize(
    ("namespace", "recurse", "names"),
    [
        (None, False, ["child"]),
        (None, True, ["child", "child|inner"]),
        ("child", False, ["child"]),
        ("child|inner", True, ["child|inner"]),
        ("nowhere", True, []),
    ],
)
async def test_subgraphs_are_told_by_namespace(
    structures: LoadedStructures, namespace: str | None, recurse: bool, names: list[str]
) -> None:
    found = load_object(await structures.subgraphs("outer", {}, namespace, recurse))
    assert list(found) == names
    assert all(as_object(as_object(one)["state_schema"])["title"] == "New" for one in found.values())


async def test_a_factory_gets_the_config_each_time_and_apart_from_the_serving_thread(
    structures: LoadedStructures, graphs: Graphs
) -> None:
    mine = sys.modules["mine"]
    settings: JsonObject = {"tags": ["x"], "configurable": {"node": "first", "api_key": "***"}}
    assert "first" in ids(load_object(await structures.drawing("factory", settings, False)))
    assert "second" in ids(await drawn(structures, "factory", node="second"))
    assert len(mine.calls) == 2
    name, configurable, tags = mine.calls[0]
    assert (name != threading.current_thread().name, tags) == (True, ["x"])
    assert configurable == {"node": "first", "__is_for_execution__": False}


@pytest.mark.parametrize(
    ("why", "text"), [("fail", "ValueError.*no such model"), ("exit", "SystemExit"), ("none", "neither a graph")]
)
async def test_a_factory_that_fails_is_told_with_its_reason(structures: LoadedStructures, why: str, text: str) -> None:
    with pytest.raises(GraphFailed, match=text):
        await drawn(structures, "factory", **{why: True})
    assert "say" in ids(await drawn(structures, "factory"))


async def test_an_unknown_graph_is_not_found(structures: LoadedStructures) -> None:
    with pytest.raises(GraphNotFound):
        await structures.schemas("nowhere", {})


class CountedRunner:
    """Runs code where it is called, and counts the calls."""

    def __init__(self) -> None:
        self.calls = 0

    async def run(self, make: Callable[[], Coroutine[object, object, T]]) -> T:
        self.calls += 1
        return await make()


async def test_what_no_factory_makes_is_remembered_within_a_bound(graphs: Graphs) -> None:
    runner = CountedRunner()
    structures = LoadedStructures(graphs, LogStore(MemoryStore()), runner, cache_bytes=1)
    first = await structures.schemas("outer", {})
    assert (await structures.schemas("outer", {}), runner.calls) == (first, 1)
    await structures.schemas("model", {})  # drops the other one: together they exceed the bound
    await structures.schemas("outer", {})
    assert runner.calls == 3
