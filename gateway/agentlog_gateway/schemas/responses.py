"""Conversion of rows and facts to the JSON of responses.

Source: docs/http-api.md, sections 4.1, 5.1 and 7.2.
"""

from collections.abc import Sequence
from datetime import datetime

from agentlog_commands.submit import Submitted
from agentlog_facts.envelope import ANONYMOUS
from agentlog_facts.graph_ports import EncodedState, unrooted
from agentlog_facts.json_value import Json, JsonObject, as_object, dump_object
from agentlog_facts.secret_values import SecretKeys, mask_config, mask_kwargs
from agentlog_facts.state_diff import apply_diff
from agentlog_facts.thread import RunCreated, ThreadCopied, ThreadCreated
from agentlog_gateway.http.responses import time_text
from agentlog_projections.models.assistants import Assistant
from agentlog_projections.models.crons.fold import CronRow
from agentlog_projections.models.runs import Run
from agentlog_projections.models.threads import Thread
from agentlog_projections.queries.run_health import unserved_reason
from agentlog_projections.queries.thread_storage import ThreadStorage


def thread_json(row: Thread, keys: SecretKeys) -> JsonObject:
    """Return a thread; `keys` are those under which its config has secrets."""
    return {
        "thread_id": row.thread_id,
        "created_at": time_text(row.created_at),
        "updated_at": time_text(row.updated_at),
        "state_updated_at": time_text(row.state_updated_at),
        "metadata": row.metadata,
        "status": row.status,
        "config": mask_config(row.config, keys),
        "values": unrooted(row.values),
        "error": row.error,
        "interrupts": row.interrupts,
    }


def ttl_json(row: Thread) -> JsonObject:
    """Return {ttl: {strategy, ttl_minutes, expires_at}} of a thread with a time to live, {} of any other."""
    if row.ttl is None:
        return {}
    expires_at = None if row.expires_at is None else time_text(row.expires_at)
    return {"ttl": {**row.ttl, "expires_at": expires_at}}


