"""Tests of the frames of each stream mode: they equal what LangGraph itself streams, in its order."""

import asyncio
import copy
import importlib
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from tests.infra.langgraph.executor_env import API_URL, ExecutorEnv
from tests.infra.projects import loaded

from agentlog_facts.configurable import CHECKPOINT_KEYS, NODE_METADATA
from agentlog_facts.frame import Frame
from agentlog_facts.json_value import Json, JsonObject, as_object, dump
from agentlog_infra.langgraph.loading.graphs import Graph, Graphs
from agentlog_infra.langgraph.run_config import MODES, run_config
from agentlog_infra.langgraph.value_json import to_json

SOURCE = """
import asyncio
import operator
from typing import Annotated, TypedDict
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt

class State(TypedDict):
    said: Annotated[list[str], operator.add]

def say(word):
    def node(state):
        get_stream_writer()({"about": word})
        return {"said": [word]}
    return node

def chain(*words):
    builder = StateGraph(State)
    for before, word in zip((START, *words), words):
        builder.add_node(word, say(word))
        builder.add_edge(before, word)
    return builder

steps = chain("a", "b").compile()

def ask(state):
    return {"said": [interrupt("who?")]}

asking = chain("a").add_node("ask", ask).add_edge("a", "ask").compile()
nested = StateGraph(State).add_node("sub", asking).add_node("last", say("z"))
nested = nested.add_edge(START, "sub").add_edge("sub", "last").compile()
inner = StateGraph(State).add_node("sub", steps).add_edge(START, "sub").compile()
deep = StateGraph(State).add_node("outer", inner).add_edge(START, "outer").compile()

class Custom(Exception):
    pass

async def fail(state):
    raise Custom("secret")

failing = chain("a").add_node("fail", fail).add_edge("a", "fail").compile()

class Thinking(GenericFakeChatModel):
    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        parts = [
            AIMessageChunk("", tool_call_chunks=[{"name": "add", "args": "", "id": "c1", "index": 0}]),
            AIMessageChunk("", tool_call_chunks=[{"name": None, "args": '{"one": 1, ', "id": None, "index": 0}]),
            AIMessageChunk("", tool_call_chunks=[{"name": None, "args": '"two": 2}', "id": None, "index": 0}]),
        ]
        for part in parts:
            yield ChatGenerationChunk(message=part)

async def think(state):
    call = AIMessage("", id="w", tool_calls=[{"name": "add", "args": {"one": 1, "two": 2}, "id": "c1"}])
    return {"messages": [await Thinking(messages=iter([call])).ainvoke(state["messages"])]}

@tool
def add(one: int, two: int) -> str:
    "Add two numbers."
    return str(one + two)

async def answer(state):
    model = GenericFakeChatModel(messages=iter([AIMessage("it is three")]))
    return {"messages": [await model.ainvoke(state["messages"])]}

def greet(state):
    return {"messages": [AIMessage("hello", id="g")]}

calling = StateGraph(MessagesState).add_node(greet).add_node(think).add_node("tools", ToolNode([add])).add_node(answer)
calling = calling.add_edge(START, "greet").add_edge("greet", "think").add_edge("think", "tools")
calling = calling.add_edge("tools", "answer").compile()

team = StateGraph(MessagesState).add_node("member", calling).add_edge(START, "member").compile()

@tool
def break_down(one: int) -> str:
    "Break."
    raise Custom("secret")

@tool
def refuse(one: int) -> str:
    "Refuse."
    raise ValueError("a reason")

def broken(name):
    call = AIMessage("", id="t", tool_calls=[{"name": name, "args": {"one": 1}, "id": "c2"}])
    node = ToolNode([break_down, refuse], handle_tool_errors=False)
    builder = StateGraph(MessagesState).add_node("call", lambda state: {"messages": [call]}).add_node("tools", node)
    return builder.add_edge(START, "call").add_edge("call", "tools").compile()

breaking, refusing = broken("break_down"), broken("refuse")

@task
async def double(number: int) -> int:
    return number * 2

@entrypoint()
async def doubled(number: int) -> int:
    return await double(number)
"""
NAMES = ("steps", "asking", "nested", "deep", "failing", "calling", "team", "breaking", "refusing", "doubled")
SAID: Json = {"said": ["x"]}
ASKED: Json = {"messages": [{"role": "human", "content": "1 and 2?", "id": "h"}]}
ALL = ["values", "updates", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "tools"]
ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b")
TIME = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)?")


