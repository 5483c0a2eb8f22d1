"""Bodies that create runs: defaults, and older names of fields."""

from datetime import UTC, datetime

import pytest

from agentlog_commands.run_request import RunAssistant, RunIds, RunRequest
from agentlog_facts.ids import AssistantId, RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_facts.thread import RunCreated
from agentlog_gateway.schemas.run_requests import StatelessRun, ThreadRun

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CHECKPOINT = "1ef0a1b2-0000-6000-8000-000000000001"


def on_thread(body: JsonObject) -> RunRequest:
    """Return the request for a run on a thread."""
    return ThreadRun.model_validate({"assistant_id": "agent", **body}).request()


def stateless(body: JsonObject) -> RunRequest:
    """Return the request for a run on a new thread."""
    return StatelessRun.model_validate({"assistant_id": "agent", **body}).request()


def kwargs(body: JsonObject) -> JsonObject:
    """Return the stored arguments of a run on a thread."""
    assistant = RunAssistant(AssistantId("a-1"), "agent", 3, {}, {}, {"created_by": "system"})
    fact = on_thread(body).resolve(assistant, {}, RunIds(RunId("r-1"), ThreadId("t-1"), "q-1"), NOW)
    assert isinstance(fact, RunCreated), fact
    return fact.kwargs


def configurable(body: JsonObject) -> JsonObject:
    return as_object(as_object(kwargs(body)["config"])["configurable"])


def test_a_body_that_says_nothing_asks_for_the_defaults() -> None:
    nothing: JsonObject = {"configurable": {}, "metadata": {}}
    assert on_thread({}) == RunRequest(config=nothing, stream_mode=["values"])
    assert stateless({}) == RunRequest(config=nothing, stream_mode=["values"], creates_thread=True, temporary=True)


def test_a_config_keeps_its_own_keys_and_drops_those_that_are_null() -> None:
    given: JsonObject = {"mine": 1, "tags": None, "recursion_limit": 3, "configurable": None, "metadata": {"a": None}}
    assert on_thread({"config": given}).config == {
        "recursion_limit": 3,
        "mine": 1,
        "configurable": {},
        "metadata": {"a": None},
    }


def test_a_checkpoint_stands_in_configurable() -> None:
    assert configurable({"checkpoint_id": CHECKPOINT})["checkpoint_id"] == CHECKPOINT
    found = configurable({"checkpoint": {"checkpoint_id": CHECKPOINT, "checkpoint_ns": "", "thread_id": "x"}})
    assert (found["checkpoint_id"], found["checkpoint_ns"], found["thread_id"]) == (CHECKPOINT, "", "t-1")


def test_a_run_with_a_thread_of_its_own_has_no_checkpoint_to_start_from() -> None:
    assert stateless({"checkpoint_id": CHECKPOINT}).checkpoint == {}


def test_an_input_is_stored_beside_a_command() -> None:
    found = kwargs({"input": {"a": 1}, "command": {"resume": "yes"}})
    assert (found["input"], found["command"]) == ({"a": 1}, {"update": None, "resume": "yes", "goto": None})


@pytest.mark.parametrize(
    ("goto", "stored"),
    [
        ("a", "a"),
        (["a", "b"], ["a", "b"]),
        ({"node": "a", "input": 1, "more": 2}, {"node": "a", "input": 1}),
        ([{"node": "a", "input": None}], [{"node": "a", "input": None}]),
    ],
)
def test_a_command_goes_to_nodes_by_name_or_with_an_input(goto: Json, stored: Json) -> None:
    assert as_object(kwargs({"command": {"goto": goto}})["command"])["goto"] == stored


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
    found = kwargs(body)
    assert (found["durability"], found["checkpoint_during"]) == (durability, during)


@pytest.mark.parametrize(("body", "creates"), [({}, False), ({"if_not_exists": "create"}, True)])
def test_a_run_on_a_thread_makes_the_thread_only_if_asked_to_and_never_takes_it_away(
    body: JsonObject, creates: bool
) -> None:
    found = on_thread({"on_completion": "delete", **body})
    assert (found.creates_thread, found.temporary) == (creates, False)


@pytest.mark.parametrize(("completion", "temporary"), [("delete", True), ("keep", False)])
def test_a_run_with_a_thread_of_its_own_takes_it_away_unless_it_is_kept(completion: str, temporary: bool) -> None:
    found = stateless({"on_completion": completion})
    assert (found.creates_thread, found.temporary) == (True, temporary)
