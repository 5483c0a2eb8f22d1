"""Encoder of what LangGraph streams of a run as frames, without secrets and without masked errors.

Source: docs/http-api.md, sections 10.2 to 10.6.
"""

from collections.abc import Iterable, Mapping
from typing import TypeGuard

from langchain_core.messages import BaseMessage

from agentlog_facts.configurable import CHECKPOINT_ADDRESS, is_reserved
from agentlog_facts.frame import Frame
from agentlog_facts.json_value import MOST_LEVELS, Json, JsonObject
from agentlog_facts.secret_values import HiddenValues
from agentlog_infra.langgraph.errors import error_json, stored_error_json
from agentlog_infra.langgraph.run_config import accumulates
from agentlog_infra.langgraph.streaming.accumulated_messages import AccumulatedMessages
from agentlog_infra.langgraph.streaming.growing_state import GrowingStateJson
from agentlog_infra.langgraph.streaming.tool_errors import ToolErrors
from agentlog_infra.langgraph.value_json import clean_text, to_json_whole

DESCRIBED = frozenset({"checkpoints", "tasks", "debug"})
"""Stream modes whose frames show configs, metadata and errors beside the values of nodes."""
NODE_VALUES = frozenset({"values", "input", "result", "interrupts", "state", "payload", "tasks"})
"""Parts of such a frame with values of nodes, or with parts that have some."""
FRAME_LEVELS = MOST_LEVELS + 2
"""LangGraph wraps the values of a state for the stream: by node, or with their metadata."""
EVENT_LEVELS = FRAME_LEVELS + 4
"""An event wraps what a graph streams once more: {data: {chunk: (namespace, mode, data)}}."""


class FrameEncoder:
    """Encodes the stream of one run of a graph; `kwargs` are those of its `RunCreated`."""

    def __init__(self, hidden: HiddenValues, kwargs: JsonObject, run_id: str = "") -> None:
        self._hidden = hidden
        self._run_id = run_id
        self._states = GrowingStateJson(FRAME_LEVELS)
        self._messages = AccumulatedMessages(_frame_json) if accumulates(kwargs) else None
        self.tool_errors = ToolErrors()

    def frames(self, item: object) -> Iterable[Frame]:
        """Return the frames of an item of `astream`, most often one. Raises: TooDeep."""
        ns, mode, data = _part(item)
        if mode == "values" and not ns:
            return (Frame.encoded(mode, self._states.encode(data)),)
        if mode == "messages" and self._messages is not None and _is_token(data):
            message, metadata = data
            shown = _frame_json(metadata)
            return self._messages.frames(message, self._hidden.metadata(shown if isinstance(shown, dict) else {}))
        return (Frame(mode, self._json(mode, data), clean_text("|".join(ns))),)

    def event_frames(self, event: Mapping[str, object]) -> Iterable[Frame]:
        """Return the frame of an event of `astream_events`, and those of the item that it brings. Raises: TooDeep."""
        data = event.get("data")
        given: Mapping[str, object] = data if _is_mapping(data) else {}
        brought = event.get("event") == "on_chain_stream" and event.get("run_id") == self._run_id
        item = given.get("chunk") if brought else None
        parts = {name: part for name, part in given.items() if name != "chunk" or not _is_part(item)}
        if isinstance(error := parts.get("error"), BaseException):
            parts["error"] = self._hidden.fields(error_json(error))
        shown = to_json_whole({**event, "data": parts}, EVENT_LEVELS)
        if not isinstance(shown, dict):
            raise TypeError(f"langchain streams {type(event).__name__}, expected an object")
        metadata, shown_data = shown.get("metadata"), shown.get("data")
        if isinstance(metadata, dict):
            shown["metadata"] = self._hidden.metadata(metadata)
        if not _is_part(item) or not isinstance(shown_data, dict):
            return (Frame("events", shown),)
        ns, mode, value = _part(item)
        place: list[Json] = [[clean_text(name) for name in ns]] if _is_nested_part(item) else []
        shown_data["chunk"] = [*place, mode, self._json(mode, value)]
        return (Frame("events", shown), *self.frames(item))

    def _json(self, mode: str, data: object) -> Json:
        """Return the data of a frame; what LangGraph adds to the values of nodes shows no secrets."""
        if mode in DESCRIBED:
            shown = _frame_json(self._with_errors(data))
            return self._described(shown) if isinstance(shown, dict) else shown
        shown = _frame_json(data)
        if mode == "messages" and isinstance(shown, list) and len(shown) == 2 and isinstance(shown[1], dict):
            return [shown[0], self._hidden.metadata(shown[1])]
        if mode == "tools" and isinstance(shown, dict) and shown.get("event") == "tool-error":
            return self._hidden.fields(shown | {"message": self.tool_errors.shown(str(shown.get("message")))})
        return shown

    def _with_errors(self, data: object) -> object:
        """Return the description of a checkpoint or task with errors as {error, message}.

        LangGraph describes the error of an earlier attempt by the text that the saver kept.
        """
        if not _is_mapping(data):
            return data
        shown = dict(data)
        if isinstance(error := data.get("error"), BaseException | str):
            shown["error"] = self._hidden.fields(
                stored_error_json(error) if isinstance(error, str) else error_json(error)
            )
        if "payload" in data:
            shown["payload"] = self._with_errors(data["payload"])
        tasks = data.get("tasks")
        if _is_list(tasks):
            shown["tasks"] = [self._with_errors(task) for task in tasks]
        return shown

    def _described(self, data: JsonObject) -> JsonObject:
        """Return the description of a checkpoint or task without secrets, but with the values of nodes as they are."""
        shown = self._hidden.masked({name: item for name, item in data.items() if name not in NODE_VALUES})
        for name, item in data.items():
            if isinstance(item, dict) and name == "payload":
                shown[name] = self._described(item)
            elif isinstance(item, list) and name == "tasks":
                shown[name] = [self._described(one) if isinstance(one, dict) else one for one in item]
        configs: JsonObject = {name: _public(shown[name]) for name in ("config", "parent_config") if name in shown}
        payload = shown.get("payload")
        if data.get("type") == "checkpoint" and isinstance(payload, dict):
            named = {"checkpoint": "config", "parent_checkpoint": "parent_config"}
            shown["payload"] = payload | {name: _address(payload.get(config)) for name, config in named.items()}
        return {name: shown.get(name, item) for name, item in data.items()} | configs


