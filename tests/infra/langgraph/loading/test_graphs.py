"""Tests of the loader of graphs: every kind that langgraph.json may name, and the errors of bad ones."""

import logging
import os
from pathlib import Path

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore
from tests.infra.projects import loaded, write_project

from agentlog_facts.errors import Misconfigured
from agentlog_facts.graph_ports import GraphNotFound
from agentlog_infra.langgraph.loading.config import load_config
from agentlog_infra.langgraph.loading.graphs import Access, Graphs
from agentlog_infra.langgraph.loading.user_modules import digest

KINDS = """
from contextlib import asynccontextmanager
from typing import TypedDict
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from langgraph.store.memory import InMemoryStore
from langgraph_sdk.runtime import ServerRuntime

class State(TypedDict):
    text: str

seen = []

def builder(text):
    return StateGraph(State).add_node("n", lambda state: {"text": text}).add_edge(START, "n")

uncompiled = builder("uncompiled")
compiled = builder("compiled").compile()
own_checkpointer = builder("own").compile(checkpointer=InMemorySaver())

own_store = builder("own_store").compile(store=InMemoryStore())

def makes_own_store():
    return builder("makes_own_store").compile(store=InMemoryStore())

def takes_given_store(runtime: ServerRuntime):
    return builder("takes_given_store").compile(store=runtime.store)

class Holder:
    inner = builder("inner").compile()

@entrypoint()
async def entry(text: str) -> str:
    return text.upper()

def plain():
    return builder("plain")

def with_config(config: RunnableConfig):
    return builder(config["configurable"]["mood"]).compile()

async def with_runtime(runtime: ServerRuntime):
    seen.append(runtime.execution_runtime is not None)
    return builder(runtime.access_context)

@asynccontextmanager
async def managed(settings: RunnableConfig, runtime):
    seen.append("entered")
    yield builder("managed").compile()
    seen.append("left")

def greedy(database):
    return builder("greedy")

number = 5
"""
STORE = InMemoryStore()
READ, RUN = Access("threads.read", STORE), Access("threads.create_run", STORE)
STATE = ("uncompiled", "compiled", "Holder.inner", "plain", "managed")


def one(folder: Path, attribute: str) -> dict[str, str]:
    return {"g": f"./kinds_{folder.name}.py:{attribute}"}


def files(folder: Path) -> dict[str, str]:
    return {f"kinds_{folder.name}.py": KINDS}


async def answer(graphs: Graphs, given: object = None, access: Access = READ) -> object:
    """Execute the one graph of a project."""
    async with graphs.open("g", InMemorySaver(), access) as graph:
        config: RunnableConfig = {"configurable": {"thread_id": "1"}}
        result: object = await graph.ainvoke(given or {"text": ""}, config)
        return result


@pytest.mark.parametrize("attribute", STATE)
async def test_a_graph_of_each_kind_is_opened(tmp_path: Path, attribute: str) -> None:
    with loaded(tmp_path, files(tmp_path), one(tmp_path, attribute)) as graphs:
        assert await answer(graphs) == {"text": attribute.removeprefix("Holder.")}


async def test_an_entrypoint_is_a_graph(tmp_path: Path) -> None:
    with loaded(tmp_path, files(tmp_path), one(tmp_path, "entry")) as graphs:
        assert await answer(graphs, "loud") == "LOUD"


async def test_a_factory_sees_the_config(tmp_path: Path) -> None:
    with loaded(tmp_path, files(tmp_path), one(tmp_path, "with_config")) as graphs:
        access = Access("threads.create_run", STORE, {"configurable": {"mood": "sunny"}})
        assert await answer(graphs, access=access) == {"text": "sunny"}


@pytest.mark.parametrize(("access", "executes"), [(READ, False), (RUN, True)])
async def test_a_factory_sees_why_it_is_called(tmp_path: Path, access: Access, executes: bool) -> None:
    with loaded(tmp_path, files(tmp_path), one(tmp_path, "with_runtime")) as graphs:
        assert await answer(graphs, access=access) == {"text": access.context}


async def test_graphs_share_nothing_through_the_checkpointer(tmp_path: Path) -> None:
    with loaded(tmp_path, files(tmp_path), one(tmp_path, "compiled")) as graphs:
        first, second = InMemorySaver(), InMemorySaver()
        async with graphs.open("g", first, READ) as one_use, graphs.open("g", second, READ) as other_use:
            assert (one_use.checkpointer, other_use.checkpointer) == (first, second)


async def test_modules_of_the_same_name_stay_apart(tmp_path: Path) -> None:
    source = "from tests.infra.langgraph.loading.test_graphs import tiny\ngraph = tiny('{}')\n"
    project = {"a/same.py": source.format("a"), "b/same.py": source.format("b")}
    with loaded(tmp_path, project, {"a": "./a/same.py:graph", "b": "./b/same.py:graph"}) as graphs:
        async with graphs.open("a", None, READ) as a, graphs.open("b", None, READ) as b:
            assert (await a.ainvoke({"text": ""}), await b.ainvoke({"text": ""})) == ({"text": "a"}, {"text": "b"})


async def test_a_module_path_names_a_graph_too(tmp_path: Path) -> None:
    project = {
        "src/pack_m/__init__.py": "",
        "src/pack_m/agent.py": "from tests.infra.langgraph.loading.test_graphs import tiny\ng = tiny('m')\n",
    }
    with loaded(tmp_path, project, {"g": "pack_m.agent:g"}, dependencies=["./src"]) as graphs:
        assert await answer(graphs) == {"text": "m"}


