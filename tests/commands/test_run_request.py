"""Merge of assistant, thread, request and server into a new run: the value that wins where they differ."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from agentlog_commands.command import Refused
from agentlog_commands.run_request import OpenInterrupts, RunAssistant, RunIds, RunRequest
from agentlog_facts.ids import AssistantId, RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject, as_object
from agentlog_facts.thread import RunCreated

NOW = datetime(2026, 1, 2, tzinfo=UTC)
IDS = RunIds(RunId("r-1"), ThreadId("t-1"), "q-1")


@dataclass(frozen=True, slots=True)
class Then:
    """A resolved request."""

    resolved: RunCreated | Refused

    @property
    def fact(self) -> RunCreated:
        """Expect a fact and return it."""
        assert isinstance(self.resolved, RunCreated), self.resolved
        return self.resolved

    @property
    def config(self) -> JsonObject:
        return as_object(self.fact.kwargs["config"])

    @property
    def configurable(self) -> JsonObject:
        return as_object(self.config["configurable"])

    def then_refused(self, reason: str) -> None:
        """Expect a refusal."""
        assert isinstance(self.resolved, Refused), self.resolved
        assert self.resolved.reason == reason


@dataclass(frozen=True, slots=True)
class Given:
    """The assistant and the thread's metadata that a request meets."""

    assistant: RunAssistant
    thread_metadata: JsonObject

    def when(self, request: RunRequest, context_keys: Collection[str] | None = None) -> Then:
        """Resolve the request."""
        return Then(request.resolve(self.assistant, self.thread_metadata, IDS, NOW, context_keys=context_keys))


def given(
    thread_metadata: JsonObject | None = None,
    *,
    config: JsonObject | None = None,
    context: JsonObject | None = None,
    metadata: JsonObject | None = None,
) -> Given:
    """Make an assistant of the graph `agent`, and a thread."""
    stored = {"created_by": "system"} if metadata is None else metadata
    assistant = RunAssistant(AssistantId("a-1"), "agent", 3, config or {}, context or {}, {**stored})
    return Given(assistant, thread_metadata or {})


def test_metadata_is_merged_from_assistant_thread_config_and_run_in_this_order() -> None:
    found = given(
        {"b": 2, "c": 2, "thread_id": "x", "graph_id": "old"}, metadata={"a": 1, "b": 1, "c": 1, "d": 1}
    ).when(RunRequest(metadata={"d": 4, "run_id": "x"}, config={"metadata": {"c": 3, "d": 3}}))
    assert found.fact.metadata == {"a": 1, "b": 2, "c": 3, "d": 4, "graph_id": "agent", "assistant_id": "a-1"}
    assert found.config["metadata"] == found.fact.metadata


def test_metadata_in_an_assistants_config_wins_over_the_assistants_own_and_loses_to_the_threads() -> None:
    found = given({"b": 3}, config={"metadata": {"a": 2, "b": 2}}, metadata={"a": 1, "b": 1}).when(RunRequest())
    assert (found.fact.metadata["a"], found.fact.metadata["b"]) == (2, 3)


def test_the_servers_keys_cannot_be_spoofed() -> None:
    spoofed: JsonObject = {"thread_id": "x", "run_id": "x", "langgraph_auth_user": {"a": 1}, "langgraph_auth_more": 1}
    found = given().when(RunRequest(config={"configurable": spoofed})).configurable
    assert (found["thread_id"], found["run_id"], found["langgraph_auth_user"]) == ("t-1", "r-1", None)
    assert "langgraph_auth_more" not in found
    assert found["langgraph_request_id"] == "q-1"


@pytest.mark.parametrize(
    "request_of_ana",
    [RunRequest(config={"configurable": {"user_id": "ana"}}), RunRequest(context={"user_id": "ana"})],
)
@pytest.mark.parametrize("met", [given(), given(config={"configurable": {"user_id": "nobody"}})])
def test_the_clients_user_id_is_in_configurable_and_in_context(request_of_ana: RunRequest, met: Given) -> None:
    found = met.when(request_of_ana)
    assert found.configurable["user_id"] == "ana"
    assert as_object(found.fact.kwargs["context"])["user_id"] == "ana"


def test_the_assistants_user_id_counts_where_the_client_gives_none() -> None:
    met = given(config={"configurable": {"user_id": "ana"}})
    assert met.when(RunRequest()).configurable["user_id"] == "ana"


@pytest.mark.parametrize("asked", [RunRequest(), RunRequest(config={"configurable": {"user_id": None}})])
def test_without_a_user_id_it_is_empty(asked: RunRequest) -> None:
    assert given().when(asked).configurable["user_id"] == ""


