"""Graphs of every kind that shows in a state: source of a project, and the inputs that each takes."""

SOURCE = '''
import datetime
import decimal
import operator
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict

from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.channels import AnyValue, DeltaChannel, EphemeralValue, LastValue, Topic, UntrackedValue
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.managed import IsLastStep, RemainingSteps
from langgraph.types import Command, Overwrite, Send, interrupt
from pydantic import BaseModel, Field


class Words(TypedDict, total=False):
    said: Annotated[list[Any], operator.add]
    last: Any


def say(word, **more):
    def node(state):
        return {"said": [word], "last": word, **more}
    return node


def told(state, name):
    """Fail or ask if the newest item of the state says so."""
    newest = [one for one in state.get("said", []) if isinstance(one, str)][-1:]
    if newest == [f"fail {name}"]:
        raise ValueError(f"\\x00 {name} fails \\ud800")
    if newest == [f"ask {name}"]:
        return [interrupt({"who": name, "why": ("a", 1, None)}), interrupt("again")]
    return []


def careful(name):
    def node(state):
        return {"said": [name, *told(state, name)], "last": name}
    return node


line = (
    StateGraph(Words)
    .add_node("a", careful("a")).add_node("b", careful("b")).add_node("c", careful("c"))
    .add_edge(START, "a").add_edge("a", "b").add_edge("b", "c").compile()
)
stopping = (
    StateGraph(Words)
    .add_node("a", careful("a")).add_node("b", careful("b"))
    .add_edge(START, "a").add_edge("a", "b").compile(interrupt_before=["b"], interrupt_after=["a"])
)


class Wide(Words, total=False):
    left: int
    right: Any


def sides(name):
    def node(state):
        return {"said": [name, *told(state, name)], name: len(state.get("said", []))}
    return node


parallel = (
    StateGraph(Wide)
    .add_node("left", sides("left")).add_node("right", sides("right")).add_node("join", careful("join"))
    .add_node("late", careful("late"), defer=True)
    .add_edge(START, "left").add_edge(START, "right").add_edge(["left", "right"], "join")
    .add_edge("left", "late").add_edge("join", END).compile()
)


def spread(state):
    return [Send("one", {"said": [f"{place}"], "place": place}) for place in range(3)]


def one(state):
    return {"said": [f"one {state['place']}", *told(state, "one")], "last": None}


sends = (
    StateGraph(Words)
    .add_node("a", careful("a")).add_node("one", one, input_schema=dict)
    .add_edge(START, "a").add_conditional_edges("a", spread, ["one"]).compile()
)


def hop(state):
    return Command(update={"said": ["hop"]}, goto=[Send("b", {"said": ["sent"]}), "a"])


commands = (
    StateGraph(Words)
    .add_node("hop", hop, destinations=("a", "b")).add_node("a", careful("a")).add_node("b", careful("b"))
    .add_edge(START, "hop").compile()
)
inner = (
    StateGraph(Words).add_node("x", careful("x")).add_node("y", careful("y")).add_edge(START, "x").add_edge("x", "y")
)
subgraphs = (
    StateGraph(Words)
    .add_node("sub", inner.compile()).add_node("kept", inner.compile(checkpointer=True)).add_node("a", careful("a"))
    .add_edge(START, "sub").add_edge("sub", "kept").add_edge("kept", "a").compile()
)
deep = StateGraph(Words).add_node("outer", subgraphs).add_node("z", careful("z")).add_edge(START, "outer")
deep = deep.add_edge("outer", "z").compile()


def greatest(left, right):
    return right if left is None else max(left, right)


class Odd(TypedDict, total=False):
    said: Annotated[list[Any], operator.add]
    newest: Annotated[Any, EphemeralValue]
    any: Annotated[Any, AnyValue]
    topic: Annotated[list[Any], Topic(Any, accumulate=True)]
    passing: Annotated[list[Any], Topic(Any)]
    untracked: Annotated[Any, UntrackedValue]
    marks: Annotated[set[str], operator.or_]
    number: Annotated[int, operator.add]
    best: Annotated[Any, greatest]
    is_last: IsLastStep
    left: RemainingSteps


class Point:
    def __init__(self, x):
        self.x = x

    def __repr__(self):
        return f"Point({self.x})"


@dataclass
class Pair:
    left: Any
    right: Any


VALUES = [
    None,
    True, 0, -1, 2**53 + 1, 2**64, 1.5, float("nan"), float("-inf"), "", "\\x00", "\\u00e9\\U0001f600", b"\\xff\\x00",
    ("a", 1), {"k": [1, {"n": None}]}, {1: "one", (1, 2): "pair"}, {"x"}, decimal.Decimal("1.50"),
    datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc), datetime.timedelta(seconds=1), uuid.UUID(int=5),
    Pair(1, "r"), {"items": [1]}, {"json": 1}, {"message": {"type": "human"}}, {"type": "x", "base64": "eA=="},
    {"$writes": [1]}, [], [[]], {"": ""}, "\\ud800", HumanMessage("in a value", id="h"),
]


def strange(place):
    def node(state):
        given = len(state.get("said", [])) * 7 + place
        first, second = VALUES[given % len(VALUES)], VALUES[(given * 5 + 3) % len(VALUES)]
        return {
            "said": [first, second, *told(state, f"n{place}")], "newest": first, "any": second,
            "topic": [first], "passing": second, "untracked": first, "marks": {f"m{given % 3}"}, "number": given,
            "best": f"{given}",
        }
    return node


odd = (
    StateGraph(Odd).add_node("n0", strange(0)).add_node("n1", strange(1)).add_node("n2", strange(2))
    .add_edge(START, "n0").add_edge("n0", "n1").add_edge("n1", "n2").compile()
)


class Chat(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    said: Annotated[list[Any], operator.add]


def talk(place):
    def node(state):
        count = len(state.get("messages", []))
        new = [
            AIMessage("", id=f"ai{count}.{place}", tool_calls=[{"name": "t", "args": {"n": count}, "id": f"c{count}"}],
                      usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
            ToolMessage("r\\x00" if count % 3 else [{"type": "text", "text": "r"}], tool_call_id=f"c{count}",
                        artifact={"a": (1, 2)} if count % 2 else None, id=f"t{count}.{place}"),
            SystemMessage("s", id=f"s{count}.{place}", additional_kwargs={"message": {"deep": [1]}}),
            AIMessageChunk("chunk", id=f"k{count}.{place}", tool_call_chunks=[
                {"name": "u", "args": "{\\"a\\": 1", "id": "u1", "index": 0, "type": "tool_call_chunk"}]),
            HumanMessage([{"type": "text", "text": "again"}], id="same", name="n", more="extra"),
        ]
        return {"messages": new, "said": told(state, f"t{place}")}
    return node


chat = (
    StateGraph(Chat).add_node("t0", talk(0)).add_node("t1", talk(1)).add_edge(START, "t0").add_edge("t0", "t1")
    .compile()
)


class Shape(BaseModel):
    said: Annotated[list[Any], operator.add] = Field(default_factory=list)
    count: int = 0
    nested: dict[str, Pair] = Field(default_factory=dict)


def shaped(name):
    def node(state):
        words = told({"said": state.said}, name)
        return {"said": [name, *words], "count": state.count + 1, "nested": {name: Pair(1, 2)}}
    return node


pydantic = (
    StateGraph(Shape).add_node("a", shaped("a")).add_node("b", shaped("b")).add_edge(START, "a").add_edge("a", "b")
    .compile()
)


@dataclass
class Data:
    said: Annotated[list[Any], operator.add] = field(default_factory=list)
    count: int = 0


data = (
    StateGraph(Data).add_node("a", shaped_data := (lambda state: {"said": ["a", *told({"said": state.said}, "a")]}))
    .add_edge(START, "a").compile()
)


def grown(state, writes):
    return [*state, *(item for write in writes for item in write)]


class Delta(TypedDict, total=False):
    said: Annotated[list[Any], DeltaChannel(grown, snapshot_frequency=4)]
    last: Any


delta = (
    StateGraph(Delta).add_node("a", careful("a")).add_node("b", careful("b")).add_node("c", careful("c"))
    .add_edge(START, "a").add_edge("a", "b").add_edge("b", "c").compile()
)


def replace_all(state):
    return {"said": Overwrite([len(state.get("said", []))]), "last": "over"}


overwriting = (
    StateGraph(Words).add_node("a", careful("a")).add_node("o", replace_all).add_edge(START, "a").add_edge("a", "o")
    .compile()
)


@task
def shout(word):
    return f"{word}!"


@entrypoint()
def flow(given, *, previous=None):
    words = given.get("said", []) if isinstance(given, dict) else []
    told({"said": words}, "flow")
    return entrypoint.final(value=[shout(str(word)).result() for word in words], save={"kept": len(words)})


def rooted_node(state):
    return [*(state or []), len(state or [])]


rooted = StateGraph(Annotated[list[Any], operator.add]).add_node("r", rooted_node).add_edge(START, "r").compile()


class In(TypedDict, total=False):
    said: Annotated[list[Any], operator.add]


class Out(TypedDict, total=False):
    last: Any


schemas = (
    StateGraph(Words, input_schema=In, output_schema=Out).add_node("a", careful("a")).add_node("b", careful("b"))
    .add_edge(START, "a").add_edge("a", "b").compile()
)
'''
GRAPHS = (
    "line stopping parallel sends commands subgraphs deep odd chat pydantic data delta overwriting flow rooted schemas"
).split()
NODES = {
    "line": "abc",
    "stopping": "ab",
    "parallel": ("left", "right", "join", "late"),
    "sends": ("a", "one"),
    "commands": "ab",
    "subgraphs": ("a", "x", "y"),
    "deep": ("a", "x", "z"),
    "odd": ("n0", "n1", "n2"),
    "chat": ("t0", "t1"),
    "pydantic": "ab",
    "data": "a",
    "delta": "abc",
    "overwriting": "a",
    "flow": ("flow",),
    "rooted": (),
    "schemas": "ab",
}
"""The nodes that fail or ask when the state says so."""
