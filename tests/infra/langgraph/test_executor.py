"""Tests of one attempt of a run: its stream, its facts on the log, and the attempt after it."""

import asyncio
import importlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.infra.langgraph.executor_env import SECRETS, THREAD, ExecutorEnv, order_id
from tests.infra.langgraph.memory_checkpoints import SlowLog
from tests.infra.projects import loaded

from agentlog_facts.checkpoint import CheckpointSaved
from agentlog_facts.checkpoint_ports import StoredWrite, find_latest
from agentlog_facts.execution_port import AttemptLost, RunOutcome
from agentlog_facts.graph_ports import ROOT, GraphFailed, unrooted
from agentlog_facts.ids import RunId
from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_facts.secret_values import MASK, SecretKeys, Secrets
from agentlog_facts.thread import RunCreated
from agentlog_facts.vocabulary import encode_commit, encode_facts
from agentlog_infra.aes_cipher import AesGcmCipher
from agentlog_infra.langgraph.loading.graphs import Graphs
from agentlog_infra.langgraph.run_config import run_config

SOURCE = """
import asyncio
import operator
import threading
from dataclasses import dataclass
from typing import Annotated, TypedDict
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.graph import MessagesState
from pydantic import BaseModel, Field
from langgraph.runtime import Runtime
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from langgraph.config import get_store, get_stream_writer

class State(TypedDict):
    said: Annotated[list[str], operator.add]

calls = []
waiting = asyncio.Event()

def say(word):
    def node(state):
        calls.append(word)
        return {"said": [word]}
    return node

def chain(*words):
    builder = StateGraph(State)
    for before, word in zip((START, *words), words):
        builder.add_node(word, say(word))
        builder.add_edge(before, word)
    return builder

steps = chain("a", "b", "c").compile()

def ask(state):
    calls.append("ask")
    return {"said": [interrupt("who?"), interrupt("really?")]}

asking = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").compile()

def fail(state):
    raise ZeroDivisionError("secret")

failing = chain("a").add_node("fail", fail).add_edge("a", "fail").compile()

async def block(state):
    waiting.set()
    await asyncio.Event().wait()

blocking = chain("a").add_node("block", block).add_edge("a", "block").compile()

free = asyncio.Event()

async def defy(state):
    waiting.set()
    while not free.is_set():
        try:
            await free.wait()
        except asyncio.CancelledError:
            calls.append("defied")
    calls.append("went")

defying = StateGraph(State).add_node("defy", defy).add_edge(START, "defy").compile()

def call_sub(state):
    get_stream_writer()({"in": "sub"})
    return steps.invoke({"said": []})

nested = StateGraph(State).add_node("outer", call_sub).add_edge(START, "outer").compile()
sub_as_node = StateGraph(State).add_node("sub", asking).add_edge(START, "sub").compile()

in_thread, go_on, ended = threading.Event(), threading.Event(), threading.Event()

def linger(state):
    in_thread.set()
    go_on.wait(30)
    try:
        return steps.invoke({"said": []})
    except Exception as error:
        calls.append(type(error).__name__)
    finally:
        ended.set()

lingering = chain("a").add_node("linger", linger).add_edge("a", "linger").compile()

def keep(state):
    store = get_store()
    store.put(("kept",), "before", {})
    in_thread.set()
    go_on.wait(30)
    try:
        store.put(("kept",), "after", {})
    except Exception as error:
        calls.append(type(error).__name__)
    finally:
        ended.set()

keeping = StateGraph(State).add_node("keep", keep).add_edge(START, "keep").compile()

inner = chain("a", "b", "c").compile(interrupt_before=["b"], interrupt_after=["b"])
stops_inside = StateGraph(State).add_node("sub", inner).add_edge(START, "sub").compile()

def first(state):
    return {"said": [interrupt("first?")]}

def second(state):
    return {"said": [interrupt("second?")]}

def unstorable(state):
    return {"said": [threading.Lock()]}

bad = chain("a").add_node("bad", unstorable).add_edge("a", "bad").compile()

async def cancelled_factory(config):
    raise asyncio.CancelledError("a library's own")

def exiting_factory(config):
    raise SystemExit(3)

@entrypoint()
async def echo(text: str, *, previous: str | None = None) -> str:
    return (previous or "") + text

class Named(TypedDict):
    name: str
    other: int

named = StateGraph(Named).add_node("only", lambda state: {}).add_edge(START, "only").compile()

@dataclass
class Context:
    model: str = "small"

class Said(TypedDict, total=False):
    context: str
    config: str
    user: str

def show(state, runtime: Runtime, config):
    conf = config["configurable"]
    return {"context": repr(runtime.context), "config": str(conf.get("model")), "user": str(conf.get("user_id"))}

def shown(schema=None):
    return StateGraph(Said, context_schema=schema).add_node("show", show).add_edge(START, "show").compile()

class Model(BaseModel):
    model: str = Field("small", alias="name")

class Keyed(TypedDict):
    model: str

@dataclass
class Needing:
    model: str

seen = []

def made(config):
    seen.append(config["configurable"].get("user_id"))
    return shown()

contexts = {
    "data": shown(Context), "model": shown(Model), "keyed": shown(Keyed), "needing": shown(Needing), "unnamed": shown()
}
data, model, keyed, needing, unnamed = contexts.values()

class Asked(TypedDict):
    question: str

class Answered(TypedDict):
    answer: str

class Everything(TypedDict, total=False):
    question: str
    answer: str
    secret: str

class Private(TypedDict):
    thought: str

def think(state: Everything) -> Private:
    return {"thought": "private", "secret": "prompt"}

def answer(state: Private):
    return {"answer": "42" if state["thought"] == "private" else "no"}

def answered(output=None):
    builder = StateGraph(Everything, input_schema=Asked, output_schema=output or Everything)
    return builder.add_node(think).add_node(answer).add_edge(START, "think").add_edge("think", "answer").compile()

hiding, private = answered(Answered), answered()

def hidden_by_factory():
    return hiding

async def speak(state):
    model = GenericFakeChatModel(messages=iter([AIMessage("inner thoughts", id="m")]))
    return {"messages": [await model.ainvoke("q")]}

speaker = StateGraph(MessagesState).add_node(speak).add_edge(START, "speak").compile()

async def call_speaker(state):
    await speaker.ainvoke({"messages": []})
    return {"messages": [AIMessage("the answer", id="a")]}

calling = StateGraph(MessagesState).add_node("call", call_speaker).add_edge(START, "call").compile()
speaking = StateGraph(MessagesState).add_node("child", speaker).add_edge(START, "child").compile()

def nameless(state):
    return {"messages": [AIMessage("no id")]}

without_id = StateGraph(MessagesState).add_node(nameless).add_edge(START, "nameless").compile()

async def leak(state, config):
    key = config["configurable"]["api_key"]
    calls.append(key)
    model = GenericFakeChatModel(messages=iter([AIMessage("tokens")]), metadata={"api_key": key, "header": key})
    await model.ainvoke("q")
    raise ValueError(f"{key} was refused")

leaking = StateGraph(MessagesState).add_node(leak).add_edge(START, "leak").compile()

def leaking_factory(config):
    raise ValueError("no client for " + config["configurable"]["api_key"])

two = StateGraph(State).add_node("first", first).add_node("second", second)
two = two.add_edge(START, "first").add_edge("first", "second").compile()
sub_of_two = StateGraph(State).add_node("sub", two).add_edge(START, "sub").compile()

both = StateGraph(State).add_node("first", first).add_node("second", second)
both = both.add_edge(START, "first").add_edge(START, "second").compile()
"""
NAMES = (
    "steps",
    "asking",
    "both",
    "failing",
    "blocking",
    "defying",
    "nested",
    "lingering",
    "keeping",
    "sub_as_node",
    "sub_of_two",
    "stops_inside",
    "echo",
    "bad",
    "named",
    "cancelled_factory",
    "exiting_factory",
    "data",
    "model",
    "keyed",
    "needing",
    "unnamed",
    "made",
    "hiding",
    "private",
    "hidden_by_factory",
    "calling",
    "speaking",
    "without_id",
    "leaking",
    "leaking_factory",
)


