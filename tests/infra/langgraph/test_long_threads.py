"""Cost of a run on a long thread, counted in items: those that were there before are read once and encoded never."""

from pathlib import Path

import pytest
from tests.infra.langgraph.executor_env import ExecutorEnv
from tests.infra.projects import loaded

from agentlog_facts.json_value import Json
from agentlog_infra.langgraph.checkpoints import channel_codec
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec, Item, is_list
from agentlog_infra.langgraph.streaming import growing_state
from agentlog_infra.langgraph.value_json import to_json_whole

SOURCE = """
import operator
from typing import Annotated
from langchain_core.messages import AIMessage
from langgraph.graph import MessagesState, START, StateGraph

class State(MessagesState):
    ran: Annotated[list[str], operator.add]

def answer(state):
    return {"messages": [AIMessage("yes")], "ran": ["answer"]}

builder = StateGraph(State)
for before, name in ((START, "a"), ("a", "b"), ("b", "c")):
    builder.add_node(name, answer)
    builder.add_edge(before, name)
chat = builder.compile()
"""
LONG = 300
"""Messages of the long thread."""


class Counts:
    """Numbers of list items by the work that was done with them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded = self.encoded = self.shown = 0
        decode, item, whole = ChannelCodec.decode_items, ChannelCodec.list_item, to_json_whole

        def decode_items(codec: ChannelCodec, items: list[Json]) -> list[object]:
            self.decoded += len(items)
            return decode(codec, items)

        def list_item(codec: ChannelCodec, value: object) -> Item:
            self.encoded += 1
            return item(codec, value)

        def shown(value: object, most_levels: int) -> Json:
            self.shown += len(value) if is_list(value) else 0
            return whole(value, most_levels)

        monkeypatch.setattr(channel_codec.ChannelCodec, "decode_items", decode_items)
        monkeypatch.setattr(channel_codec.ChannelCodec, "list_item", list_item)
        monkeypatch.setattr(growing_state, "to_json_whole", shown)


async def test_a_run_on_a_long_thread_works_on_new_items_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each superstep encoded the whole state again, and its end decoded it again: 5,000 checkpoints cost 6 x 100."""
    with loaded(tmp_path, {"long_project.py": SOURCE}, {"chat": "./long_project.py:chat"}) as graphs:
        env = ExecutorEnv(graphs)
        asked: list[Json] = [{"role": "user", "content": str(number)} for number in range(LONG)]
        ran: list[Json] = ["x"] * LONG
        before = await env.run("chat", input={"messages": asked, "ran": ran})
        env.frames.clear()
        counts = Counts(monkeypatch)
        after = await env.run("chat", run=2, input={"messages": "more"})
    assert before.values is not None
    kept = sum(len(value) for value in before.values.values() if isinstance(value, list))
    assert counts.decoded <= kept + 8, "the state is decoded once"
    assert counts.encoded <= 40, "the log and the pending writes get new items only"
    assert counts.shown <= kept + 8, "the first frame shows all items, the others show new ones"
    assert env.of("values")[-1] == after.values
