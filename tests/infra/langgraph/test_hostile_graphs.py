"""Runs whose graph cannot be executed or stored: each ends once, with an error that names the graph and the cause."""

import asyncio
import importlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tests.fakes.memory_store import MemoryStore
from tests.infra.langgraph.executor_env import SECRETS, THREAD, ExecutorEnv
from tests.infra.langgraph.memory_checkpoints import MemoryLog
from tests.infra.projects import loaded

from agentlog_facts.envelope import ANONYMOUS, Cause, Draft
from agentlog_facts.execution_port import RunOutcome
from agentlog_facts.frame import FrameRecord, decode_record, encode_record
from agentlog_facts.graph_ports import BadUpdate, GraphFailed
from agentlog_facts.ids import Key, RunId, stream
from agentlog_facts.json_value import MOST_LEVELS, Json, as_object, load_object
from agentlog_facts.state_diff import diff_state
from agentlog_facts.thread import RunFinished
from agentlog_facts.vocabulary import decode_commit, encode_commit, encode_facts, parse_commit
from agentlog_infra.langgraph.executor import ExecutorDependencies, LangGraphRuns
from agentlog_infra.langgraph.loading.graphs import Graphs
from agentlog_infra.langgraph.state import LangGraphAccess, StateDependencies
from agentlog_infra.system_ports import SystemClock, SystemIds

SOURCE = """
import asyncio
import contextlib
from typing import Annotated, Any, TypedDict
from langgraph.config import get_store, get_stream_writer
from langgraph.errors import GraphInterrupt
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Interrupt, interrupt
from pydantic import BaseModel, Field

class State(TypedDict, total=False):
    levels: int
    value: Any
    seen: str

calls = []

def nested(levels, inside="x"):
    for _ in range(levels):
        inside = [inside]
    return inside

def graph(node, name="node"):
    return StateGraph(State).add_node(name, node).add_edge(START, name).compile()

class Plain:
    def __repr__(self):
        return "Plain()"

class Model(BaseModel):
    inside: Any

MAKE = {
    "deep": lambda levels: nested(levels),
    "deep_object": lambda levels: {"a": nested(levels - 1, (1,))},
    "deep_model": lambda levels: Model(inside=nested(levels - 1)),
    "huge": lambda levels: 10 ** levels,
    "huge_inside": lambda levels: {"a": [10 ** levels, (10 ** levels,)]},
    "object": lambda levels: Plain(),
    "numbers": range,
    "complex": lambda levels: 1j,
    "class": lambda levels: Plain,
    "local": lambda levels: (lambda: None),
}

def makes(make):
    return lambda state: {"value": make(state["levels"])}

def see(state):
    return {"seen": type(state["value"]).__name__}

def chain(make):
    builder = StateGraph(State).add_node("make", makes(make)).add_node("see", see)
    return builder.add_edge(START, "make").add_edge("make", "see").compile()

for name, make in MAKE.items():
    globals()[name] = chain(make)

def ask(state):
    interrupt({"q": nested(state["levels"])})

deep_interrupt = graph(ask)

def write(state):
    get_stream_writer()({"q": nested(state["levels"])})

deep_frame = graph(write)

def put(state):
    get_store().put(("kept",), "key", {"q": nested(state["levels"])})

deep_item = graph(put)

def add(old, new):
    raise NotImplementedError("cannot add")

class Refusing(TypedDict, total=False):
    value: Annotated[int, add]

refusing_reducer = StateGraph(Refusing).add_node("n", lambda state: {}).add_edge(START, "n").compile()

nul_goto = graph(lambda state: Command(goto="a\\0b"))
surrogate_goto = graph(lambda state: Command(goto="a\\ud800b"))
nul_node = graph(lambda state: {}, "a\\0b")
surrogate_node = graph(lambda state: {}, "a\\ud800b")
long_node = graph(lambda state: {}, "n" * 2500)
long_goto = graph(lambda state: Command(goto="\u20ac" * 800))

def raise_interrupt(state):
    raise GraphInterrupt([Interrupt("who\\0?", id="a\\0\\ud800")])

nul_interrupt = graph(raise_interrupt)

class Silent(ValueError):
    def __str__(self):
        raise ZeroDivisionError

def fail_silently(state):
    raise Silent

silent = graph(fail_silently)

class Unshowable(ValueError):
    def __repr__(self):
        raise ZeroDivisionError

def fail_unshowably(state):
    raise Unshowable("as text")

unshowable = graph(fail_unshowably)

def fail_with_nul(state):
    raise ValueError("a\\0b\\ud800")

nul_error = graph(fail_with_nul)

async def clean_up(state):
    calls.append("clean_up")
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            task.cancel()
    await asyncio.sleep(0)
    return {"seen": "cleaned"}

cancels_all = graph(clean_up)

async def cancel_itself(state):
    asyncio.current_task().cancel()
    await asyncio.sleep(0)

cancels_itself = graph(cancel_itself)

async def wait(state):
    calls.append("wait")
    await asyncio.Event().wait()

waiting = graph(wait)

@contextlib.asynccontextmanager
async def ends_early():
    async with asyncio.TaskGroup() as group:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.get_running_loop().call_later(0.2, asyncio.current_task().cancel)
            yield waiting

@contextlib.asynccontextmanager
async def swallows_all():
    try:
        yield waiting
    except BaseException:
        pass

def makes_none():
    return None

async def makes_none_later():
    return None

@contextlib.asynccontextmanager
async def yields_none():
    yield None

@contextlib.asynccontextmanager
async def yields_nothing():
    return
    yield

def is_away():
    raise ConnectionError("secret address")

class Positive(BaseModel):
    n: int = Field(default=0, ge=0)

positive = StateGraph(Positive).add_node("n", lambda state: {}).add_edge(START, "n").compile()
"""
NAMES = (
    *("deep", "deep_object", "deep_model", "huge", "huge_inside", "object", "numbers", "complex", "class", "local"),
    *("deep_interrupt", "deep_frame", "deep_item", "refusing_reducer"),
    *("nul_goto", "surrogate_goto", "nul_node", "surrogate_node", "nul_interrupt", "silent", "unshowable", "nul_error"),
    *("long_node", "long_goto"),
    *("cancels_all", "cancels_itself", "waiting", "ends_early", "swallows_all", "makes_none", "makes_none_later"),
    *("yields_none", "yields_nothing", "is_away", "positive"),
)