@pytest.fixture
def graphs(tmp_path: Path) -> Iterator[Graphs]:
    with loaded(tmp_path, {"runs_project.py": SOURCE}, {name: f"./runs_project.py:{name}" for name in NAMES}) as found:
        yield found


@pytest.fixture
async def env(graphs: Graphs) -> ExecutorEnv:
    return ExecutorEnv(graphs)


def calls() -> list[str]:
    """Return the nodes that ran, from the list in the project's module."""
    found: list[str] = vars(importlib.import_module("runs_project"))["calls"]
    return found


def waits() -> bool:
    """Return whether the blocking node runs."""
    waiting: asyncio.Event = vars(importlib.import_module("runs_project"))["waiting"]
    return waiting.is_set()


async def entered() -> None:
    """Wait until the blocking node runs."""
    waiting: asyncio.Event = vars(importlib.import_module("runs_project"))["waiting"]
    await waiting.wait()


def freed() -> asyncio.Event:
    """Return the event for which the node that ignores its cancel waits."""
    free: asyncio.Event = vars(importlib.import_module("runs_project"))["free"]
    return free


async def signalled(name: str) -> None:
    """Wait for an event that a node sets in another thread."""
    event: threading.Event = vars(importlib.import_module("runs_project"))[name]
    assert await asyncio.to_thread(event.wait, 10)


