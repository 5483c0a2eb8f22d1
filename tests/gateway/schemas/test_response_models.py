"""Response models of openapi.json against real responses: the same fields, and values that fit."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointMetadata
from langgraph.types import Interrupt, PregelTask, StateSnapshot
from pydantic import BaseModel
from tests.gateway.web_env import without_database

from agentlog_facts.graph_ports import At
from agentlog_facts.ids import AssistantId, RunId, ThreadId
from agentlog_facts.json_value import JsonObject, as_object, load_object
from agentlog_facts.secret_values import SecretKeys
from agentlog_gateway.resources.state import empty_snapshot
from agentlog_gateway.schemas.response_models import (
    AssistantResponse,
    HealthResponse,
    InfoResponse,
    ReadinessResponse,
    RunResponse,
    StateResponse,
    TaskResponse,
    ThreadResponse,
)
from agentlog_gateway.schemas.responses import assistant_json, blocked_json, run_json, thread_json
from agentlog_infra.langgraph.snapshot_json import snapshot_json
from agentlog_projections.models.assistants import Assistant
from agentlog_projections.models.runs import Run
from agentlog_projections.models.threads import Thread

AT = datetime(2026, 1, 2, tzinfo=UTC)
UUID = "019ab000-0000-7000-8000-000000000001"
ERROR: JsonObject = {"error": "ValueError", "message": "no"}
ASSISTANT = Assistant(AssistantId(UUID), 1, "agent", "agent", None, {}, {}, {}, AT, AT, 0)
THREAD = Thread(
    thread_id=ThreadId(UUID),
    partition=0,
    created_at=AT,
    updated_at=AT,
    state_updated_at=AT,
    metadata={"a": 1},
    status="interrupted",
    config={},
    values={"x": 1},
    error=ERROR,
    interrupts={UUID: [{"id": "0" * 32, "value": "why?"}]},
    next=("a",),
    last_run_id=None,
    version=1,
    meta_version=None,
    temporary=False,
)
RUN = Run(
    run_id=RunId(UUID),
    thread_id=ThreadId(UUID),
    assistant_id=UUID,
    graph_id="agent",
    assistant={},
    status="success",
    created_at=AT,
    updated_at=AT,
    metadata={},
    kwargs={"input": {}},
    multitask_strategy="enqueue",
    due_at=None,
    temporary=False,
    attempt=1,
    epoch=None,
    cancel=None,
    outputs_from=None,
    outputs_to=None,
    error=None,
    interrupts=None,
    next=None,
    checkpoint_id=None,
    finished_event_id=None,
    deleted=False,
    thread_deleted=False,
)


def snapshot(*tasks: PregelTask) -> StateSnapshot:
    """Return a LangGraph snapshot with these tasks."""
    config: RunnableConfig = {"configurable": {"thread_id": UUID, "checkpoint_id": UUID, "checkpoint_ns": ""}}
    asked = tuple(interrupt for task in tasks for interrupt in task.interrupts)
    metadata: CheckpointMetadata = {"source": "loop", "step": 1}
    return StateSnapshot({"x": 1}, ("a",), config, metadata, AT.isoformat(), config, tasks, asked)


def fits(model: type[BaseModel], shown: JsonObject) -> None:
    """Assert that a response has the fields of its model and valid values."""
    optional = {name for name, field in model.model_fields.items() if not field.is_required()}
    assert set(shown) | optional == set(model.model_fields)
    model.model_validate(shown)


@pytest.mark.parametrize("row", [THREAD, replace(THREAD, status="idle", values=None, error=None, interrupts={})])
def test_a_thread(row: Thread) -> None:
    fits(ThreadResponse, thread_json(row, SecretKeys()))


def test_a_run() -> None:
    fits(RunResponse, run_json(RUN, SecretKeys(), {}))


def test_a_pending_run_of_a_graph_that_is_not_served_says_that_nobody_can_take_it() -> None:
    waiting = replace(RUN, status="pending", due_at=None, created_at=AT)
    shown = run_json(waiting, SecretKeys(), {}) | blocked_json(waiting, ["another"], AT + timedelta(seconds=90))
    fits(RunResponse, shown)
    blocked = shown["blocked"]
    assert isinstance(blocked, dict)
    assert (blocked["since"], blocked["waiting_secs"]) == (shown["created_at"], 90.0)
    assert f"graph {RUN.graph_id} is not in langgraph.json: nobody can take this run" in str(blocked["reason"])
    assert blocked_json(replace(waiting, due_at=AT + timedelta(days=1)), ["another"], AT) == {}
    assert blocked_json(replace(waiting, status="running"), ["another"], AT) == {}


def test_an_assistant() -> None:
    fits(AssistantResponse, assistant_json(ASSISTANT, SecretKeys()))


@pytest.mark.parametrize("at", [At(), At(UUID)])
def test_a_state_that_is_not_there(at: At) -> None:
    fits(StateResponse, load_object(empty_snapshot(UUID, at).document()))


def test_a_state_with_a_question_a_failure_and_subgraphs() -> None:
    inner = snapshot(PregelTask("1", "b", ("__pregel_pull", "b"), error=ValueError("no")))
    address: RunnableConfig = {"configurable": {"thread_id": UUID, "checkpoint_ns": "child:1"}}
    shown = snapshot_json(
        snapshot(
            PregelTask("2", "a", ("__pregel_pull", "a"), interrupts=(Interrupt("why?", id="0" * 32),)),
            PregelTask("3", "child", ("__pregel_pull", "child"), state=inner),
            PregelTask("4", "child", ("__pregel_pull", "child"), state=address),
        )
    )
    fits(StateResponse, shown)
    tasks = shown["tasks"]
    assert isinstance(tasks, list)
    for task in tasks:
        fits(TaskResponse, as_object(task))


async def test_the_server_itself() -> None:
    async with without_database() as (client, _):
        ok, info, ready = await client.get("/ok"), await client.get("/info"), await client.get("/ready")
    fits(HealthResponse, as_object(ok.json()))
    fits(InfoResponse, as_object(info.json()))
    fits(ReadinessResponse, as_object(ready.json()))
