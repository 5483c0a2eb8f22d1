"""A graph that asks twice, and may be held between the two questions: `answers` shows who answered which."""

import operator
from typing import Annotated, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from agentlog_infra.examples.example_steps import Steps, pass_gate, trace


class Asking(TypedDict, total=False):
    """`gate`: what the graph waits for after the first answer."""

    name: str
    gate: str
    answers: Annotated[list[str], operator.add]


def first(state: Asking) -> Asking:
    """Ask."""
    return {"answers": [f"first {interrupt('first?')}"]}


async def between(state: Asking, config: RunnableConfig) -> Asking:
    """Leave a trace, and wait where that was asked for."""
    trace("between", "start", Steps(name=state.get("name", "")), config)
    if gate := state.get("gate"):
        await pass_gate(gate)
    return {}


def second(state: Asking) -> Asking:
    """Ask again."""
    return {"answers": [f"second {interrupt('second?')}"]}


builder = StateGraph(Asking)
builder.add_node("first", first)
builder.add_node("between", between)
builder.add_node("second", second)
for before, after in ((START, "first"), ("first", "between"), ("between", "second"), ("second", END)):
    builder.add_edge(before, after)
graph = builder.compile()