def let_go_on() -> None:
    """Release the node that blocks its thread."""
    event: threading.Event = vars(importlib.import_module("runs_project"))["go_on"]
    event.set()


def question(outcome: RunOutcome) -> Json:
    """Return the value of the only open interrupt."""
    [found] = outcome.interrupts.values()
    assert isinstance(found, list)
    [shown] = found
    return as_object(shown)["value"]


async def test_a_run_streams_its_modes_and_ends_with_the_state(env: ExecutorEnv) -> None:
    outcome = await env.run("steps", input={"said": ["x"]}, stream_mode=["values", "updates"])
    assert (outcome.status, outcome.error, outcome.next) == ("success", None, ())
    assert outcome.values == {"said": ["x", "a", "b", "c"]}
    assert env.of("values") == [{"said": ["x", *"abc"[:n]]} for n in range(4)]
    assert env.of("updates") == [{word: {"said": [word]}} for word in "abc"]


async def test_commits_demand_consecutive_versions_under_the_epoch(env: ExecutorEnv) -> None:
    outcome = await env.run("steps", input={"said": []}, durability="sync")
    demands = [next(iter(draft.demands.values())) for draft in env.log.drafts]
    assert demands == ["absent", *range(len(demands) - 1)]
    assert {draft.epoch for draft in env.log.drafts} == {11}
    assert outcome.run_version == len(demands) - 1


async def test_a_list_that_grew_is_stored_by_its_new_items(env: ExecutorEnv) -> None:
    await env.run("steps", input={"said": ["x"]})
    saved = [fact for draft in env.log.drafts for fact in draft.facts if isinstance(fact, CheckpointSaved)]
    entries = [entry for fact in saved for entry in fact.channels if isinstance(entry, dict)]
    said = [entry for entry in entries if entry["channel"] == "said"]
    assert [entry["kind"] for entry in said] == ["full", "append", "append", "append"]
    assert [entry.get("items") for entry in said[1:]] == [["a"], ["b"], ["c"]]


async def test_the_next_run_continues_the_thread(env: ExecutorEnv) -> None:
    await env.run("steps", input={"said": ["x"]})
    outcome = await env.run("steps", run=2, input={"said": ["y"]})
    assert outcome.values == {"said": ["x", "a", "b", "c", "y", "a", "b", "c"]}


async def test_the_first_run_of_a_thread_reads_no_checkpoints_of_it(env: ExecutorEnv) -> None:
    first = await env.run("steps", input={"said": ["go"]})
    assert first.values == {"said": ["go", "a", "b", "c"]}
    assert env.reads.queries == []
    second = await env.run("steps", run=2, input={"said": ["again"]})
    assert second.values == {"said": ["go", "a", "b", "c", "again", "a", "b", "c"]}
    assert env.reads.queries != []


async def test_an_interrupt_waits_for_its_answers(env: ExecutorEnv) -> None:
    first = await env.run("asking", input={"said": []}, stream_mode=["values", "updates"])
    assert (first.status, first.next) == ("success", ("ask",))
    assert question(first) == "who?"
    second = await env.run("asking", run=2, command={"resume": "ann"})
    assert second.next == ("ask",)
    third = await env.run("asking", run=3, command={"resume": "yes"})
    assert (third.values, third.interrupts, third.next) == ({"said": ["ann", "yes"]}, {}, ())


async def test_a_resume_that_was_cut_off_counts_once(env: ExecutorEnv) -> None:
    await env.run("asking", input={"said": []})
    await env.run("asking", run=2, command={"resume": "ann"})
    assert any(write.run_id == order_id(2) for write in await writes(env))  # the answer lies on the log already
    again = await env.run("asking", run=2, attempt=2, command={"resume": "ann"})
    assert question(again) == "really?"


async def test_an_answer_that_a_subgraph_used_up_counts_once(env: ExecutorEnv) -> None:
    await env.run("sub_of_two", input={"said": []})
    cut_off = await env.run("sub_of_two", run=2, command={"resume": "a"})
    assert question(cut_off) == "second?"
    again = await env.run("sub_of_two", run=2, attempt=2, command={"resume": "a"})
    assert question(again) == "second?"
    last = await env.run("sub_of_two", run=3, command={"resume": "b"})
    assert last.values == {"said": ["a", "b"]}


