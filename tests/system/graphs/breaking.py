"""Graphs with breakpoints, and with a state that can be held where it is shown: between a run's last checkpoint and its
end."""

import operator
import os
import time
from pathlib import Path
from typing import Annotated, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from agentlog_infra.examples.example_steps import Steps, trace

STEPS = ("one", "two", "three")


class Held(BaseModel):
    """A value whose JSON form is not made while a file `hold-NAME` lies in the folder of gates."""

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
    """`held` appears with the first step."""

    name: str
    held: Held
    done: Annotated[list[str], operator.add]


def _node(step: str):  # type: ignore[no-untyped-def]  # LangGraph's types for nodes have no plain name
    async def node(state: Breaking, config: RunnableConfig) -> Breaking:
        trace(step, "start", Steps(name=state.get("name", "")), config)
        return {"done": [step], "held": Held(name=state.get("name", ""))}

    return node


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
_outer.add_edge(START, "inside")
_outer.add_edge("inside", END)
outer = _outer.compile()