def _frame_json(data: object) -> Json:
    return to_json_whole(data, FRAME_LEVELS)


def _public(config: Json) -> Json:
    """Return the config of a checkpoint without the keys of its `configurable` that no client may see."""
    configurable = config.get("configurable") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(configurable, dict):
        return config
    return config | {"configurable": {name: item for name, item in configurable.items() if not is_reserved(name)}}


def _address(config: Json) -> Json:
    """Return the address of the checkpoint that a config names, None if there is none."""
    configurable = config.get("configurable") if isinstance(config, dict) else None
    if not isinstance(configurable, dict):
        return None
    return {name: configurable[name] for name in CHECKPOINT_ADDRESS if name in configurable}


def _part(item: object) -> tuple[tuple[str, ...], str, object]:
    """Return (namespace, mode, data) of an item of a stream; LangGraph leaves out the namespace without subgraphs."""
    if _is_nested_part(item):
        return item
    if _is_root_part(item):
        return (), *item
    raise TypeError(f"langgraph streams {type(item).__name__}, expected (namespace, mode, data) or (mode, data)")


def _is_part(item: object) -> bool:
    return _is_nested_part(item) or _is_root_part(item)


def _is_nested_part(item: object) -> TypeGuard[tuple[tuple[str, ...], str, object]]:
    return isinstance(item, tuple) and len(item) == 3  # pyright: ignore[reportUnknownArgumentType]  # any tuple


def _is_root_part(item: object) -> TypeGuard[tuple[str, object]]:
    return isinstance(item, tuple) and len(item) == 2  # pyright: ignore[reportUnknownArgumentType]  # any tuple


def _is_token(data: object) -> TypeGuard[tuple[BaseMessage, object]]:
    return _is_root_part(data) and isinstance(data[0], BaseMessage)


def _is_mapping(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)