@pytest.fixture
def graphs(tmp_path: Path) -> Iterator[Graphs]:
    names = {name: f"./modes_project.py:{name}" for name in NAMES}
    with loaded(tmp_path, {"modes_project.py": SOURCE}, names) as found:
        yield found


@pytest.fixture
async def env(graphs: Graphs) -> ExecutorEnv:
    return ExecutorEnv(graphs)


class OwnStream:
    """LangGraph's own stream of a graph, over its saver in memory, with the config of the run."""

    def __init__(self, env: ExecutorEnv, graph_id: str) -> None:
        found: Graph = vars(importlib.import_module("modes_project"))[graph_id]
        self._graph = copy.copy(found)
        self._graph.checkpointer = InMemorySaver()
        self._env = env
        self._graph_id = graph_id

    async def items(self, given: Json | Command[str], asked: list[str], *, subgraphs: bool, run: int = 1) -> list[Json]:
        """Return [mode, namespace, data] of each item."""
        config = run_config(self._env.order(self._graph_id, run, 1, {}), from_checkpoint=True, api_url=API_URL)
        stream = (
            self._graph.astream(
                given, config, stream_mode=[MODES[mode] for mode in asked], subgraphs=True, durability="sync"
            )
            if subgraphs
            else self._graph.astream(given, config, stream_mode=[MODES[mode] for mode in asked], durability="sync")
        )
        found: list[Json] = []
        async for item in stream:
            *ns, mode, data = item
            found.append([mode, "|".join(ns[0] if ns else ()), to_json(data, 150)])
        return found

    async def events(self, given: Json, asked: list[str]) -> list[Json]:
        """Return the events of `astream_events`."""
        config = run_config(self._env.order(self._graph_id, 1, 1, {}), from_checkpoint=True, api_url=API_URL)
        modes = [MODES[mode] for mode in asked] or None
        stream = self._graph.astream_events(given, config, version="v2", stream_mode=modes, durability="sync")
        return [to_json(event, 150) async for event in stream]


def frames_of(frames: list[Frame]) -> list[Json]:
    """Return [event, namespace, data] of each frame, without what only the API adds to a debug frame."""
    found: list[Json] = []
    for frame in frames:
        data = copy.copy(frame.data)
        if frame.event == "debug" and isinstance(data, dict) and data["type"] == "checkpoint":
            payload = as_object(data["payload"])
            shown: JsonObject = {name: payload[name] for name in payload if not name.endswith("checkpoint")}
            data["payload"] = shown
        found.append([frame.event, frame.ns, data])
    return found


def without_place(item: Json) -> Json:
    """Return an item without what our saver adds to the metadata of a subgraph's checkpoint: its place in the graph."""
    if isinstance(item, list):
        return [without_place(one) for one in item]
    if not isinstance(item, dict):
        return item
    shown: JsonObject = {name: without_place(one) for name, one in item.items()}
    metadata = shown.get("metadata")
    if "parent_config" in shown and isinstance(metadata, dict):
        place = {*NODE_METADATA, *CHECKPOINT_KEYS}
        shown["metadata"] = {name: one for name, one in metadata.items() if name not in place}
    return shown


def plain(items: list[Json]) -> list[bytes]:
    """Return items with every id and time replaced by the number of its first occurrence."""
    known: dict[bytes, int] = {}
    shown = [TIME.sub(b"T", dump(item)) for item in items]
    return [ID.sub(lambda found: b"<%d>" % known.setdefault(found[0], len(known)), one) for one in shown]