@pytest.fixture
def graphs(tmp_path: Path) -> Iterator[Graphs]:
    names = {name: f"./hostile_project.py:{name}" for name in NAMES}
    with loaded(tmp_path, {"hostile_project.py": SOURCE}, names) as found:
        yield found


@pytest.fixture
async def env(graphs: Graphs) -> ExecutorEnv:
    return ExecutorEnv(graphs)


def calls() -> list[str]:
    found: list[str] = vars(importlib.import_module("hostile_project"))["calls"]
    return found


def end_is_readable(outcome: RunOutcome) -> RunFinished:
    """Return the end of the run after its way through the bytes of the log."""
    view = diff_state({}, outcome.values or {})
    fact = RunFinished(RunId("r"), outcome.status, outcome.error, view, outcome.next, outcome.interrupts)
    on, cause = stream("thread", THREAD), Cause(ANONYMOUS, "c")
    commit = Draft(Key(THREAD), on, "e", "a", "b", (fact,), datetime.now(UTC), cause)
    read = decode_commit(THREAD, parse_commit(encode_commit(commit, encode_facts(commit))))
    assert read.facts == (fact,)
    return fact


def message_of(outcome: RunOutcome) -> str:
    assert outcome.status == "error", outcome
    return str(as_object(end_is_readable(outcome).error)["message"])


@pytest.mark.parametrize("graph", ["deep", "deep_object", "deep_model", "deep_interrupt", "deep_frame", "deep_item"])
@pytest.mark.parametrize("durability", ["async", "exit"])
@pytest.mark.parametrize("levels", [MOST_LEVELS + 4, 194, 195, 196, 197, 198, 199, 200, 201, 260, 700])
async def test_what_is_nested_too_deep_is_the_error_of_its_run(
    env: ExecutorEnv, graph: str, durability: str, levels: int
) -> None:
    """The worker could not read its own `RunFinished`, and repeated the run for ever."""
    given: dict[str, Json] = {"levels": levels}
    outcome = await env.run(graph, input=given, durability=durability, stream_mode=["values", "updates", "custom"])
    assert any(word in message_of(outcome) for word in ("deep", "depth", "recursion limit"))
    assert outcome.values in (None, given), "the state of before"
    for frame in env.frames:
        value, headers = encode_record(FrameRecord(RunId("r"), 1, 0, (frame,)))
        assert decode_record(value, headers).frames == (frame,)
    assert as_object((await env.state(graph, THREAD))["values"]).keys() <= {"levels"}


@pytest.mark.parametrize("graph", ["deep", "deep_object", "deep_interrupt", "deep_frame", "deep_item"])
async def test_what_is_nested_less_deep_is_shown_as_it_is(env: ExecutorEnv, graph: str) -> None:
    levels = MOST_LEVELS - 4
    modes: list[Json] = ["values", "updates", "custom"]
    outcome = await env.run(graph, input={"levels": levels}, stream_mode=modes)
    assert outcome.status == "success"
    shown = [end_is_readable(outcome).view, end_is_readable(outcome).interrupts]
    assert "<" not in str([*shown, *(frame.data for frame in env.frames)]), "nothing was cut off"