async def test_an_update_that_was_cut_off_counts_once(env: ExecutorEnv) -> None:
    await env.run("asking", input={"said": []})
    command: JsonObject = {"resume": "ann", "update": {"said": ["noted"]}}
    await env.run("asking", run=2, command=command)
    await env.run("asking", run=2, attempt=2, command=command)
    last = await env.run("asking", run=3, command={"resume": "yes"})
    assert last.values == {"said": ["noted", "ann", "yes"]}


async def test_an_error_is_an_outcome_and_shows_no_secret(env: ExecutorEnv) -> None:
    outcome = await env.run("failing", input={"said": []})
    assert outcome.status == "error"
    assert outcome.error == {"error": "ZeroDivisionError", "message": "An internal error occurred"}
    assert (outcome.values, outcome.next) == ({"said": ["a"]}, ("fail",))


@pytest.mark.parametrize("command", [None, {}, {"resume": None}])
async def test_no_input_on_a_new_thread_is_an_error(env: ExecutorEnv, command: JsonObject | None) -> None:
    outcome = await env.run("steps", input=None, command=command)
    assert outcome.error is not None
    assert outcome.error["error"] == "EmptyInputError"
    assert outcome.values is None


async def test_a_second_attempt_continues_after_the_last_checkpoint(env: ExecutorEnv) -> None:
    await env.run("steps", input={"said": ["x"]}, durability="sync")
    env.forget_after(3)  # input, first step, a
    calls().clear()
    outcome = await env.run("steps", attempt=2, input={"said": ["x"]})
    assert outcome.values == {"said": ["x", "a", "b", "c"]}
    assert "a" not in calls()


async def test_a_second_attempt_without_a_checkpoint_starts_with_the_input(env: ExecutorEnv) -> None:
    outcome = await env.run("steps", attempt=2, input={"said": ["x"]})
    assert outcome.values == {"said": ["x", "a", "b", "c"]}


@pytest.mark.parametrize(("key", "nodes"), [("interrupt_before", ["b"]), ("interrupt_after", ["a"])])
async def test_a_second_attempt_does_not_pass_the_point_where_the_run_had_to_stop(
    env: ExecutorEnv, key: str, nodes: list[Json]
) -> None:
    before, after = (nodes, None) if key == "interrupt_before" else (None, nodes)
    first = await env.run("steps", input={"said": []}, interrupt_before=before, interrupt_after=after)
    calls().clear()
    again = await env.run("steps", attempt=2, input={"said": []}, interrupt_before=before, interrupt_after=after)
    assert calls() == []
    assert again == replace(first, checkpoint_id=again.checkpoint_id)
    assert (again.status, again.next) == ("success", ("b",))
    last = await env.run("steps", run=2, input=None, interrupt_before=before, interrupt_after=after)
    assert last.values == {"said": ["a", "b", "c"]}


async def test_a_second_attempt_does_not_pass_a_breakpoint_inside_a_subgraph(env: ExecutorEnv) -> None:
    first = await env.run("stops_inside", input={"said": []})
    again = await env.run("stops_inside", attempt=2, input={"said": []})
    assert calls() == ["a"]
    assert again == replace(first, checkpoint_id=again.checkpoint_id)
    assert (again.status, again.next) == ("success", ("sub",))
    for attempt in (1, 2):  # a human agreed; then the next breakpoint holds
        second = await env.run("stops_inside", run=2, attempt=attempt, input=None)
        assert (calls(), second.next) == (["a", "b"], ("sub",))
    last = await env.run("stops_inside", run=3, input=None)
    assert (calls(), last.next) == (["a", "b", "c"], ())
    assert last.values == {"said": ["a", "b", "c"]}


@pytest.mark.parametrize("mode", ["updates", "events"])
@pytest.mark.parametrize("durability", ["async", "exit"])
async def test_a_run_that_is_stopped_ends_as_interrupted(env: ExecutorEnv, mode: str, durability: str) -> None:
    work = asyncio.create_task(env.run("blocking", input={"said": []}, stream_mode=[mode], durability=durability))
    await entered()
    env.stop.set()
    outcome = await work
    assert (outcome.status, outcome.values, outcome.next) == ("interrupted", {"said": ["a"]}, ("block",))


@pytest.mark.parametrize("durability", ["async", "sync"])
async def test_a_thread_that_goes_on_after_the_outcome_writes_nothing(env: ExecutorEnv, durability: str) -> None:
    work = asyncio.create_task(env.run("lingering", input={"said": []}, durability=durability))
    await signalled("in_thread")
    env.stop.set()
    outcome = await work
    saved = len(env.log.drafts)
    let_go_on()
    await signalled("ended")
    assert (len(env.log.drafts), outcome.run_version) == (saved, saved - 1)
    assert calls() == ["a", "AttemptLost"]


