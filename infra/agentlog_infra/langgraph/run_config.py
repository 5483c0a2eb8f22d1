"""LangGraph's arguments of a run, read from `RunCreated`: config, context, input or command, stream modes.

`agentlog_commands.run_request` merges them before they are stored. Source: docs/http-api.md, sections 7.1, 7.2 and 13.
"""

from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Literal, TypeAlias
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Send, StreamMode

from agentlog_commands.run_request import Durability, mirrored
from agentlog_facts.configurable import CHECKPOINT_KEYS, USER_ID, is_server_key
from agentlog_facts.execution_port import RunAssignment
from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_facts.version import VERSION

Stops: TypeAlias = Literal["*"] | list[str] | None
DURABILITIES: Mapping[str, Durability] = {"sync": "sync", "async": "async", "exit": "exit"}
MODES: Mapping[str, StreamMode] = {
    "values": "values",
    "updates": "updates",
    "messages": "messages",
    "messages-tuple": "messages",
    "custom": "custom",
    "tasks": "tasks",
    "checkpoints": "checkpoints",
    "debug": "debug",
    "tools": "tools",  # type: ignore[dict-item]  # langgraph 1.2 streams it, but its type lacks it
}
STRICT_RESUME = "__pregel_strict_resume"
"""LangGraph's key of `configurable` for it. Source: langgraph._internal._constants."""
LANGGRAPH = version("langgraph")
HOST = "self-hosted"
"""The value of `langgraph_plan` and `langgraph_host` for a server that is no hosted service."""


def run_config(order: RunAssignment, *, from_checkpoint: bool, api_url: str | None = None) -> RunnableConfig:
    """Return the config of the run; without `from_checkpoint` it starts at the thread's latest checkpoint.

    `RunCreated` holds the merged config. The ids of the attempt replace those in it.
    """
    stored = _object(order.kwargs, "config")
    configurable = _object(stored, "configurable") | _identity(order)
    if not from_checkpoint:
        configurable = {name: value for name, value in configurable.items() if name not in CHECKPOINT_KEYS}
    config: RunnableConfig = {
        "configurable": {
            name: value for name, value in configurable.items() if value is not None or name in CHECKPOINT_KEYS
        },
        "metadata": dict(_metadata(order, api_url)),
        "run_id": UUID(order.run_id),
    }
    tags = stored.get("tags")
    if tags and isinstance(tags, list):
        config["tags"] = [str(tag) for tag in tags]
    limit = stored.get("recursion_limit")
    if limit and isinstance(limit, int):
        config["recursion_limit"] = limit
    at_once = stored.get("max_concurrency")
    if isinstance(at_once, int) and at_once is not True and at_once > 0:
        config["max_concurrency"] = at_once
    name = stored.get("run_name")
    if name and isinstance(name, str):
        config["run_name"] = name
    return config


def strict_resume(config: RunnableConfig, kwargs: JsonObject) -> RunnableConfig:
    """Return the config with which LangGraph refuses an answer to an interrupt that does not wait, if the run asks."""
    if kwargs.get("strict_resume") is not True:
        return config
    return {**config, "configurable": {**config.get("configurable", {}), STRICT_RESUME: True}}


def _identity(order: RunAssignment) -> JsonObject:
    return {
        "run_id": order.run_id,
        "thread_id": order.thread_id,
        "graph_id": order.graph_id,
        "assistant_id": order.assistant.get("assistant_id"),
    }


def _metadata(order: RunAssignment, api_url: str | None) -> JsonObject:
    """Return the metadata. The run's replaces the thread's current metadata; the ids of the attempt replace both."""
    return {
        "created_by": "system",
        "graph_id": order.graph_id,
        **order.thread_metadata,
        **order.metadata,
        "assistant_id": order.assistant.get("assistant_id"),
        "run_id": order.run_id,
        "thread_id": order.thread_id,
        "run_attempt": order.attempt,
        **server_metadata(api_url),
    }


