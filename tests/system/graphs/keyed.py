"""Graph that gets secrets: it tells their digest, streams, asks, fails with them in the error, or waits at a gate."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import interrupt
from typing_extensions import TypedDict

from agentlog_infra.examples.example_steps import pass_gate


@dataclass
class Keys:
    """Context with a secret and a part that holds one."""

    api_key: str = ""
    model: dict[str, str] = field(default_factory=dict[str, str])


class Digest(TypedDict, total=False):
    """State: the orders of the test, and the digests of the keys that the nodes got."""

    ask: bool
    fail: bool
    gate: str
    digests: list[str]
    attempts: int


def _digest(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


async def _speak(state: Digest) -> Digest:
    await GenericFakeChatModel(messages=iter([AIMessage("spoken in a subgraph")])).ainvoke("hello")
    return {}


_inner = StateGraph(Digest).add_node("speak", _speak).add_edge(START, "speak").compile()


async def _use(state: Digest, runtime: Runtime[Keys]) -> Digest:
    configurable = get_config().get("configurable", {})
    keys = [runtime.context.api_key, runtime.context.model.get("apiKey"), configurable.get("api_key")]
    gate = state.get("gate")
    if gate:
        folder = Path(os.environ["AGENTLOG_EXAMPLE_GATES"])
        (folder / f"{gate}-reached").touch()
        await pass_gate(gate)
    if state.get("fail"):
        raise ValueError(f"the key {runtime.context.api_key} was refused")
    await GenericFakeChatModel(messages=iter([AIMessage("spoken in the root")])).ainvoke("hello")
    if state.get("ask"):
        interrupt("go on?")
    return {"digests": [_digest(key) for key in keys]}


graph = (
    StateGraph(Digest, context_schema=Keys)
    .add_node("use", _use)
    .add_node("inner", _inner)
    .add_edge(START, "use")
    .add_edge("use", "inner")
    .compile()
)


def made(config: RunnableConfig) -> object:
    """Return the graph, as a factory of a project may."""
    return graph