@pytest.mark.parametrize("drained", [False, True])
async def test_a_thread_that_goes_on_after_its_run_puts_no_more_items(env: ExecutorEnv, drained: bool) -> None:
    work = asyncio.create_task(env.run("keeping", input={"said": []}))
    await signalled("in_thread")
    env.stop.set()
    if drained:
        work.cancel()
    await asyncio.wait({work})
    let_go_on()
    await signalled("ended")
    assert await env.store.item(("kept",), "before") is not None
    assert await env.store.item(("kept",), "after") is None
    assert calls() == ["AttemptLost"]


@pytest.mark.parametrize("mode", ["values", "events"])
async def test_a_drained_run_leaves_nothing_running(env: ExecutorEnv, mode: str) -> None:
    work = asyncio.create_task(env.run("blocking", input={"said": []}, stream_mode=[mode]))
    await entered()
    env.stop.set()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    latest = await find_latest(env.reads, THREAD, "")
    assert latest is not None
    assert latest.channels["said"].items == ("a",)  # the step that was finished is on the log


@pytest.mark.parametrize("mode", ["values", "events"])
async def test_a_drained_run_is_over_only_when_its_code_is(env: ExecutorEnv, mode: str) -> None:
    work = asyncio.create_task(env.run("defying", input={"said": []}, stream_mode=[mode]))
    await entered()
    env.stop.set()
    for _ in range(3):
        work.cancel()
        assert not (await asyncio.wait({work}, timeout=0.05))[0]
    freed().set()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert calls() == ["defied", "went"]
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_a_lost_append_stops_the_attempt(env: ExecutorEnv) -> None:
    env.log.fails = True
    with pytest.raises(AttemptLost):
        await env.run("blocking", input={"said": []})


@pytest.mark.parametrize("durability", ["async", "sync"])
async def test_no_superstep_starts_before_the_log_has_the_one_before(graphs: Graphs, durability: str) -> None:
    """A crash repeats at most one superstep, however slow the log is (decision 0015)."""
    env = ExecutorEnv(graphs, SlowLog)
    assert isinstance(env.log, SlowLog)
    run = asyncio.create_task(env.run("blocking", input={"said": []}, durability=durability))
    await asyncio.wait([run], timeout=0.5)
    assert not waits()
    env.log.gate.set()
    await entered()
    env.stop.set()
    await run


async def test_the_first_superstep_waits_for_nothing(graphs: Graphs) -> None:
    env = ExecutorEnv(graphs, SlowLog, overlay_bytes=1 << 20)
    assert isinstance(env.log, SlowLog)
    run = asyncio.create_task(env.run("steps", input={"said": []}))
    async with asyncio.timeout(5):
        while calls() != ["a"]:
            await asyncio.to_thread(lambda: None)
    env.log.gate.set()
    await run


async def test_a_sync_node_may_invoke_a_graph(env: ExecutorEnv) -> None:
    outcome = await env.run("nested", input={"said": []}, stream_mode=["values", "custom"])
    assert outcome.values == {"said": ["a", "b", "c"]}
    assert env.of("custom") == [{"in": "sub"}]


async def test_a_subgraph_interrupts_at_the_root(env: ExecutorEnv) -> None:
    first = await env.run("sub_as_node", input={"said": []})
    assert len(first.interrupts) == 1
    await env.run("sub_as_node", run=2, command={"resume": "a"})
    last = await env.run("sub_as_node", run=3, command={"resume": "b"})
    assert last.values == {"said": ["a", "b"]}


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_value_that_cannot_be_stored_fails_the_run(env: ExecutorEnv, durability: str) -> None:
    outcome = await env.run("bad", input={"said": []}, durability=durability)
    assert outcome.status == "error"
    assert outcome.error is not None
    assert outcome.error["error"] == "TypeError"
    assert outcome.values == (None if durability == "exit" else {"said": ["a"]})


async def test_an_entrypoint_remembers_what_it_returned(env: ExecutorEnv) -> None:
    await env.run("echo", input="a")
    outcome = await env.run("echo", run=2, input="b", stream_mode=["values", "updates"])
    assert outcome.values == {ROOT: "ab"}
    assert unrooted(outcome.values) == "ab"
    assert env.of("values")[-1] == "ab"
    assert env.of("updates") == [{"echo": "ab"}]
    assert (await env.state("echo", THREAD))["values"] == "ab"


async def test_only_the_last_state_is_saved_with_durability_exit(env: ExecutorEnv) -> None:
    await env.run("steps", input={"said": []}, durability="exit")
    saved = [fact for draft in env.log.drafts for fact in draft.facts if isinstance(fact, CheckpointSaved)]
    assert len(saved) == 1


