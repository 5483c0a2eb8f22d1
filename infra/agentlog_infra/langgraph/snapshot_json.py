"""JSON of LangGraph's state snapshots in the shape of the API. Source: docs/http-api.md, sections 6.1 and 13."""

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.types import PregelTask, StateSnapshot

from agentlog_facts.configurable import CHECKPOINT_ADDRESS
from agentlog_facts.graph_ports import LATEST, ROOT, At
from agentlog_facts.ids import ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra.langgraph.value_json import clean_text, interrupt_json, to_json, to_object


def snapshot_json(snapshot: StateSnapshot) -> JsonObject:
    """Return a snapshot in the API's shape."""
    checkpoint = address_json(snapshot.config)
    parent = address_json(snapshot.parent_config) if snapshot.parent_config else None
    return {
        "values": values_json(snapshot.values),
        "next": [*snapshot.next],
        "tasks": [_task(task) for task in snapshot.tasks],
        "metadata": _metadata(snapshot),
        "created_at": snapshot.created_at,
        "checkpoint": checkpoint if snapshot.metadata is not None or "checkpoint_id" in checkpoint else None,
        "parent_checkpoint": parent,
        "interrupts": [interrupt_json(interrupt) for interrupt in snapshot.interrupts],
        "checkpoint_id": checkpoint.get("checkpoint_id"),
        "parent_checkpoint_id": None if parent is None else parent.get("checkpoint_id"),
    }


def values_json(values: object) -> Json:
    """Return the values of a state: an object for a graph with a schema, anything for an entrypoint."""
    return to_json(values)


def view_json(values: object) -> JsonObject:
    """Return the values in the form of the thread's row: a value that is no object lies under ROOT."""
    shown = to_json(values)
    return shown if isinstance(shown, dict) else {ROOT: shown}


def output_json(graph: Pregel[Any, Any, Any, Any], values: Json) -> Json:
    """Return the part of a state's values, in JSON, that the output schema of its graph names."""
    keys = graph.output_channels
    if keys == graph.stream_channels_asis or not isinstance(values, dict):
        return values
    return values.get(keys) if isinstance(keys, str) else {name: values[name] for name in values if name in keys}


def thread_interrupts(snapshot: StateSnapshot) -> JsonObject:
    """Return {task id: [{id, value}]} of the tasks that wait for an answer."""
    return {
        task.id: [interrupt_json(interrupt) for interrupt in task.interrupts]
        for task in snapshot.tasks
        if task.interrupts
    }


def config_at(thread_id: ThreadId, at: At = LATEST) -> RunnableConfig:
    """Return the config that names a checkpoint of a thread, the latest one by default."""
    named: Mapping[str, object] = {
        "checkpoint_ns": at.checkpoint_ns,
        "checkpoint_id": at.checkpoint_id,
        "checkpoint_map": at.checkpoint_map,
    }
    given = {name: value for name, value in named.items() if value}
    return {"configurable": {"thread_id": thread_id, **given}}


def address_json(config: RunnableConfig) -> JsonObject:
    """Return the keys of a config that name a checkpoint: checkpoint_id, thread_id, checkpoint_ns, checkpoint_map."""
    conf: Mapping[str, object] = config.get("configurable", {})
    shown = {name: conf[name] for name in CHECKPOINT_ADDRESS if conf.get(name) is not None}
    return to_object(shown)


def _metadata(snapshot: StateSnapshot) -> JsonObject | None:
    if snapshot.metadata is None:
        return None
    thread_id = snapshot.config.get("configurable", {}).get("thread_id")
    return to_object(snapshot.metadata) | {"thread_id": to_json(thread_id)}


def _task(task: PregelTask) -> JsonObject:
    state = task.state
    return {
        "id": task.id,
        "name": task.name,
        "path": to_json(task.path),  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - untyped in langgraph
        "error": None if task.error is None else error_text(task.error),
        "interrupts": [interrupt_json(interrupt) for interrupt in task.interrupts],
        "checkpoint": None if state is None or isinstance(state, StateSnapshot) else _subgraph_address(state),
        "state": snapshot_json(state) if isinstance(state, StateSnapshot) else None,
        "result": to_json(task.result),
    }


def error_text(error: object) -> str:
    """Return the unmasked repr, or the text itself if the saver stored the error as text."""
    return clean_text(error if isinstance(error, str) else repr(error))


def _subgraph_address(state: RunnableConfig) -> JsonObject:
    return address_json(state)