def storage_json(thread_id: str, found: ThreadStorage) -> JsonObject:
    """Return the storage of a thread."""
    channels = found.channel_values
    by_channel: JsonObject = {
        name: {"versions": one.number, "bytes": one.size_bytes} for name, one in found.channels.items()
    }
    return {
        "thread_id": thread_id,
        "total_bytes": found.total_bytes,
        "checkpoints": {"count": found.checkpoints.number, "bytes": found.checkpoints.size_bytes},
        "channel_values": {"count": channels.number, "bytes": channels.size_bytes, "by_channel": by_channel},
        "pending_writes": {"count": found.writes.number, "bytes": found.writes.size_bytes},
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


def copied_thread_json(done: Submitted, created: ThreadCreated, copied: ThreadCopied) -> JsonObject:
    """Return a copy in the response to its creation, which shows it as idle. Source: docs/http-api.md, section 5.4."""
    values = apply_diff({}, copied.view) if copied.view else None
    return {**new_thread_json(done, created), "values": unrooted(values)}


def run_json(row: Run, keys: SecretKeys, server: JsonObject) -> JsonObject:
    """Return a run with its secrets masked; while it runs, with the metadata of its attempt and of the server."""
    kwargs: JsonObject = mask_kwargs(row.kwargs, keys)
    config = kwargs.get("config")
    if row.status == "running" and isinstance(config, dict):
        given = {**as_object(config.get("metadata") or {}, "metadata"), "run_attempt": row.attempt}
        shown: JsonObject = {**config, "metadata": given | server}
        kwargs = {**kwargs, "config": shown}
    return {
        "run_id": row.run_id,
        "thread_id": row.thread_id,
        "assistant_id": row.assistant_id,
        "created_at": time_text(row.created_at),
        "updated_at": time_text(row.updated_at),
        "status": row.status,
        "metadata": row.metadata,
        "kwargs": kwargs,
        "multitask_strategy": row.multitask_strategy,
        "langsmith_session_name": None,
        "cancel_reason": cancel_reason(row),
    }


def cancel_reason(row: Run) -> Json:
    """Return who cancelled a run, None for a run that nobody has cancelled. Source: docs/http-api.md, section 7.2."""
    error = row.cancel.get("error") if row.cancel is not None else row.error
    if isinstance(error, dict) and error.get("error") in ("UserInterrupt", "UserRollback"):
        return error.get("message")
    return None


def blocked_json(row: Run, graph_ids: Sequence[str], now: datetime) -> JsonObject:
    """Return {blocked: ...} for a run that nobody can take, else {}; `graph_ids` are the graphs that are served."""
    since = row.due_at or row.created_at
    if row.status != "pending" or row.graph_id in graph_ids or since > now:
        return {}
    waiting_secs = round((now - since).total_seconds(), 1)
    reason = unserved_reason(row.graph_id)
    return {"blocked": {"reason": reason, "since": time_text(since), "waiting_secs": waiting_secs}}


def new_run_json(done: Submitted, created: RunCreated, keys: SecretKeys) -> JsonObject:
    """Return a run in its state right after its creation, with its secrets masked."""
    at = time_text(done.occurred_at)
    return {
        "run_id": created.run_id,
        "thread_id": created.thread_id,
        "assistant_id": created.assistant["assistant_id"],
        "created_at": at,
        "updated_at": at,
        "status": "pending",
        "metadata": created.metadata,
        "kwargs": mask_kwargs(created.kwargs, keys),
        "multitask_strategy": created.multitask_strategy,
        "langsmith_session_name": None,
        "cancel_reason": None,
    }


def assistant_json(row: Assistant, keys: SecretKeys) -> JsonObject:
    """Return an assistant with its secrets masked."""
    return {
        "assistant_id": row.assistant_id,
        "graph_id": row.graph_id,
        "config": mask_config(row.config, keys),
        "context": keys.masked(row.context),
        "metadata": row.metadata,
        "name": row.name,
        "created_at": time_text(row.created_at),
        "updated_at": time_text(row.updated_at),
        "version": row.version,
        "description": row.description,
    }


def cron_json(row: CronRow, keys: SecretKeys) -> JsonObject:
    """Return a cron with its secrets masked; its runs find its id in `configurable`."""
    payload = mask_kwargs(row.payload, keys)
    config = payload.get("config")
    given = config if isinstance(config, dict) else {}
    configurable = given.get("configurable")
    names = configurable if isinstance(configurable, dict) else {}
    creator = row.creator.get("sub")
    return {
        "cron_id": row.cron_id,
        "assistant_id": row.assistant_id,
        "thread_id": row.thread_id,
        "user_id": "" if creator == ANONYMOUS.sub or creator is None else creator,
        "end_time": None if row.end_time is None else time_text(row.end_time),
        "schedule": row.schedule,
        "timezone": row.timezone,
        "payload": {**payload, "config": {**given, "configurable": {**names, "cron_id": row.cron_id}}},
        "next_run_date": None if row.next_run_date is None else time_text(row.next_run_date),
        "metadata": row.metadata,
        "on_run_completed": row.on_run_completed,
        "enabled": row.enabled,
        "created_at": time_text(row.created_at),
        "updated_at": time_text(row.updated_at),
    }


def assistant_version_json(row: Assistant, keys: SecretKeys) -> JsonObject:
    """Return a version of an assistant; `created_at` is the time of the version."""
    return {name: value for name, value in assistant_json(row, keys).items() if name != "updated_at"}


def selected(shown: JsonObject, names: Sequence[str] | None) -> JsonObject:
    """Return the selected fields only; None selects all."""
    return shown if names is None else {name: shown[name] for name in names if name in shown}


def selected_state(snapshot: EncodedState, names: Sequence[str] | None) -> bytes:
    """Return the selected fields of a snapshot only, as JSON; a name is that of a field, or `values.<key>`."""
    if not names:
        return snapshot.document()
    shown: dict[str, bytes] = {}
    chosen: dict[str, bytes] = {}
    for name in names:
        field, dot, key = name.partition(".")
        if field in snapshot.fields and not dot:
            shown[field] = snapshot.fields[field]
        elif field == "values" and dot and shown.get("values") != snapshot.fields["values"]:
            if snapshot.values is not None and key in snapshot.values:
                chosen[key] = snapshot.values[key]
            shown["values"] = dump_object(chosen)
    return dump_object(shown)
