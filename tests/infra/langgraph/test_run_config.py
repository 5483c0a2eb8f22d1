"""Tests of LangGraph's config for a run: the stored config with the ids of the attempt."""

import pytest

from agentlog_facts.envelope import Actor, Cause
from agentlog_facts.execution_port import RunAssignment
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_infra.langgraph.run_config import run_config, run_context, run_input, with_context

RUN = RunId("00000000-0000-7000-8000-000000000001")
CHECKPOINT: JsonObject = {"checkpoint_id": "c1", "checkpoint_ns": "", "checkpoint_map": None}


def order(
    config: JsonObject, metadata: JsonObject | None = None, thread_metadata: JsonObject | None = None
) -> RunAssignment:
    """Return an attempt of a run whose assistant has a config, a context and metadata."""
    assistant: JsonObject = {
        "assistant_id": "a1",
        "config": {"configurable": {"theirs": 1}, "tags": ["theirs"], "recursion_limit": 7, "metadata": {"theirs": 1}},
        "context": {"theirs": 1},
        "metadata": {"theirs": 1},
    }
    return RunAssignment(
        run_id=RUN,
        thread_id=ThreadId("t1"),
        graph_id="steps",
        epoch=3,
        attempt=2,
        assistant=assistant,
        kwargs={"config": config, "context": {}},
        metadata=metadata or {},
        thread_metadata=thread_metadata or {},
        cause=Cause(Actor("worker", "w1"), "c1"),
    )


def test_an_assistant_is_not_merged_a_second_time() -> None:
    found = run_config(order({}), from_checkpoint=True)
    assert found.get("configurable") == {
        "run_id": RUN,
        "thread_id": "t1",
        "graph_id": "steps",
        "assistant_id": "a1",
    }
    assert "theirs" not in found.get("metadata", {})
    assert {"tags", "recursion_limit"}.isdisjoint(found)
    assert run_context(order({})) == {}


def test_the_stored_config_is_given_as_it_is_without_what_is_null() -> None:
    stored: JsonObject = {
        "tags": ["mine"],
        "recursion_limit": 3,
        "run_name": "named",
        "configurable": {"own": 1, "nothing": None, "thread_id": "other"},
    }
    found = run_config(order(stored), from_checkpoint=True)
    assert (found.get("tags"), found.get("recursion_limit"), found.get("run_name")) == (["mine"], 3, "named")
    configurable = found.get("configurable", {})
    assert (configurable["own"], configurable["thread_id"], "nothing" in configurable) == (1, "t1", False)


@pytest.mark.parametrize(("from_checkpoint", "expected"), [(True, CHECKPOINT), (False, {})])
def test_a_checkpoint_is_where_the_first_attempt_starts(from_checkpoint: bool, expected: JsonObject) -> None:
    found = run_config(order({"configurable": {**CHECKPOINT}}), from_checkpoint=from_checkpoint)
    configurable = found.get("configurable", {})
    assert {name: configurable[name] for name in CHECKPOINT if name in configurable} == expected


def test_what_a_thread_was_given_since_loses_to_the_run_and_no_metadata_wins_over_the_ids() -> None:
    given = order({}, metadata={"a": 1, "run_id": "x"}, thread_metadata={"a": 2, "b": 2, "thread_id": "x"})
    metadata = run_config(given, from_checkpoint=True).get("metadata", {})
    assert (metadata["a"], metadata["b"]) == (1, 2)
    assert (metadata["run_id"], metadata["thread_id"], metadata["run_attempt"]) == (RUN, "t1", 2)


@pytest.mark.parametrize("command", [{}, {"update": None, "resume": None, "goto": None}])
def test_a_run_with_an_empty_command_ignores_its_input(command: JsonObject) -> None:
    assert run_input({"input": {"a": 1}, "command": command}) is None
    assert run_input({"input": {"a": 1}, "command": None}) == {"a": 1}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [(None, {"model": "m", "user_id": "ana", "own": 1}), ({"model"}, {"model": "m", "user_id": "", "own": 1})],
)
def test_configurable_gets_the_context_of_a_graph_that_only_its_factory_knows(
    keys: set[str] | None, expected: JsonObject
) -> None:
    context: JsonObject = {"model": "m", "user_id": "ana", "own": 2, "run_id": "x", "__pregel_read": 1}
    found = with_context({"configurable": {"user_id": "", "own": 1}}, context, keys)
    assert found.get("configurable") == expected