def test_configurable_mirrors_only_the_keys_of_the_contexts_schema() -> None:
    asked = RunRequest(context={"model": "m", "secret": "s", "user_id": "ana"})
    found = given(context={"more": 1}).when(asked, {"model"})
    assert (found.configurable["model"], found.configurable["user_id"]) == ("m", "")
    assert {"secret", "more"}.isdisjoint(found.configurable)
    assert found.fact.kwargs["context"] == {"more": 1, "model": "m", "secret": "s", "user_id": "ana"}
    named = given().when(asked, {"user_id"}).configurable
    assert named["user_id"] == "ana"


def test_a_schema_limits_no_key_that_is_given_in_configurable() -> None:
    assert given().when(RunRequest(config={"configurable": {"own": 1}}), {"model"}).configurable["own"] == 1


def test_the_thread_shows_the_assistants_configurable_and_what_else_was_given() -> None:
    met = given(config={"configurable": {"model": "m"}, "tags": ["theirs"], "metadata": {"a": 1, "b": 1}})
    config: JsonObject = {"configurable": {"a": 1}, "tags": ["t"], "recursion_limit": 30, "metadata": {"b": 2}}
    assert met.when(RunRequest(config=config)).fact.thread_config == {
        "configurable": {"model": "m"},
        "tags": ["t"],
        "recursion_limit": 30,
        "metadata": {"a": 1, "b": 2},
    }


def test_the_thread_shows_nothing_that_was_not_given() -> None:
    asked = RunRequest(config={"configurable": {"a": 1}, "metadata": {}}, context={})
    assert given().when(asked).fact.thread_config == {"configurable": {}}
    assert given().when(RunRequest(context={"secret": 1})).fact.thread_config == {"configurable": {}}


@pytest.mark.parametrize(("delay_s", "shown"), [(0, "0"), (60.0, "60"), (1.5, "1.5")])
def test_a_delay_of_whole_seconds_is_shown_as_a_whole_number(delay_s: float, shown: str) -> None:
    assert str(given().when(RunRequest(after_seconds=delay_s)).configurable["__after_seconds__"]) == shown


def test_the_keys_that_langgraph_keeps_for_itself_cannot_be_given() -> None:
    asked: JsonObject = {"__pregel_checkpointer": "x", "__request_start_time_ms__": -1, "own": 1}
    stored: JsonObject = {"configurable": {"__pregel_send": 1}}
    found = given(config=stored).when(RunRequest(config={"configurable": asked})).configurable
    assert [name for name in found if name.startswith("__pregel")] == []
    assert (found["own"], found["__request_start_time_ms__"]) == (1, int(NOW.timestamp() * 1000))
    assert "__pregel_read" not in given().when(RunRequest(context={"__pregel_read": 1})).configurable


@pytest.mark.parametrize("asked", [RunRequest(context={"a": 2}), RunRequest(config={"configurable": {"a": 2}})])
@pytest.mark.parametrize("met", [given(context={"a": 1, "b": 1}), given(config={"configurable": {"a": 1, "b": 1}})])
def test_what_a_run_says_wins_over_its_assistant_in_context_and_configurable(asked: RunRequest, met: Given) -> None:
    found = met.when(asked)
    assert found.fact.kwargs["context"] == {"a": 2, "b": 1}
    assert (found.configurable["a"], found.configurable["b"]) == (2, 1)


def test_configurable_is_merged_by_key_and_tags_and_limits_are_replaced() -> None:
    found = given(config={"configurable": {"a": 1, "b": 1}, "tags": ["theirs"], "recursion_limit": 7}).when(
        RunRequest(config={"configurable": {"b": 2}, "tags": ["mine"]})
    )
    assert (found.configurable["a"], found.configurable["b"]) == (1, 2)
    assert (found.config["tags"], found.config["recursion_limit"]) == (["mine"], 7)


def test_context_and_configurable_mirror_each_other() -> None:
    assert given().when(RunRequest(context={"model": "m"})).configurable["model"] == "m"
    found = given().when(RunRequest(config={"configurable": {"model": "m", "checkpoint_id": "c"}}))
    assert found.fact.kwargs["context"] == {"model": "m"}


def test_context_and_configurable_are_not_given_together() -> None:
    asked = RunRequest(context={"a": 1}, config={"configurable": {"a": 1}})
    given().when(asked).then_refused("context_and_configurable")


def test_a_checkpoint_stands_in_configurable_and_wins_over_one_that_is_given_there() -> None:
    asked = RunRequest(checkpoint={"checkpoint_id": "c"}, config={"configurable": {"checkpoint_id": "other"}})
    assert given().when(asked).configurable["checkpoint_id"] == "c"


