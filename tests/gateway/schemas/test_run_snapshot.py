"""What a new run is made of: who wins where assistant, thread, request and server say different things."""

from datetime import UTC, datetime, timedelta

import pytest

from agentlog_facts.ids import AssistantId, RunId, ThreadId
from agentlog_facts.json_value import JsonObject, as_object
from agentlog_facts.thread import RunCreated
from agentlog_gateway.http.errors import Problem
from agentlog_gateway.schemas.run_requests import ThreadRun
from agentlog_gateway.schemas.run_snapshot import RunRequest
from agentlog_projections.queries.command_context import RunAssistant

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def created(body: JsonObject, thread_metadata: JsonObject | None = None, **assistant: JsonObject) -> RunCreated:
    """Return the fact of a request."""
    stored: dict[str, JsonObject] = {"config": {}, "context": {}, "metadata": {"created_by": "system"}, **assistant}
    row = RunAssistant(
        assistant_id=AssistantId("a-1"),
        graph_id="agent",
        version=3,
        config=stored["config"],
        context=stored["context"],
        metadata=stored["metadata"],
    )
    request = ThreadRun.model_validate({"assistant_id": "agent", **body})
    form = RunRequest(request, RunId("r-1"), ThreadId("t-1"), row, "q-1", NOW, temporary=False)
    return form.created(thread_metadata or {})


def config(fact: RunCreated) -> JsonObject:
    return as_object(fact.kwargs["config"])


def configurable(fact: RunCreated) -> JsonObject:
    return as_object(config(fact)["configurable"])


def test_metadata_is_merged_from_assistant_thread_config_and_run_in_this_order() -> None:
    fact = created(
        {"metadata": {"d": 4, "run_id": "x"}, "config": {"metadata": {"c": 3, "d": 3}}},
        {"b": 2, "c": 2, "thread_id": "x", "graph_id": "old"},
        metadata={"a": 1, "b": 1, "c": 1, "d": 1},
    )
    assert fact.metadata == {"a": 1, "b": 2, "c": 3, "d": 4, "graph_id": "agent", "assistant_id": "a-1"}
    assert config(fact)["metadata"] == fact.metadata


def test_the_servers_keys_cannot_be_spoofed() -> None:
    given: JsonObject = {"thread_id": "x", "run_id": "x", "langgraph_auth_user": {"a": 1}, "langgraph_auth_more": 1}
    found = configurable(created({"config": {"configurable": given}}))
    assert (found["thread_id"], found["run_id"], found["langgraph_auth_user"]) == ("t-1", "r-1", None)
    assert "langgraph_auth_more" not in found
    assert found["langgraph_request_id"] == "q-1"


def test_the_keys_that_langgraph_keeps_for_itself_cannot_be_given() -> None:
    given: JsonObject = {"__pregel_checkpointer": "x", "__request_start_time_ms__": -1, "own": 1}
    found = configurable(created({"config": {"configurable": given}}, config={"configurable": {"__pregel_send": 1}}))
    assert [name for name in found if name.startswith("__pregel")] == []
    assert (found["own"], found["__request_start_time_ms__"]) == (1, int(NOW.timestamp() * 1000))
    assert "__pregel_read" not in configurable(created({"context": {"__pregel_read": 1}}))


@pytest.mark.parametrize("given", [{"context": {"a": 2}}, {"config": {"configurable": {"a": 2}}}])
@pytest.mark.parametrize("stored", [{"context": {"a": 1, "b": 1}}, {"config": {"configurable": {"a": 1, "b": 1}}}])
def test_what_a_run_says_wins_over_its_assistant_in_context_and_configurable(
    given: JsonObject, stored: dict[str, JsonObject]
) -> None:
    fact = created(given, **stored)
    assert fact.kwargs["context"] == {"a": 2, "b": 1}
    assert (configurable(fact)["a"], configurable(fact)["b"]) == (2, 1)


def test_configurable_is_merged_by_key_and_tags_and_limits_are_replaced() -> None:
    fact = created(
        {"config": {"configurable": {"b": 2}, "tags": ["mine"]}},
        config={"configurable": {"a": 1, "b": 1}, "tags": ["theirs"], "recursion_limit": 7},
    )
    assert (configurable(fact)["a"], configurable(fact)["b"]) == (1, 2)
    assert (config(fact)["tags"], config(fact)["recursion_limit"]) == (["mine"], 7)


def test_context_and_configurable_mirror_each_other() -> None:
    assert configurable(created({"context": {"model": "m"}}))["model"] == "m"
    fact = created({"config": {"configurable": {"model": "m", "checkpoint_id": "c"}}})
    assert fact.kwargs["context"] == {"model": "m"}


def test_context_and_configurable_are_not_given_together() -> None:
    with pytest.raises(Problem) as refused:
        created({"context": {"a": 1}, "config": {"configurable": {"a": 1}}})
    assert refused.value.status == 400


def test_a_checkpoint_stands_in_configurable() -> None:
    ref = "1ef0a1b2-0000-6000-8000-000000000001"
    assert configurable(created({"checkpoint_id": ref}))["checkpoint_id"] == ref
    found = configurable(created({"checkpoint": {"checkpoint_id": ref, "checkpoint_ns": "", "thread_id": "x"}}))
    assert (found["checkpoint_id"], found["checkpoint_ns"], found["thread_id"]) == (ref, "", "t-1")


def test_a_command_takes_the_place_of_the_input() -> None:
    kwargs = created({"input": {"a": 1}, "command": {"resume": "yes"}}).kwargs
    assert (kwargs["input"], kwargs["command"]) == (None, {"update": None, "resume": "yes", "goto": None})


@pytest.mark.parametrize(
    ("body", "durability", "during"),
    [
        ({}, "async", True),
        ({"checkpoint_during": False}, "exit", False),
        ({"checkpoint_during": True}, "async", True),
        ({"durability": "sync"}, "sync", True),
        ({"durability": "exit", "checkpoint_during": True}, "exit", False),
    ],
)
def test_durability_wins_over_the_older_name(body: JsonObject, durability: str, during: bool) -> None:
    kwargs = created(body).kwargs
    assert (kwargs["durability"], kwargs["checkpoint_during"]) == (durability, during)


def test_only_a_delay_ahead_makes_a_run_wait() -> None:
    assert created({"after_seconds": 1.5}).due_at == NOW + timedelta(seconds=1.5)
    assert created({"after_seconds": -1}).due_at is None
