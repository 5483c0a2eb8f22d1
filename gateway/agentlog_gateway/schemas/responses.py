"""Conversion of rows and facts to the JSON of responses.

Source: docs/http-api.md, sections 4.1, 5.1 and 7.2.
"""

from collections.abc import Sequence

from agentlog_commands.submit import Submitted
from agentlog_facts.graph_ports import unrooted
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.thread import RunCreated, ThreadCreated
from agentlog_gateway.http.responses import time_text
from agentlog_projections.models.assistants import Assistant
from agentlog_projections.models.runs import Run
from agentlog_projections.models.threads import Thread


def thread_json(row: Thread) -> JsonObject:
    """Return a thread."""
    return {
        "thread_id": row.thread_id,
        "created_at": time_text(row.created_at),
        "updated_at": time_text(row.updated_at),
        "state_updated_at": time_text(row.state_updated_at),
        "metadata": row.metadata,
        "status": row.status,
        "config": row.config,
        "values": unrooted(row.values),
        "error": row.error,
        "interrupts": row.interrupts,
    }


def new_thread_json(done: Submitted, created: ThreadCreated) -> JsonObject:
    """Return a thread in its state right after its creation."""
    at = time_text(done.occurred_at)
    return {
        "thread_id": created.thread_id,
        "created_at": at,
        "updated_at": at,
        "state_updated_at": at,
        "metadata": created.metadata,
        "status": "idle",
        "config": {},
        "values": None,
        "error": None,
        "interrupts": {},
    }


def run_json(row: Run) -> JsonObject:
    """Return a run."""
    return {
        "run_id": row.run_id,
        "thread_id": row.thread_id,
        "assistant_id": row.assistant_id,
        "created_at": time_text(row.created_at),
        "updated_at": time_text(row.updated_at),
        "status": row.status,
        "metadata": row.metadata,
        "kwargs": row.kwargs,
        "multitask_strategy": row.multitask_strategy,
        "langsmith_session_name": None,
    }


def new_run_json(done: Submitted, created: RunCreated) -> JsonObject:
    """Return a run in its state right after its creation."""
    at = time_text(done.occurred_at)
    return {
        "run_id": created.run_id,
        "thread_id": created.thread_id,
        "assistant_id": created.assistant["assistant_id"],
        "created_at": at,
        "updated_at": at,
        "status": "pending",
        "metadata": created.metadata,
        "kwargs": created.kwargs,
        "multitask_strategy": created.multitask_strategy,
        "langsmith_session_name": None,
    }


def assistant_json(row: Assistant) -> JsonObject:
    """Return an assistant."""
    return {
        "assistant_id": row.assistant_id,
        "graph_id": row.graph_id,
        "config": row.config,
        "context": row.context,
        "metadata": row.metadata,
        "name": row.name,
        "created_at": time_text(row.created_at),
        "updated_at": time_text(row.updated_at),
        "version": row.version,
        "description": row.description,
    }


def selected(shown: JsonObject, names: Sequence[str] | None) -> JsonObject:
    """Return the selected fields only; None selects all."""
    return shown if names is None else {name: shown[name] for name in names if name in shown}


def selected_state(snapshot: JsonObject, names: Sequence[str] | None) -> JsonObject:
    """Return the selected fields of a snapshot only; a name is that of a field, or `values.<key>`."""
    if not names:
        return snapshot
    shown: JsonObject = {}
    for name in names:
        field, dot, key = name.partition(".")
        if field in snapshot and not dot:
            shown[field] = snapshot[field]
        elif field == "values" and dot:
            _select_value(shown, snapshot, key)
    return shown


def _select_value(shown: JsonObject, snapshot: JsonObject, key: str) -> None:
    values: Json = snapshot.get("values")
    chosen = shown.setdefault("values", {})
    if isinstance(values, dict) and isinstance(chosen, dict) and key in values:
        chosen[key] = values[key]