async def test_the_deepest_state_has_the_named_number_of_levels(env: ExecutorEnv) -> None:
    ok = await env.run("deep", input={"levels": MOST_LEVELS - 1}, stream_mode=["values", "updates"])
    assert ok.status == "success"
    assert "deep" in message_of(await env.run("deep", run=2, input={"levels": MOST_LEVELS}))


@pytest.mark.parametrize("graph", ["huge", "huge_inside"])
async def test_a_number_that_cannot_be_read_is_the_error_of_its_run(env: ExecutorEnv, graph: str) -> None:
    for digits in (400, 5000):
        assert "cannot be stored" in message_of(await env.run(graph, input={"levels": digits}))
        assert (await env.state(graph, THREAD))["next"] == ["make"]


async def test_numbers_beyond_64_bits_are_values_like_others(env: ExecutorEnv) -> None:
    outcome = await env.run("huge", input={"levels": 300, "value": [2**64, -(2**70), {"a": 2**64}]})
    assert (outcome.status, outcome.values) == ("success", {"levels": 300, "value": 10**300, "seen": "int"})
    before = (await env.history("huge", THREAD, limit=5))[-2]
    assert as_object(before["values"])["value"] == [2**64, -(2**70), {"a": 2**64}]


@pytest.mark.parametrize("graph", ["object", "numbers", "complex", "class"])
async def test_a_value_that_cannot_be_stored_names_the_setting_with_which_it_can(graphs: Graphs, graph: str) -> None:
    refused = await ExecutorEnv(graphs).run(graph, input={"levels": 3})
    assert "value: a value of type" in message_of(refused)
    assert "AGENTLOG_PICKLE_FALLBACK=true" in message_of(refused)
    env = pickling(graphs)
    outcome = await env.run(graph, input={"levels": 3})
    assert (outcome.status, as_object(end_is_readable(outcome).view["set"])["seen"]) == ("success", seen(graph))
    shown = load_object((await env.access.get_state(graph, THREAD)).document())  # each read makes new objects
    assert as_object(shown["values"])["seen"] == seen(graph)
    off = LangGraphAccess(StateDependencies(graphs, env.reads, env.store, SystemIds(), JsonPlusSerializer()))
    with pytest.raises(GraphFailed, match="AGENTLOG_PICKLE_FALLBACK=true"):
        await off.get_state(graph, THREAD)


def seen(graph: str) -> str:
    return {"object": "Plain", "numbers": "range", "class": "type"}.get(graph, graph)


def pickling(graphs: Graphs) -> ExecutorEnv:
    env = ExecutorEnv(graphs)
    env.serde = serde = JsonPlusSerializer(pickle_fallback=True)
    env.log, env.store = MemoryLog(env.reads), MemoryStore()
    env.runs = LangGraphRuns(
        ExecutorDependencies(
            graphs,
            env.reads,
            env.store,
            env.log,
            SystemClock(),
            SystemIds(),
            serde,
            secrets=SECRETS,
            versions=env.log,
            overlay_bytes=0,
        )
    )
    env.access = LangGraphAccess(StateDependencies(graphs, env.reads, env.store, SystemIds(), serde))
    return env


async def test_what_pickle_cannot_store_either_is_the_error_of_its_run(graphs: Graphs) -> None:
    outcome = await pickling(graphs).run("local", input={"levels": 0})
    assert "with pickle neither" in message_of(outcome)


@pytest.mark.parametrize("graph", ["nul_goto", "surrogate_goto", "nul_node", "surrogate_node"])
async def test_a_name_that_rows_cannot_hold_is_the_error_of_its_run(env: ExecutorEnv, graph: str) -> None:
    """A NUL in `Command(goto)` parked the thread: the column of channels is text."""
    assert "which the rows cannot hold" in message_of(await env.run(graph, input={"levels": 0}))
    texts = str([fact for draft in env.log.drafts for fact in draft.facts])
    assert "\\x00" not in texts
    assert "\\ud800" not in texts


@pytest.mark.parametrize("graph", ["long_node", "long_goto"])
async def test_a_name_that_no_key_of_a_row_can_hold_is_the_error_of_its_run(env: ExecutorEnv, graph: str) -> None:
    """A node's name of 2,700 bytes parked the thread, and its states were shown as they were before."""
    assert "expected at most 2400" in message_of(await env.run(graph, input={"levels": 0}))