async def writes(env: ExecutorEnv) -> tuple[StoredWrite, ...]:
    latest = await find_latest(env.reads, THREAD, "")
    assert latest is not None
    return latest.writes


async def test_a_factory_that_cancels_the_run_from_inside_ends_it(env: ExecutorEnv) -> None:
    outcome = await env.run("cancelled_factory")
    message = "graph cancelled_factory: its own code cancelled the run: a library's own"
    assert (outcome.status, outcome.error) == ("error", {"error": "CancelledError", "message": message})


async def test_a_factory_that_exits_is_the_error_of_its_run_and_of_a_read(env: ExecutorEnv) -> None:
    outcome = await env.run("exiting_factory")
    error = {"error": "SystemExit", "message": "the code of the graph raised SystemExit(3)"}
    assert (outcome.status, outcome.error) == ("error", error)
    with pytest.raises(GraphFailed, match="SystemExit"):
        await env.state("exiting_factory", THREAD)


async def test_updates_of_an_idle_thread_are_checkpoints_of_their_own(env: ExecutorEnv) -> None:
    await env.run("named", input={"name": "x"})
    updates: list[JsonObject] = [{"name": "y"}, {"name": "z"}, {"other": 1}]
    for run, update in enumerate(updates, 2):
        outcome = await env.run("named", run=run, command={"update": update, "resume": None, "goto": None})
        assert (outcome.status, outcome.checkpoint_id is None) == ("success", False)
    state = await env.state("named", THREAD)
    assert (state["values"], as_object(state["metadata"])["source"]) == ({"name": "z", "other": 1}, "loop")
    assert (await env.run("named", run=5, input={"other": 2})).values == {"name": "z", "other": 2}


async def test_an_update_that_an_idle_thread_cannot_take_breaks_no_later_run(env: ExecutorEnv) -> None:
    await env.run("steps", input={"said": []})
    failed = await env.run("steps", run=2, command={"update": {"said": 5}})
    assert (failed.status, as_object(failed.error)["error"]) == ("error", "TypeError")
    assert (await env.state("steps", THREAD))["values"] == {"said": ["a", "b", "c"]}
    assert (await env.run("steps", run=3, input={"said": []})).status == "success"


async def test_an_update_of_a_waiting_thread_runs_its_node_again(env: ExecutorEnv) -> None:
    await env.run("asking", input={"said": []})
    outcome = await env.run("asking", run=2, command={"update": {"said": ["u"]}})
    assert (outcome.status, outcome.next, outcome.values) == ("success", ("ask",), {"said": ["u"]})


async def test_metadata_tells_where_a_run_is_executed(env: ExecutorEnv) -> None:
    await env.run("steps", input={"said": []}, config={"max_concurrency": 2})
    metadata = as_object((await env.state("steps", THREAD))["metadata"])
    expected: JsonObject = {
        "langgraph_plan": "self-hosted",
        "langgraph_host": "self-hosted",
        "langgraph_api_url": "http://127.0.0.1:2024",
    }
    assert expected.items() <= metadata.items()


@pytest.mark.parametrize(("given", "expected"), [(3, 3), (0, None), (True, None), ("3", None), (None, None)])
def test_at_most_so_many_tasks_run_at_once(env: ExecutorEnv, given: Json, expected: int | None) -> None:
    order = env.order("steps", 1, 1, {"config": {"max_concurrency": given}})
    assert run_config(order, from_checkpoint=True).get("max_concurrency") == expected


@pytest.mark.parametrize(
    ("graph_id", "context", "expected"),
    [
        ("data", {}, "Context(model='small')"),
        ("data", {"model": "big", "user_id": "u"}, "Context(model='big')"),
        ("data", {"user_id": "u"}, "Context(model='small')"),
        ("model", {}, "Model(model='small')"),
        ("model", {"name": "big", "user_id": "u"}, "Model(model='big')"),
        ("keyed", {"model": "big", "user_id": "u"}, "{'model': 'big'}"),
        ("needing", {}, "None"),
        ("unnamed", {"model": "big", "user_id": "u"}, "{'model': 'big', 'user_id': 'u'}"),
        ("unnamed", {}, "None"),
    ],
)
async def test_nodes_get_the_context_as_the_schema_states_it(
    env: ExecutorEnv, graph_id: str, context: JsonObject, expected: str
) -> None:
    outcome = await env.run(graph_id, input={}, context=context)
    assert outcome.values is not None, outcome.error
    assert outcome.values["context"] == expected