@pytest.mark.parametrize("subgraphs", [False, True])
@pytest.mark.parametrize(
    ("graph_id", "given"),
    [("steps", SAID), ("nested", SAID), ("deep", SAID), ("calling", ASKED), ("team", ASKED), ("doubled", 4)],
)
async def test_all_modes_are_those_of_langgraph_in_its_order(
    env: ExecutorEnv, graph_id: str, given: Json, subgraphs: bool
) -> None:
    await env.run(graph_id, input=given, stream_mode=[*ALL], subgraphs=subgraphs)
    own = await OwnStream(env, graph_id).items(given, ALL, subgraphs=subgraphs)
    assert plain(frames_of(env.frames)) == plain(own)
    assert len(own) > 5


@pytest.mark.parametrize("mode", ALL)
async def test_each_mode_alone_is_that_of_langgraph(env: ExecutorEnv, mode: str) -> None:
    await env.run("calling", input=ASKED, stream_mode=[mode])
    own = await OwnStream(env, "calling").items(ASKED, [mode], subgraphs=False)
    assert plain(frames_of(env.frames)) == plain(own)
    assert own or mode == "custom"


async def test_an_answered_interrupt_streams_what_langgraph_streams(env: ExecutorEnv) -> None:
    own = OwnStream(env, "nested")
    await env.run("nested", input=SAID, stream_mode=[*ALL], subgraphs=True)
    expected = await own.items(SAID, ALL, subgraphs=True)
    await env.run("nested", run=2, command={"resume": "me"}, stream_mode=[*ALL], subgraphs=True)
    expected += await own.items(Command(resume="me"), ALL, subgraphs=True, run=2)
    assert plain([without_place(one) for one in frames_of(env.frames)]) == plain(expected)


async def test_events_are_those_of_langchain(env: ExecutorEnv) -> None:
    await env.run("calling", input=ASKED, stream_mode=["events"])
    own = await OwnStream(env, "calling").events(ASKED, [])
    assert {frame.event for frame in env.frames} == {"events"}
    assert plain([frame.data for frame in env.frames]) == plain(own)
    assert {"on_chain_start", "on_chat_model_stream", "on_tool_end", "on_chain_end"} <= {
        str(as_object(event)["event"]) for event in own
    }


async def test_events_interleave_with_other_modes(env: ExecutorEnv) -> None:
    await env.run("team", input=ASKED, stream_mode=["events", "values", "messages-tuple", "tasks"])
    own = await OwnStream(env, "team").events(ASKED, ["values", "messages-tuple", "tasks"])
    assert plain(env.of("events")) == plain(own)
    brought: list[Json] = []
    for event in own:
        chunk = as_object(as_object(event)["data"]).get("chunk")
        if as_object(event)["event"] == "on_chain_stream" and isinstance(chunk, list) and len(chunk) == 2:
            brought.append([chunk[0], "", chunk[1]])
    others = [frame for frame in env.frames if frame.event != "events"]
    assert plain(frames_of(others)) == plain(brought)
    assert {frame.event for frame in others} == {"values", "messages", "tasks"}


async def test_a_run_with_events_that_is_stopped_ends_as_interrupted(env: ExecutorEnv) -> None:
    env.stop.set()
    outcome = await env.run("steps", input=SAID, stream_mode=["events"])
    assert outcome.status == "interrupted"


async def test_a_run_leaves_no_task_behind(env: ExecutorEnv) -> None:
    before = asyncio.all_tasks()
    await env.run("steps", input=SAID)
    left = asyncio.all_tasks() - before
    assert not [task for task in left if task.get_name() == "run_stop"]


async def test_messages_are_accumulated(env: ExecutorEnv) -> None:
    await env.run("calling", input=ASKED, stream_mode=["messages"])
    told = [(frame.event, frame.data) for frame in env.frames]
    assert {frame.ns for frame in env.frames} == {""}
    events = [event for event, _ in told]
    assert events[:2] == ["messages/metadata", "messages/complete"]
    metadata = as_object(told[0][1])
    assert as_object(as_object(metadata["g"])["metadata"])["langgraph_node"] == "greet"
    partial = [as_object(data[0]) for event, data in told if event == "messages/partial" and isinstance(data, list)]
    thought = [message for message in partial if message["tool_calls"]]
    args = [
        [as_object(call)["args"] for call in calls] for one in thought if isinstance(calls := one["tool_calls"], list)
    ]
    assert args[:3] == [[{}], [{"one": 1}], [{"one": 1, "two": 2}]]
    texts = [message["content"] for message in partial if message["content"]]
    assert texts[:5] == ["it", "it ", "it is", "it is ", "it is three"]
    assert {str(message["type"]) for message in partial} == {"ai"}
    complete = [as_object(data[0]) for event, data in told if event == "messages/complete" and isinstance(data, list)]
    assert [message["type"] for message in complete] == ["ai", "tool"]
    assert events.count("messages/metadata") == 4
    assert "1 and 2?" not in dump([data for _, data in told]).decode()