@pytest.mark.parametrize("graph", ["nul_interrupt", "nul_error"])
async def test_texts_of_user_code_are_kept_without_what_rows_cannot_hold(env: ExecutorEnv, graph: str) -> None:
    outcome = await env.run(graph, input={"levels": 0})
    fact = end_is_readable(outcome)
    assert "\\x00" not in str(fact)
    assert "\\ud800" not in str(fact)
    assert "\ufffd" in str(fact)


async def test_an_error_that_cannot_be_written_as_text_is_masked(env: ExecutorEnv) -> None:
    assert message_of(await env.run("silent", input={"levels": 0})) == "An internal error occurred"


async def test_an_error_without_a_repr_is_the_error_of_its_run(env: ExecutorEnv) -> None:
    assert message_of(await env.run("unshowable", input={"levels": 0})) == "as text"
    state = await env.state("unshowable", THREAD)
    assert "An internal error occurred" in str(state["tasks"])


async def test_a_node_that_cancels_all_tasks_of_its_loop_ends_its_run_once(env: ExecutorEnv) -> None:
    """Each repetition waited for a lease of 30 s, and there was no limit on their number."""

    async def job() -> RunOutcome:
        return await env.run("cancels_all", input={"levels": 0})

    outcome = await asyncio.create_task(job())
    assert message_of(outcome) == "graph cancels_all: its own code cancelled the run"
    assert as_object(end_is_readable(outcome).error)["error"] == "CancelledError"
    assert calls() == ["clean_up"]
    assert outcome.run_version == len(env.log.drafts) - 1, "nothing that the run wrote is lost"
    assert outcome.values == {"levels": 0}


async def test_a_node_that_cancels_itself_ends_its_run(env: ExecutorEnv) -> None:
    outcome = await asyncio.create_task(env.run("cancels_itself", input={"levels": 0}))
    assert "its own code cancelled the run" in message_of(outcome)


async def test_a_factory_that_ends_the_use_of_its_graph_early_ends_the_run_once(env: ExecutorEnv) -> None:
    """It executed the node five times in three minutes."""
    outcome = await asyncio.create_task(env.run("ends_early", input={"levels": 0}))
    expected = "graph ends_early: the context manager of its factory ended the use of the graph before its end"
    assert expected in message_of(outcome)
    assert calls() == ["wait"]
    assert outcome.values == {"levels": 0}


async def test_a_drain_is_not_the_error_of_a_factory_that_swallows_it(env: ExecutorEnv) -> None:
    work = asyncio.create_task(env.run("swallows_all", input={"levels": 0}))
    async with asyncio.timeout(10):
        while not calls():
            await asyncio.to_thread(lambda: None)
    env.stop.set()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


@pytest.mark.parametrize("graph", ["makes_none", "makes_none_later", "yields_none"])
async def test_a_factory_that_makes_no_graph_is_named(env: ExecutorEnv, graph: str) -> None:
    expected = f"graph {graph}: {graph} is neither a graph nor a factory of one, but NoneType"
    assert message_of(await env.run(graph, input={"levels": 0})) == expected
    with pytest.raises(GraphFailed, match="neither a graph nor a factory"):
        await env.state(graph, THREAD)


async def test_a_factory_without_a_yield_is_the_error_of_its_run(env: ExecutorEnv) -> None:
    assert "didn't yield" in message_of(await env.run("yields_nothing", input={"levels": 0}))


async def test_a_state_that_the_schema_refuses_is_refused_with_the_reason(env: ExecutorEnv) -> None:
    assert (await env.run("positive", input={"n": -1})).status == "error"
    for read in (env.state("positive", THREAD), env.history("positive", THREAD)):
        with pytest.raises(GraphFailed, match="greater than or equal to 0") as refused:
            await read
        assert refused.value.status == 400


async def test_a_factory_that_is_away_is_refused_without_its_secrets(env: ExecutorEnv) -> None:
    with pytest.raises(GraphFailed, match="graph is_away: its code raised ConnectionError") as refused:
        await env.state("is_away", THREAD)
    assert (refused.value.status, "secret" in str(refused.value)) == (400, False)


@pytest.mark.parametrize(
    ("graph", "values"),
    [("refusing_reducer", {"value": 1}), ("positive", {"n": "many"}), ("is_away", {})],
)
async def test_values_that_a_graph_refuses_are_the_fault_of_the_request(
    env: ExecutorEnv, graph: str, values: Json
) -> None:
    """A reducer that raises NotImplementedError was answered with 500."""
    with pytest.raises((BadUpdate, GraphFailed)) as refused:
        await env.access.update_state(graph, THREAD, values)
    assert refused.value.status == 400