async def test_a_context_that_its_schema_refuses_is_the_runs_error(env: ExecutorEnv) -> None:
    outcome = await env.run("model", input={}, context={"name": {"no": "text"}})
    assert outcome.error is not None
    assert outcome.error["error"] == "ValidationError"


async def test_a_factory_and_its_graph_get_the_user_id_of_the_context(env: ExecutorEnv) -> None:
    context: JsonObject = {"user_id": "ana", "model": "big"}
    config: JsonObject = {"configurable": {"user_id": ""}}
    outcome = await env.run("made", input={}, context=context, config=config)
    assert outcome.values is not None, outcome.error
    assert (outcome.values["user"], outcome.values["config"]) == ("ana", "big")
    assert vars(importlib.import_module("runs_project"))["seen"] == ["ana"]


@pytest.mark.parametrize(
    ("graph_id", "keys"), [("data", {"model"}), ("model", {"model", "name"}), ("keyed", {"model"}), ("unnamed", None)]
)
def test_the_keys_of_a_context_are_those_of_its_schema(env: ExecutorEnv, graph_id: str, keys: set[str] | None) -> None:
    assert env.access.context_keys(graph_id) == keys


def test_a_gateway_mirrors_no_key_of_a_graph_that_only_a_factory_knows(env: ExecutorEnv) -> None:
    assert env.access.context_keys("made") == ()


def tokens(env: ExecutorEnv) -> list[tuple[str, Json, Json]]:
    """Return namespace, node and text of each frame of a message."""
    found: list[tuple[str, Json, Json]] = []
    for frame in env.frames:
        if frame.event == "messages" and isinstance(frame.data, list):
            message, metadata = as_object(frame.data[0]), as_object(frame.data[1])
            found.append((frame.ns.partition(":")[0], metadata["langgraph_node"], message["content"]))
    return found


async def test_messages_without_subgraphs_are_those_of_the_root(env: ExecutorEnv) -> None:
    await env.run("calling", input={"messages": []}, stream_mode=["messages-tuple"])
    assert tokens(env) == [("", "call", "the answer")]


async def test_a_subgraph_as_a_node_gives_its_message_as_a_whole(env: ExecutorEnv) -> None:
    await env.run("speaking", input={"messages": []}, stream_mode=["messages-tuple"])
    assert tokens(env) == [("", "child", "inner thoughts")]


async def test_messages_with_subgraphs_carry_their_namespace(env: ExecutorEnv) -> None:
    await env.run("calling", input={"messages": []}, stream_mode=["messages-tuple"], subgraphs=True)
    inner = "".join(str(text) for ns, node, text in tokens(env) if (ns, node) == ("call", "speak"))
    assert inner == "inner thoughts"
    assert tokens(env)[-1] == ("", "call", "the answer")


async def test_updates_carry_the_ids_that_reducers_give(env: ExecutorEnv) -> None:
    await env.run("without_id", input={"messages": []}, stream_mode=["updates", "values"])
    [update], values = env.of("updates"), as_object(env.of("values")[-1])
    told = as_object(as_object(update)["nameless"])["messages"]
    assert told == values["messages"]
    assert isinstance(told, list)
    assert as_object(told[0])["id"] is not None


async def test_streams_show_the_keys_of_the_output_schema_only(env: ExecutorEnv) -> None:
    outcome = await env.run("hiding", input={"question": "q"}, stream_mode=["values", "updates"])
    assert env.of("values") == [{"answer": "42"}]
    assert env.of("updates") == [{"think": None}, {"answer": {"answer": "42"}}]
    whole = {"question": "q", "answer": "42", "secret": "prompt", "thought": "private"}
    assert outcome.values == whole
    assert (await env.state("hiding", THREAD))["values"] == whole


async def test_streams_show_no_private_key_of_a_node(env: ExecutorEnv) -> None:
    await env.run("private", input={"question": "q"}, stream_mode=["values", "updates"])
    assert env.of("values")[-1] == {"question": "q", "answer": "42", "secret": "prompt"}
    assert env.of("updates")[0] == {"think": {"secret": "prompt"}}


@pytest.mark.parametrize("graph_id", ["hiding", "hidden_by_factory"])
async def test_the_output_of_a_run_has_the_keys_of_the_output_schema(env: ExecutorEnv, graph_id: str) -> None:
    outcome = await env.run(graph_id, input={"question": "q"})
    assert await env.access.output_values(graph_id, THREAD, unrooted(outcome.values)) == {"answer": "42"}


async def test_the_output_of_an_entrypoint_is_what_it_returns(env: ExecutorEnv) -> None:
    outcome = await env.run("echo", input="a")
    assert await env.access.output_values("echo", THREAD, unrooted(outcome.values)) == "a"


