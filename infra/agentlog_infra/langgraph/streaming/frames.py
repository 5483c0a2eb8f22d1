"""Encoder of what LangGraph streams of a run as frames, without secrets."""

from typing import TypeGuard

from agentlog_facts.frame import Frame
from agentlog_facts.json_value import MOST_LEVELS, Json, JsonObject
from agentlog_facts.secret_values import HiddenValues
from agentlog_infra.langgraph.streaming.growing_state import GrowingStateJson
from agentlog_infra.langgraph.value_json import clean_text, to_json_whole

DESCRIBED = frozenset({"checkpoints", "tasks", "debug"})
"""Stream modes whose frames show configs, metadata and errors beside the values of nodes."""
NODE_VALUES = frozenset({"values", "input", "result", "interrupts", "state", "payload", "tasks"})
"""Parts of such a frame with values of nodes, or with parts that have some."""
FRAME_LEVELS = MOST_LEVELS + 2
"""LangGraph wraps the values of a state for the stream: by node, or with their metadata."""


class FrameEncoder:
    """Encodes the stream of one run of a graph."""

    def __init__(self, hidden: HiddenValues) -> None:
        self._hidden = hidden
        self._states = GrowingStateJson(FRAME_LEVELS)

    def frame(self, item: object) -> Frame:
        """Return the frame of an item of the stream. Raises: TooDeep."""
        ns, mode, data = _part(item)
        if mode == "values" and not ns:
            return Frame.encoded(mode, self._states.encode(data))
        return Frame(mode, self._shown(mode, to_json_whole(data, FRAME_LEVELS)), clean_text("|".join(ns)))

    def _shown(self, mode: str, data: Json) -> Json:
        """Return the data of a frame; what LangGraph adds to the values of nodes shows no secrets."""
        if mode == "messages" and isinstance(data, list) and len(data) == 2 and isinstance(data[1], dict):
            return [data[0], self._hidden.metadata(data[1])]
        return self._described(data) if mode in DESCRIBED and isinstance(data, dict) else data

    def _described(self, data: JsonObject) -> JsonObject:
        """Return the description of a checkpoint or task without secrets, but with the values of nodes as they are."""
        shown = self._hidden.masked({name: item for name, item in data.items() if name not in NODE_VALUES})
        for name, item in data.items():
            if isinstance(item, dict) and name == "payload":
                shown[name] = self._described(item)
            elif isinstance(item, list) and name == "tasks":
                shown[name] = [self._described(one) if isinstance(one, dict) else one for one in item]
        return {name: shown.get(name, item) for name, item in data.items()}


def _part(item: object) -> tuple[tuple[str, ...], str, object]:
    """Return (namespace, mode, data) of an item of a stream; LangGraph leaves out the namespace without subgraphs."""
    if _is_nested_part(item):
        return item
    if _is_root_part(item):
        return (), *item
    raise TypeError(f"langgraph streams {type(item).__name__}, expected (namespace, mode, data) or (mode, data)")


def _is_nested_part(item: object) -> TypeGuard[tuple[tuple[str, ...], str, object]]:
    return isinstance(item, tuple) and len(item) == 3  # pyright: ignore[reportUnknownArgumentType]  # any tuple


def _is_root_part(item: object) -> TypeGuard[tuple[str, object]]:
    return isinstance(item, tuple) and len(item) == 2  # pyright: ignore[reportUnknownArgumentType]  # any tuple