def server_metadata(api_url: str | None) -> JsonObject:
    """Return the metadata that names the server that executes a run."""
    named: JsonObject = {
        "langgraph_version": LANGGRAPH,
        "langgraph_api_version": VERSION,
        "langgraph_plan": HOST,
        "langgraph_host": HOST,
    }
    return named if api_url is None else named | {"langgraph_api_url": api_url}


def run_context(order: RunAssignment) -> JsonObject:
    """Return the context as the client gave it."""
    return _object(order.kwargs, "context")


def with_context(config: RunnableConfig, context: JsonObject, keys: Collection[str] | None) -> RunnableConfig:
    """Return the config of a run with the keys of its context that `configurable` mirrors.

    `RunCreated` holds them, except those of a graph that only its factory knows.
    """
    configurable = config.get("configurable", {})
    more = {name: value for name, value in mirrored(context, keys).items() if not is_server_key(name)}
    if not configurable.get(USER_ID) and more.get(USER_ID) is not None:
        configurable = {**configurable, USER_ID: more[USER_ID]}
    return {**config, "configurable": {**more, **configurable}}


def run_input(kwargs: JsonObject) -> Any:  # Any: any JSON, or a Command; the graph's schema validates it
    """Return the command if any of its fields is set, else the input; a run with a command ignores its input."""
    if kwargs.get("command") is None:
        return kwargs.get("input")
    command = as_object(kwargs["command"], "command")
    return command_of(command) if _given(command) else None


def is_only_update(kwargs: JsonObject) -> bool:
    """Return whether a run has a command with `update`, but without `resume` and `goto`."""
    command = kwargs.get("command")
    return isinstance(command, dict) and bool(command.get("update")) and not {"resume", "goto"} & _given(command)


def _given(command: JsonObject) -> set[str]:
    return {name for name, value in command.items() if value is not None}


def command_of(stated: JsonObject) -> Command[str]:
    """Return a command as LangGraph takes it."""
    return Command(resume=stated.get("resume"), update=_update(stated.get("update")), goto=_goto(stated.get("goto")))


def _update(update: Json) -> Any:  # Any: an object, or a list of (key, value) pairs
    if isinstance(update, list):
        return [(str(pair[0]), pair[1]) for pair in update if isinstance(pair, list) and len(pair) == 2]
    return update


def _goto(goto: Json) -> Sequence[Send | str]:
    stated = goto if isinstance(goto, list) else [] if goto is None else [goto]
    return [Send(str(to.get("node")), to.get("input")) if isinstance(to, dict) else str(to) for to in stated]


def stream_modes(kwargs: JsonObject) -> list[StreamMode]:
    """Return LangGraph's names of the run's stream modes; `events` is no mode of LangGraph, unknown modes are left out.

    The list is empty for a run that streams only events. The default is `values`.
    """
    names = _asked_modes(kwargs)
    modes: dict[StreamMode, None] = {MODES[name]: None for name in names if name in MODES}
    return list(modes if modes or "events" in names else {"values": None})


def streams_events(kwargs: JsonObject) -> bool:
    """Return whether the run streams the events of LangChain."""
    return "events" in _asked_modes(kwargs)


def accumulates(kwargs: JsonObject) -> bool:
    """Return whether the run streams whole messages; `messages-tuple` replaces that mode.

    Source: docs/http-api.md, section 10.2.
    """
    names = _asked_modes(kwargs)
    return "messages" in names and "messages-tuple" not in names


def _asked_modes(kwargs: JsonObject) -> list[str]:
    wanted = kwargs.get("stream_mode")
    names = wanted if isinstance(wanted, list) else [wanted]
    return [name for name in names if isinstance(name, str)]


def stops(kwargs: JsonObject, name: str) -> Stops:
    """Return the nodes of `interrupt_before` or `interrupt_after`: all, some, or None."""
    stated = kwargs.get(name)
    if isinstance(stated, list):
        return [str(node) for node in stated] or None
    return "*" if stated == "*" else None


def durability(kwargs: JsonObject) -> Durability:
    """Return the durability of each step; the default is async."""
    return DURABILITIES.get(str(kwargs.get("durability")), "async")


def _object(stated: JsonObject, name: str) -> JsonObject:
    value = stated.get(name)
    return value if isinstance(value, dict) else {}