async def test_checkpoints_of_a_subgraph_name_their_place_in_metadata(env: ExecutorEnv) -> None:
    await env.run("sub_as_node", input={"said": []})
    saved = [fact for draft in env.log.drafts for fact in draft.facts if isinstance(fact, CheckpointSaved)]
    inner = [fact for fact in saved if fact.checkpoint_ns]
    assert len(inner) == 2
    for fact in inner:
        ns = fact.checkpoint_ns
        place = {
            "langgraph_node": "sub",
            "langgraph_step": 1,
            "langgraph_path": ["__pregel_pull", "sub"],
            "langgraph_triggers": ["branch:to:sub"],
            "langgraph_checkpoint_ns": ns,
            "checkpoint_ns": ns,
        }
        assert {name: fact.metadata.get(name) for name in place} == place
        parents = as_object(fact.metadata["parents"])
        assert as_object(fact.metadata["checkpoint_map"])[""] == parents[""]
    root = next(fact for fact in saved if not fact.checkpoint_ns)
    assert {"langgraph_node", "checkpoint_ns", "checkpoint_map"}.isdisjoint(root.metadata)
    state = await env.state("sub_as_node", THREAD, subgraphs=True)
    [task] = state["tasks"] if isinstance(state["tasks"], list) else []
    shown = as_object(as_object(as_object(task)["state"])["metadata"])
    assert shown["langgraph_node"] == "sub"


SECRET = "sk-never-in-clear"


def with_secret(clear: bool) -> JsonObject:
    """Return the arguments of a run with a secret, as an earlier release stored them (`clear`) or sealed."""
    given: JsonObject = {"config": {"configurable": {"api_key": SECRET, "own": 1}}, "context": {"api_key": SECRET}}
    run = RunCreated(RunId("r"), THREAD, {}, {}, given, "enqueue")
    return given if clear else SECRETS.seal_run(run).kwargs


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize(("graph_id", "ran"), [("leaking", [SECRET]), ("leaking_factory", [])])
async def test_nodes_get_the_secrets_of_a_run_and_nothing_that_it_writes_shows_them(
    env: ExecutorEnv, graph_id: str, ran: list[str], clear: bool
) -> None:
    given: JsonObject = {"input": {"messages": []}, "stream_mode": ["messages-tuple", "checkpoints", "tasks", "debug"]}
    outcome = await env.attempt(env.order(graph_id, 1, 1, given | with_secret(clear)))
    assert calls() == ran
    assert outcome.error is not None
    assert MASK in str(outcome.error["message"])
    written = [encode_commit(draft, encode_facts(draft)) for draft in env.log.drafts]
    assert bool(written) == bool(env.frames) == bool(ran)
    assert SECRET not in str([outcome, env.frames, written])
    assert SECRET not in str(await env.state(graph_id, THREAD) if ran else "")


async def test_a_run_whose_secrets_cannot_be_read_ends_with_an_error_that_says_so(env: ExecutorEnv) -> None:
    other = Secrets(SecretKeys(), AesGcmCipher("another key here", Path("nowhere")))
    run = RunCreated(RunId("r"), THREAD, {}, {}, with_secret(clear=True), "enqueue")
    given: JsonObject = {"input": {"messages": []}}
    outcome = await env.attempt(env.order("leaking", 1, 1, given | other.seal_run(run).kwargs))
    assert (outcome.status, calls()) == ("error", [])
    assert outcome.error is not None
    assert outcome.error["error"] == "SecretUnreadable"
    assert "LANGGRAPH_AES_KEY" in str(outcome.error["message"])


async def test_a_strict_resume_answers_only_an_interrupt_that_waits(env: ExecutorEnv) -> None:
    asked = await env.run("asking", input={"said": []})
    wrong: JsonObject = {"resume": {"0" * 32: "nobody"}}
    refused = await env.run("asking", run=2, command=wrong, strict_resume=True)
    assert (refused.status, as_object(refused.error)["error"]) == ("error", "UnknownInterruptError")
    assert as_object(refused.error)["message"] == f"Unknown or already-consumed interrupt: {'0' * 32}"
    assert (refused.interrupts, refused.values) == (asked.interrupts, asked.values)
    ignored = await env.run("asking", run=3, command=wrong)
    assert ignored.status == "success"
    answered = await env.run("asking", run=4, command={"resume": "me"}, strict_resume=True)
    assert question(answered) == "really?"
    saved = [fact for draft in env.log.drafts for fact in draft.facts if isinstance(fact, CheckpointSaved)]
    assert all("__pregel_strict_resume" not in str(fact.metadata) for fact in saved)
