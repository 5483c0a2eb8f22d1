"""Builders of facts for tests of projections, with readable ids."""

from datetime import datetime

from tests.projections.projector_env import START

from agentlog_facts.checkpoint import CheckpointSaved, WritesSaved
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.thread import (
    CancelAction,
    RunCancelRequested,
    RunClaimed,
    RunCreated,
    RunDeleted,
    RunFinished,
    RunReleased,
    RunStatus,
    StateUpdated,
    ThreadCreated,
    ThreadDeleted,
    ThreadMetadataPatched,
)

ASSISTANT: JsonObject = {"assistant_id": "a1", "graph_id": "agent", "version": 1, "config": {}, "context": {}}


def thread_created(thread: str = "t1", metadata: JsonObject | None = None, *, temporary: bool = False) -> ThreadCreated:
    return ThreadCreated(ThreadId(thread), metadata or {}, temporary)


def patched(metadata: JsonObject, thread: str = "t1") -> ThreadMetadataPatched:
    return ThreadMetadataPatched(ThreadId(thread), metadata)


def thread_deleted(thread: str = "t1") -> ThreadDeleted:
    return ThreadDeleted(ThreadId(thread))


def state_updated(view: JsonObject, following: tuple[str, ...] = (), thread: str = "t1") -> StateUpdated:
    return StateUpdated(ThreadId(thread), "", "c1", view, following, {})


def run_created(
    run: str = "r1", thread: str = "t1", *, due_at: datetime | None = None, config: JsonObject | None = None
) -> RunCreated:
    kwargs: JsonObject = {"input": {"x": 1}, "config": config or {}}
    return RunCreated(RunId(run), ThreadId(thread), ASSISTANT, {"m": run}, kwargs, "enqueue", due_at)


def run_claimed(run: str = "r1", attempt: int = 1, outputs_from: int = 7) -> RunClaimed:
    return RunClaimed(RunId(run), "worker-1", attempt, outputs_from)


def run_released(epoch: int, run: str = "r1", *, counts: bool = False) -> RunReleased:
    return RunReleased(RunId(run), epoch, "lost", counts)


def cancel_requested(run: str = "r1", action: CancelAction = "interrupt") -> RunCancelRequested:
    name = "UserRollback" if action == "rollback" else "UserInterrupt"
    return RunCancelRequested(RunId(run), action, START, {"error": name, "message": "m"})


def run_finished(
    run: str = "r1",
    view: JsonObject | None = None,
    *,
    status: RunStatus = "success",
    error: JsonObject | None = None,
    following: tuple[str, ...] = (),
    interrupts: JsonObject | None = None,
    checkpoint_id: str | None = None,
) -> RunFinished:
    return RunFinished(RunId(run), status, error, view or {}, following, interrupts or {}, checkpoint_id, 99)


def run_deleted(run: str = "r1", view: JsonObject | None = None) -> RunDeleted:
    return RunDeleted(RunId(run), view or {}, (), {})


def full(channel: str, version: str, value: Json) -> JsonObject:
    return {"channel": channel, "version": version, "kind": "full", "value": value}


def appended(channel: str, version: str, items: list[Json], base: str, length: int, stream: str) -> JsonObject:
    named: JsonObject = {"version": base, "length": length, "stream": stream}
    return {"channel": channel, "version": version, "kind": "append", "items": items, "base": named}


def saved(
    checkpoint: str,
    *channels: JsonObject,
    versions: JsonObject | None = None,
    run: str | None = "r1",
    parent: str | None = None,
    metadata: JsonObject | None = None,
    thread: str = "t1",
) -> CheckpointSaved:
    named = versions if versions is not None else {str(one["channel"]): one["version"] for one in channels}
    return CheckpointSaved(
        ThreadId(thread),
        None if run is None else RunId(run),
        "",
        checkpoint,
        parent,
        {"v": 4, "id": checkpoint, "channel_versions": named},
        metadata or {},
        channels,
    )


def written(
    checkpoint: str, task: str, *writes: tuple[int, str, Json], run: str | None = "r1", thread: str = "t1"
) -> WritesSaved:
    stored: list[Json] = [{"index": index, "channel": channel, "value": value} for index, channel, value in writes]
    run_id = None if run is None else RunId(run)
    return WritesSaved(ThreadId(thread), run_id, "", checkpoint, task, "", tuple(stored))