async def test_a_file_in_a_package_may_import_its_neighbours(tmp_path: Path) -> None:
    project = {
        "pack_n/__init__.py": "",
        "pack_n/words.py": "WORD = 'n'\n",
        "pack_n/agent.py": "from tests.infra.langgraph.loading.test_graphs import tiny\n"
        "from .words import WORD\ng = tiny(WORD)\n",
    }
    with loaded(tmp_path, project, {"g": "./pack_n/agent.py:g"}) as graphs:
        assert await answer(graphs) == {"text": "n"}


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("missing", "has no attribute missing"),
        ("number", "is neither a graph nor a factory of one, but int"),
        ("own_checkpointer", r"a checkpointer of its own \(InMemorySaver\)"),
        ("greedy", "factory greedy has a parameter database; the server passes config and runtime only"),
    ],
)
def test_what_is_no_graph_is_refused(tmp_path: Path, attribute: str, message: str) -> None:
    with pytest.raises(Misconfigured, match=message), loaded(tmp_path, files(tmp_path), one(tmp_path, attribute)):
        pytest.fail("it was loaded")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import os\n\nraise KeyError('lost')\n", r"broken\w*\.py line 3: KeyError: 'lost'"),
        ("x = (\n", r"broken\w*\.py line 1: SyntaxError"),
        ("import nowhere_to_be_found\n", r"line 1: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("import sys\nsys.exit(3)\n", r"line 2: SystemExit: 3"),
    ],
)
def test_an_import_that_fails_is_explained(tmp_path: Path, source: str, message: str) -> None:
    name = f"broken_{tmp_path.name}.py"
    with pytest.raises(Misconfigured, match=message), loaded(tmp_path, {name: source}, {"g": f"./{name}:graph"}):
        pytest.fail("it was loaded")


async def test_an_unknown_graph_is_not_found(tmp_path: Path) -> None:
    with loaded(tmp_path, files(tmp_path), one(tmp_path, "compiled")) as graphs:
        with pytest.raises(GraphNotFound, match="other: not loaded; there are g"):
            async with graphs.open("other", None, READ):
                pytest.fail("it was opened")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "langgraph.json"),
        ("[]", "expected an object"),
        ("{}", "graphs: expected"),
        ('{"graphs": {"a": "agent.py"}}', "graphs.a: expected"),
        ('{"graphs": {"a": "x:y"}, "env": "none.env"}', "env: expected"),
        ('{"graphs": {"a": "x:y"}, "dependencies": [1]}', "dependencies: expected"),
    ],
)
def test_a_wrong_config_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "langgraph.json").write_text(text)
    with pytest.raises(Misconfigured, match=message):
        load_config(tmp_path / "langgraph.json")


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"langgraph\.json: cannot be read"):
        load_config(tmp_path / "langgraph.json")


@pytest.mark.parametrize(
    ("attribute", "said"), [("own_store", True), ("makes_own_store", True), ("takes_given_store", False)]
)
async def test_a_store_of_the_graph_itself_is_not_used_and_gives_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, attribute: str, said: bool
) -> None:
    with caplog.at_level(logging.WARNING), loaded(tmp_path, files(tmp_path), one(tmp_path, attribute)) as graphs:
        for access in (READ, RUN):
            async with graphs.open("g", InMemorySaver(), access) as graph:
                assert graph.store is STORE
    assert [record.message for record in caplog.records] == ["graph.own_store_unused"] * said


def test_unknown_keys_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        write_project(tmp_path, {}, {"g": "m:g"}, colour="red", env={})
    assert [record.message for record in caplog.records] == ["config.unknown_key"]


async def test_the_env_file_is_set_but_overrides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLOG_T_SET", "before")
    monkeypatch.delenv("AGENTLOG_T_NEW", raising=False)
    project = files(tmp_path) | {".env": "AGENTLOG_T_SET=after\nAGENTLOG_T_NEW='new value'\n"}
    with loaded(tmp_path, project, one(tmp_path, "compiled"), env=".env"):
        assert (os.environ["AGENTLOG_T_SET"], os.environ["AGENTLOG_T_NEW"]) == ("before", "new value")
    monkeypatch.delenv("AGENTLOG_T_NEW")


def test_the_digest_follows_the_code_and_nothing_else(tmp_path: Path) -> None:
    write_project(tmp_path, {"a.py": "x = 1\n"}, {"g": "a:g"})
    first = digest(tmp_path)
    write_project(tmp_path, {"notes.txt": "hi", ".venv/b.py": "y = 1\n"}, {"g": "a:g"})
    assert digest(tmp_path) == first
    write_project(tmp_path, {"a.py": "x = 2\n"}, {"g": "a:g"})
    assert digest(tmp_path) != first


def tiny(text: str) -> object:
    """Return a graph that answers `text`; projects of these tests import it."""
    from typing import TypedDict

    from langgraph.graph import START, StateGraph

    class State(TypedDict):
        text: str

    def node(state: State) -> State:
        return {"text": text}

    return StateGraph(State).add_node("n", node).add_edge(START, "n").compile()


async def test_a_module_may_run_coroutines_while_it_is_imported(tmp_path: Path) -> None:
    """MCP clients fetch their tools so; the server refused to start, since its own loop was running."""
    source = """
    import asyncio
    from langgraph.graph import START, StateGraph

    async def tools():
        await asyncio.sleep(0)
        return "tools"

    FETCHED = [asyncio.get_event_loop().run_until_complete(tools()), asyncio.run(tools())]
    graph = StateGraph(dict).add_node("n", lambda state: {"tools": FETCHED}).add_edge(START, "n")
    """
    with loaded(tmp_path, {"prepares_itself.py": source}, {"g": "./prepares_itself.py:graph"}) as graphs:
        async with graphs.open("g", None, Access("threads.read", InMemoryStore())) as graph:
            assert await graph.ainvoke({"tools": None}) == {"tools": ["tools", "tools"]}
