"""Graphs that stop at breakpoints and for interrupts; a test can delay the reading of their state, between the last
checkpoint of a run and its end.
"""

import operator
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Annotated, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from agentlog_infra.examples.example_steps import Steps, pass_gate, trace

STEPS = ("one", "two", "three")


class Held(BaseModel):
    """A value that cannot be converted to JSON while a file `hold-NAME` exists in the folder of gates."""

    name: str

    @model_serializer(mode="wrap", when_used="json")
    def _shown(self, handler: SerializerFunctionWrapHandler) -> object:
        folder = Path(os.environ["AGENTLOG_EXAMPLE_GATES"])
        if (folder / f"hold-{self.name}").exists():
            (folder / f"held-{self.name}").touch()
        while (folder / f"hold-{self.name}").exists():
            time.sleep(0.01)
        return handler(self)


class Breaking(TypedDict, total=False):
    """State of the graph; the first step sets `held`."""

    name: str
    held: Held
    done: Annotated[list[str], operator.add]


def _node(step: str):  # type: ignore[no-untyped-def]  # LangGraph's types for nodes have no plain name
    async def node(state: Breaking, config: RunnableConfig) -> Breaking:
        trace(step, "start", Steps(name=state.get("name", "")), config)
        return {"done": [step], "held": Held(name=state.get("name", ""))}

    return node


def _begin(state: Breaking) -> Breaking:
    return {"held": Held(name=state.get("name", ""))}


def _line() -> "StateGraph[Breaking]":
    built = StateGraph(Breaking)
    for step in STEPS:
        built.add_node(step, _node(step))
    for before, behind in zip((START, *STEPS), (*STEPS, END), strict=True):
        built.add_edge(before, behind)
    return built


plain = _line().compile()
graph = _line().compile(interrupt_before=["two"])
after = _line().compile(interrupt_after=["one"])

_outer = StateGraph(Breaking)
_outer.add_node("inside", _line().compile(interrupt_before=["two"]))
_outer.add_node("begin", _begin)
_outer.add_edge(START, "begin")
_outer.add_edge("begin", "inside")
_outer.add_edge("inside", END)
outer = _outer.compile()


class Asking(TypedDict, total=False):
    """State of the graph; `gate`: the gate for which the graph waits after the first answer."""

    name: str
    gate: str
    held: Held
    answers: Annotated[list[str], operator.add]


def begin(state: Asking) -> Asking:
    """Put a value into the state whose reading a test can delay."""
    return {"held": Held(name=state.get("name", ""))}


def first(state: Asking) -> Asking:
    """Raise the first interrupt."""
    return {"answers": [f"first {interrupt('first?')}"]}


async def between(state: Asking, config: RunnableConfig) -> Asking:
    """Write a trace line, and wait at the gate if there is one."""
    trace("between", "start", Steps(name=state.get("name", "")), config)
    if gate := state.get("gate"):
        await pass_gate(gate)
    return {}


def second(state: Asking) -> Asking:
    """Raise the second interrupt."""
    return {"answers": [f"second {interrupt('second?')}"]}


_asking = StateGraph(Asking)
_asking.add_node("begin", begin)
_asking.add_node("first", first)
_asking.add_node("between", between)
_asking.add_node("second", second)
_order = (START, "begin", "first", "between", "second", END)
for before_it, after_it in pairwise(_order):
    _asking.add_edge(before_it, after_it)
asking = _asking.compile()