async def test_whole_messages_of_subgraphs_have_no_namespace(env: ExecutorEnv) -> None:
    await env.run("team", input=ASKED, stream_mode=["messages"], subgraphs=True)
    assert {(frame.event, frame.ns) for frame in env.frames} == {
        ("messages/metadata", ""),
        ("messages/partial", ""),
        ("messages/complete", ""),
    }


async def test_tuples_replace_whole_messages(env: ExecutorEnv) -> None:
    await env.run("calling", input=ASKED, stream_mode=["messages", "messages-tuple"])
    assert {frame.event for frame in env.frames} == {"messages"}


@pytest.mark.parametrize("mode", ["tasks", "debug"])
async def test_an_error_of_a_task_is_masked(env: ExecutorEnv, mode: str) -> None:
    await env.run("failing", input=SAID, stream_mode=[mode, "events"])
    last = as_object(env.of(mode)[-1])
    error = as_object(last.get("payload", last))["error"]
    assert error == {"error": "Custom", "message": "An internal error occurred"}
    assert b"secret" not in dump([frame.data for frame in env.frames])


@pytest.mark.parametrize("mode", ["checkpoints", "debug"])
async def test_an_error_of_an_earlier_run_is_masked_when_the_task_is_described_again(
    env: ExecutorEnv, mode: str
) -> None:
    await env.run("failing", input=SAID)
    env.frames.clear()
    await env.run("failing", run=2, stream_mode=[mode, "events"])
    described = [as_object(as_object(one).get("payload", one)) for one in env.of(mode)]
    tasks = [task for one in described if isinstance(tasks := one.get("tasks"), list) for task in map(as_object, tasks)]
    assert {"error": "Custom", "message": "An internal error occurred"} in [task.get("error") for task in tasks]
    assert b"secret" not in dump([frame.data for frame in env.frames])


@pytest.mark.parametrize(
    ("graph_id", "message"), [("breaking", "An internal error occurred"), ("refusing", "a reason")]
)
async def test_an_error_of_a_tool_is_masked_by_its_class(env: ExecutorEnv, graph_id: str, message: str) -> None:
    await env.run(graph_id, input={"messages": []}, stream_mode=["tools", "events"])
    [error] = [one for one in map(as_object, env.of("tools")) if one["event"] == "tool-error"]
    assert error["message"] == message
    assert b"secret" not in dump([frame.data for frame in env.frames])


async def test_debug_names_the_checkpoints(env: ExecutorEnv) -> None:
    await env.run("steps", input=SAID, stream_mode=["debug"])
    shown = [as_object(as_object(one)["payload"]) for one in env.of("debug") if as_object(one)["type"] == "checkpoint"]
    assert shown[0]["parent_checkpoint"] is None
    for before, after in pairwise(shown):
        assert after["parent_checkpoint"] == before["checkpoint"]
        assert set(as_object(after["checkpoint"])) == {"checkpoint_id", "thread_id", "checkpoint_ns"}


async def test_the_config_of_a_checkpoint_has_no_key_of_the_server(env: ExecutorEnv) -> None:
    hidden: JsonObject = {"__request_start_time_ms__": 1, "langgraph_auth_user": {"token": "secret"}, "mood": "good"}
    await env.run("steps", input=SAID, stream_mode=["checkpoints"], config={"configurable": hidden})
    for shown in env.of("checkpoints"):
        configurable = as_object(as_object(as_object(shown)["config"])["configurable"])
        assert configurable["mood"] == "good"
        assert not {name for name in configurable if name.startswith(("__", "langgraph_auth"))}
