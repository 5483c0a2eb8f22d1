"""A graph whose second node ends its process, or tries to, in the way that its input names."""

import asyncio
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Literal, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph


class Dying(TypedDict, total=False):
    """State of the graph; `how`: the way in which it ends its process; `done`: the nodes that returned."""

    how: str
    done: list[str]


def segfault() -> None:
    """Read from address 0."""
    ctypes.string_at(0)


def close_all() -> None:
    """Close every file descriptor: sockets, pipes, and those of the event loops."""
    os.closerange(3, 65_536)


def take_memory() -> None:
    """Ask for more memory than this process may have from now on."""
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    bytearray(2**31)


def fork_a_child_that_exits() -> None:
    """Fork; the child exits, as a library does that was not made for threads."""
    if os.fork() == 0:
        sys.exit(5)


def kill_itself() -> None:
    """End as the kernel ends a process that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def stop_the_loop() -> None:
    """Stop the event loop that runs this code."""
    asyncio.get_running_loop().stop()


def exit_with(status: int) -> Callable[[], object]:
    """Return code that ends the process with this status, whatever the supervisor takes it for."""
    return lambda: os._exit(status)


WAYS: Mapping[str, Callable[[], object]] = {
    "exit": exit_with(3),
    "exit_0": exit_with(0),
    "exit_2": exit_with(2),
    "exit_75": exit_with(75),
    "abort": os.abort,
    "segfault": segfault,
    "sys_exit": lambda: sys.exit(3),
    "close_all": close_all,
    "kill": kill_itself,
    "memory": take_memory,
    "fork": fork_a_child_that_exits,
    "stop_loop": stop_the_loop,
    "none": lambda: None,
}


def first(state: Dying) -> Dying:
    """Return, so that there is a checkpoint."""
    return {"done": ["first"]}


def in_a_thread(state: Dying) -> Dying:
    """End the process in a thread."""
    WAYS[state.get("how", "none").removesuffix("_async")]()
    return {"done": [*state.get("done", []), "second"]}


async def on_the_loop(state: Dying) -> Dying:
    """End the process on an event loop."""
    in_a_thread(state)
    await asyncio.sleep(0)
    return {"done": [*state.get("done", []), "second"]}


def way(state: Dying) -> Literal["in_a_thread", "on_the_loop"]:
    """Return the node that dies in this way."""
    return "on_the_loop" if state.get("how", "none").endswith(("_async", "stop_loop")) else "in_a_thread"


def make(config: RunnableConfig) -> "StateGraph[Dying, None, Dying, Dying]":
    """Return the graph, unless its configuration names a way in which this factory ends the process."""
    WAYS[str(config.get("configurable", {}).get("how", "none"))]()
    return builder


builder = StateGraph(Dying)
builder.add_node("first", first)
builder.add_node("in_a_thread", in_a_thread)
builder.add_node("on_the_loop", on_the_loop)
builder.add_edge(START, "first")
builder.add_conditional_edges("first", way)
builder.add_edge("in_a_thread", END)
builder.add_edge("on_the_loop", END)
graph = builder.compile()
