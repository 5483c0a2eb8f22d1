"""The graph of the recorded histories: a subgraph, a question to a human, a gate, large values. Never changed."""

import asyncio
import operator
import os
from pathlib import Path
from typing import Annotated, TypedDict

from langgraph.config import get_store
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

LOOK_S = 0.02


class Word(TypedDict, total=False):
    """What the subgraph works on."""

    word: str


class Story(TypedDict, total=False):
    """`ask`: put a question; `hold`: wait for this gate; `size`: how large a value the last node writes.

    `remember`: the user under whose namespace the last node puts it, and deletes what lay there before.
    """

    word: str
    items: Annotated[list[str], operator.add]
    ask: bool
    hold: str
    size: int
    remember: str
    large: str


def first(state: Story) -> Story:
    """Begin."""
    return {"items": ["first"], "word": state.get("word", "once")}


def upper(state: Word) -> Word:
    """First node of the subgraph."""
    return {"word": state.get("word", "").upper()}


def louder(state: Word) -> Word:
    """Second node of the subgraph."""
    return {"word": state.get("word", "") + "!"}


def question(state: Story) -> Story:
    """Ask a human, if told to."""
    if not state.get("ask"):
        return {"items": ["not asked"]}
    return {"items": [f"told {interrupt({'question': 'go on?'})}"]}


async def gate(state: Story) -> Story:
    """Wait for a file, if told to."""
    path = Path(os.environ.get("AGENTLOG_EXAMPLE_GATES", ".")) / state.get("hold", "")
    while state.get("hold") and not path.exists():  # noqa: ASYNC110 - a file sends no event
        await asyncio.sleep(LOOK_S)
    return {"items": ["passed"]}


def last(state: Story) -> Story:
    """End, with a large value if told to."""
    large = "large " * (state.get("size", 0) // 6)
    if user := state.get("remember"):
        store, space = get_store(), ("users", user)
        for item in store.search(space):
            store.delete(space, item.key)
        store.put(space, "word", {"word": state.get("word", "")})
        store.put(space, "large", {"text": large})
    return {"items": ["last"], "large": large}


words = StateGraph(Word)
words.add_node("upper", upper)
words.add_node("louder", louder)
words.add_edge(START, "upper")
words.add_edge("upper", "louder")
inner = words.compile()
builder = StateGraph(Story)
builder.add_node("first", first)
builder.add_node("inner", inner)
builder.add_node("question", question)
builder.add_node("gate", gate)
builder.add_node("last", last)
for one, next_one in zip(
    (START, "first", "inner", "question", "gate", "last"),
    ("first", "inner", "question", "gate", "last", END),
    strict=True,
):
    builder.add_edge(one, next_one)
graph = builder.compile()
