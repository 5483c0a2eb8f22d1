"""A graph whose first node ignores a stop request, in the way that its input names."""

import asyncio
import ctypes
import threading
from collections.abc import Callable, Mapping
from typing import Literal, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from agentlog_infra.examples.example_steps import Steps, trace

LONG_S = 3600


class Stubborn(TypedDict, total=False):
    """State of the graph; `how`: the way in which it gets stuck, or none."""

    name: str
    how: str
    done: bool


def blocks_in_c() -> None:
    """Sleep in C without the GIL, as a database driver does."""
    ctypes.CDLL(None).sleep(LONG_S)


def holds_the_lock() -> None:
    """Sleep in C with the GIL, so that no other Python code of the process runs."""
    ctypes.PyDLL(None).sleep(LONG_S)


def never_returns() -> None:
    """Wait forever."""
    threading.Event().wait()


SYNC: Mapping[str, Callable[[], None]] = {
    "blocks_in_c": blocks_in_c,
    "holds_the_lock": holds_the_lock,
    "never_returns": never_returns,
}


def in_a_thread(state: Stubborn, config: RunnableConfig) -> Stubborn:
    """Get stuck in a thread."""
    trace("stuck", "start", Steps(name=state.get("name", "")), config)
    SYNC[state.get("how", "")]()
    return {"done": True}


async def on_the_loop(state: Stubborn, config: RunnableConfig) -> Stubborn:
    """Get stuck on the event loop, by blocking it or without blocking it."""
    trace("stuck", "start", Steps(name=state.get("name", "")), config)
    if state.get("how") == "blocks_the_loop":
        blocks_in_c()
    if state.get("how") == "waits_for_ever":
        await asyncio.Event().wait()
    while state.get("how") == "swallows_cancellation":
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            trace("stuck", "swallowed", Steps(name=state.get("name", "")), config)
    return {"done": True}


def way(state: Stubborn) -> Literal["in_a_thread", "on_the_loop"]:
    """Return the node that gets stuck in this way."""
    return "in_a_thread" if state.get("how") in SYNC else "on_the_loop"


builder = StateGraph(Stubborn)
builder.add_node("in_a_thread", in_a_thread)
builder.add_node("on_the_loop", on_the_loop)
builder.add_conditional_edges(START, way)
builder.add_edge("in_a_thread", END)
builder.add_edge("on_the_loop", END)
graph = builder.compile()