def test_an_input_is_stored_beside_a_command() -> None:
    kwargs = given().when(RunRequest(input={"a": 1}, command={"resume": "yes"})).fact.kwargs
    assert (kwargs["input"], kwargs["command"]) == ({"a": 1}, {"update": None, "resume": "yes", "goto": None})


@pytest.mark.parametrize(("durability", "during"), [("sync", True), ("async", True), ("exit", False)])
def test_durability_is_shown_under_its_older_name_too(durability: str, during: bool) -> None:
    asked = {"sync": RunRequest(durability="sync"), "async": RunRequest(), "exit": RunRequest(durability="exit")}
    kwargs = given().when(asked[durability]).fact.kwargs
    assert (kwargs["durability"], kwargs["checkpoint_during"]) == (durability, during)


def test_only_a_delay_ahead_makes_a_run_wait() -> None:
    assert given().when(RunRequest(after_seconds=1.5)).fact.due_at == NOW + timedelta(seconds=1.5)
    assert given().when(RunRequest(after_seconds=-1)).fact.due_at is None


def test_a_run_stores_its_assistant_as_it_was_met() -> None:
    fact = given(config={"tags": ["a"]}, context={"b": 1}, metadata={"c": 1}).when(RunRequest(temporary=True)).fact
    assert fact.assistant == {
        "assistant_id": "a-1",
        "graph_id": "agent",
        "version": 3,
        "config": {"tags": ["a"]},
        "context": {"b": 1},
        "metadata": {"c": 1},
    }
    assert (fact.run_id, fact.thread_id, fact.temporary, fact.kwargs["temporary"]) == ("r-1", "t-1", True, True)


def test_a_missing_thread_is_made_with_the_runs_metadata_if_that_is_asked_for() -> None:
    assert RunRequest(metadata={"a": 1}, creates_thread=True).new_thread == {"a": 1}
    assert RunRequest(metadata={"a": 1}).new_thread is None
    reserved: JsonObject = {"a": 1, "run_id": "r", "thread_id": "t", "assistant_id": "x"}
    assert RunRequest(metadata=reserved, creates_thread=True).new_thread == {"a": 1}


@pytest.mark.parametrize(
    ("command", "resumes"), [(None, False), ({"update": {}}, False), ({"resume": None}, False), ({"resume": 0}, True)]
)
def test_only_a_command_with_an_answer_resumes(command: dict[str, Json] | None, resumes: bool) -> None:
    assert RunRequest(command=command).resumes is resumes


def test_the_metadata_of_a_request_and_of_its_config_are_limited_together() -> None:
    half: JsonObject = {str(number): number for number in range(6_000)}
    other: JsonObject = {f"x{number}": number for number in range(6_000)}
    given().when(RunRequest(metadata={**half, **other})).then_refused("metadata_too_large")
    given().when(RunRequest(config={"metadata": {**half, **other}})).then_refused("metadata_too_large")
    given().when(RunRequest(metadata=half, config={"metadata": other})).then_refused("metadata_too_large")
    given(thread_metadata=other).when(RunRequest(metadata=half, config={"metadata": half}))


ONE, TWO = "0123456789abcdef" * 2, "fedcba9876543210" * 2
OPEN = OpenInterrupts({ONE: "task-1", TWO: "task-2"}, "c2")


def resumes(resume: Json, checkpoint_id: str | None) -> list[tuple[Json, Json, Json]]:
    """Return interrupt, task and checkpoint of each interrupt that a resume answers."""
    run = RunCreated(IDS.run_id, IDS.thread_id, {}, {}, {"command": {"resume": resume}}, "enqueue")
    found = OPEN.answered_by(run, checkpoint_id)
    return [(one["interrupt_id"], one["task_id"], one["checkpoint_id"]) for one in found]


def test_a_bare_answer_is_for_every_open_interrupt_and_a_map_for_those_that_it_names() -> None:
    assert resumes("yes", None) == [(ONE, "task-1", "c2"), (TWO, "task-2", "c2")]
    assert resumes({TWO: "yes"}, None) == resumes({TWO: "yes"}, "c2") == [(TWO, "task-2", "c2")]


def test_an_answer_to_an_interrupt_that_is_not_open_names_no_task() -> None:
    assert resumes({"a" * 32: "yes"}, None) == [("a" * 32, None, "c2")]


def test_an_answer_at_an_older_checkpoint_names_what_the_client_named() -> None:
    assert resumes({TWO: "yes"}, "c1") == [(TWO, None, "c1")]
    assert resumes("yes", "c1") == [(None, None, "c1")]
