"""Five plain steps that write a trace, wait, block, grow or fail on request, for crash tests and the benchmark.

Two environment variables are set where the worker is started, because a client must not name files of the server:
AGENTLOG_EXAMPLE_TRACE is the file to which each step appends a JSON line when it starts and when it ends;
AGENTLOG_EXAMPLE_GATES is the folder in which a step that holds waits for a file.
"""

import asyncio
import json
import operator
import os
import re
import time
from pathlib import Path
from typing import Annotated, Protocol, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_store
from langgraph.graph import END, START, StateGraph

STEPS = ("one", "two", "three", "four", "five")
MOST_BYTES = 64 * 1024 * 1024
GATE_LOOK_SECONDS = 0.02


class Steps(TypedDict, total=False):
    """Options of a client; all are optional."""

    name: str
    """Names this run in the trace."""
    sleep_ms: float
    """Milliseconds that each step waits without blocking."""
    block_ms: float
    """Milliseconds that each step blocks its event loop, as careless user code does."""
    grow_bytes: int
    """Bytes that each step adds to the state."""
    hold: dict[str, str]
    """Step -> name of the gate (a file in AGENTLOG_EXAMPLE_GATES) for which it waits."""
    remember: str
    """Label of the namespace ("steps", label) of the store in which each step puts an item before it ends."""
    fail_at: str
    """The step that raises."""
    done: Annotated[list[str], operator.add]
    """The steps that ended, in order."""
    padding: Annotated[list[str], operator.add]
    """What `grow_bytes` added."""


def trace(step: str, edge: str, state: Steps, config: RunnableConfig) -> None:
    """Append one line to the trace file, if there is one, in one write, so that lines of many workers never mix."""
    path = os.environ.get("AGENTLOG_EXAMPLE_TRACE")
    if not path:
        return
    ids = config.get("configurable", {})
    attempt = config.get("metadata", {}).get("run_attempt")
    line = {
        "name": state.get("name"),
        "thread_id": str(ids.get("thread_id")),
        "run_id": str(ids.get("run_id")),
        "step": step,
        "edge": edge,
        "attempt": None if attempt is None else str(attempt),
        "pid": os.getpid(),
        "at": time.time(),
    }
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, json.dumps(line).encode() + b"\n")
    finally:
        os.close(handle)


async def pass_gate(name: str) -> None:
    """Wait until the gate's file exists; a cancel of the run ends the wait."""
    folder = os.environ.get("AGENTLOG_EXAMPLE_GATES")
    if not folder or not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
        raise ValueError(f"gate {name!r}: needs a plain name, and AGENTLOG_EXAMPLE_GATES in the worker's environment")
    gate = Path(folder, name)
    while not await asyncio.to_thread(gate.exists):  # noqa: ASYNC110 - a file sends no event
        await asyncio.sleep(GATE_LOOK_SECONDS)


async def work(step: str, state: Steps) -> None:
    """Do the work that the input requests of this step."""
    await asyncio.sleep(state.get("sleep_ms", 0) / 1000)
    time.sleep(state.get("block_ms", 0) / 1000)  # noqa: ASYNC251 - user code that blocks is what block_ms is for
    gate = state.get("hold", {}).get(step)
    if gate:
        await pass_gate(gate)
    if state.get("fail_at") == step:
        raise RuntimeError(f"step {step} was told to fail")


class Step(Protocol):
    """A node as LangGraph calls it."""

    async def __call__(self, state: Steps, config: RunnableConfig) -> Steps: ...


def make_step(step: str) -> Step:
    """Return the node of one step."""

    async def node(state: Steps, config: RunnableConfig) -> Steps:
        trace(step, "start", state, config)
        await work(step, state)
        if label := state.get("remember"):
            ids = config.get("configurable", {})
            await get_store().aput(("steps", label), step, {"run_id": str(ids.get("run_id")), "pid": os.getpid()})
        update = Steps(done=[step])
        if size_bytes := min(state.get("grow_bytes", 0), MOST_BYTES):
            update["padding"] = [step[0] * size_bytes]
        trace(step, "end", state, config)
        return update

    return node


builder = StateGraph(Steps)
for step in STEPS:
    builder.add_node(step, make_step(step))
for before, after in zip((START, *STEPS), (*STEPS, END), strict=True):
    builder.add_edge(before, after)
graph = builder.compile()
