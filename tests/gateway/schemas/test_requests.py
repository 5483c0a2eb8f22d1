"""Validation of request bodies."""

import pytest
from pydantic import ValidationError

from agentlog_facts.json_value import Json, JsonObject
from agentlog_gateway.http.errors import Problem, validation_detail
from agentlog_gateway.schemas.assistant_requests import AssistantSearch
from agentlog_gateway.schemas.requests import (
    Body,
    HistoryQuery,
    StateUpdate,
    ThreadCreate,
    ThreadPatch,
    ThreadSearch,
    path_uuid,
)
from agentlog_gateway.schemas.run_requests import StatelessRun, ThreadRun

Case = tuple[type[Body], JsonObject, str]
REFUSED: list[Case] = [
    (ThreadCreate, {"metadata": None}, "metadata"),
    (ThreadCreate, {"metadata": "x"}, "metadata"),
    (ThreadCreate, {"thread_id": "x"}, "must be a UUID"),
    (ThreadCreate, {"if_exists": "zz"}, "if_exists"),
    (ThreadCreate, {"ttl": 1}, '["ttl"]'),
    (ThreadCreate, {"supersteps": [{"updates": []}]}, '["supersteps"][0]["updates"]'),
    (ThreadPatch, {"ttl": {"ttl": 0}}, '["ttl"]["ttl"]'),
    (ThreadSearch, {"limit": 0}, "limit"),
    (ThreadSearch, {"limit": 1001}, "limit"),
    (ThreadSearch, {"limit": "3"}, "limit"),
    (ThreadSearch, {"offset": -1}, "offset"),
    (ThreadSearch, {"offset": 10**23}, "offset"),
    (AssistantSearch, {"offset": 10**23}, "offset"),
    (ThreadSearch, {"select": ["zz"]}, "select"),
    (ThreadSearch, {"status": "zz"}, "status"),
    (HistoryQuery, {"limit": 0}, "limit"),
    (HistoryQuery, {"before": 3}, "before"),
    (StateUpdate, {"values": "x"}, "values"),
    (StatelessRun, {}, "assistant_id"),
    (StatelessRun, {"assistant_id": 3}, "assistant_id"),
    (StatelessRun, {"config": {"recursion_limit": "3"}}, "recursion_limit"),
    (StatelessRun, {"config": None}, "config"),
    (StatelessRun, {"stream_mode": "zz"}, "stream_mode"),
    (StatelessRun, {"stream_mode": ["lifecycle"]}, "stream_mode"),
    (StatelessRun, {"multitask_strategy": "zz"}, "multitask_strategy"),
    (StatelessRun, {"webhook": "https://example.org"}, "not supported yet"),
    (StatelessRun, {"feedback_keys": ["a", ""]}, "feedback_keys"),
    (StatelessRun, {"langsmith_tracer": {}}, "not supported yet"),
    (ThreadRun, {"strict_resume": "yes"}, "strict_resume"),
    (StatelessRun, {"after_seconds": "zz"}, "after_seconds"),
    (StatelessRun, {"after_seconds": 1e12}, "after_seconds"),
    (StatelessRun, {"durability": "zz"}, "durability"),
    (StatelessRun, {"on_disconnect": "zz"}, "on_disconnect"),
    (StatelessRun, {"command": {"update": "x"}}, "update"),
    (StatelessRun, {"command": {"goto": ["a", {"node": "b", "input": 1}]}}, "goto"),
    (StatelessRun, {"interrupt_before": "zz"}, "interrupt_before"),
    (ThreadRun, {"checkpoint_id": "zz"}, "checkpoint_id"),
    (ThreadRun, {"checkpoint": {"checkpoint_id": "zz"}}, "checkpoint_id"),
    (StateUpdate, {"checkpoint": {"checkpoint_id": "zz"}}, "checkpoint_id"),
    (StateUpdate, {"checkpoint_id": "zz"}, "checkpoint_id"),
    (ThreadRun, {"if_not_exists": "zz"}, "if_not_exists"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case[0].__name__} {case[1]}"[:60])
def test_a_wrong_body_is_refused_in_one_text_that_names_the_place(case: Case) -> None:
    model, body, expected = case
    whole: JsonObject = {"assistant_id": "agent", **body} if body and issubclass(model, StatelessRun) else body
    with pytest.raises(ValidationError) as refused:
        model.model_validate(whole)
    assert expected in validation_detail(refused.value)


ACCEPTED: list[tuple[type[Body], JsonObject]] = [
    (ThreadCreate, {"unknown": 1, "ttl": None}),
    (StatelessRun, {"assistant_id": "a", "webhook": None, "feedback_keys": [], "strict_resume": False}),
    (StatelessRun, {"assistant_id": "a", "after_seconds": 0.5, "interrupt_before": "*", "interrupt_after": ["b"]}),
    (StatelessRun, {"assistant_id": "a", "after_seconds": -3}),
    (StatelessRun, {"assistant_id": "a", "command": {"goto": [{"node": "b", "input": 1}], "update": [["k", 1]]}}),
    (StatelessRun, {"assistant_id": "a", "input": [1, 2], "config": {"run_name": "x"}}),
    (HistoryQuery, {"before": {"configurable": {"checkpoint_id": "x"}}}),
]


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: f"{case[0].__name__} {case[1]}"[:60])
def test_unknown_fields_and_what_says_nothing_are_accepted(case: tuple[type[Body], JsonObject]) -> None:
    assert case[0].model_validate(case[1])


@pytest.mark.parametrize(
    ("given", "modes"), [([], ["values"]), ("custom", ["custom"]), (["values", "values"], ["values"])]
)
def test_stream_modes_are_a_list_and_values_by_default(given: Json, modes: list[str]) -> None:
    assert StatelessRun.model_validate({"assistant_id": "a", "stream_mode": given}).stream_mode == modes


def test_a_uuid_is_taken_in_any_form_and_kept_in_one() -> None:
    assert ThreadCreate.model_validate({"thread_id": "019AB000000070008000000000000001"}).thread_id == (
        "019ab000-0000-7000-8000-000000000001"
    )


def test_other_keys_of_a_config_are_kept() -> None:
    config = StatelessRun.model_validate({"assistant_id": "a", "config": {"run_name": "x", "callbacks": 1}}).config
    assert config.model_dump(exclude_none=True) == {"run_name": "x", "callbacks": 1}


@pytest.mark.parametrize("body", [ThreadCreate, ThreadPatch])
def test_keys_of_the_server_are_dropped_from_the_metadata_of_a_thread(body: type[ThreadCreate | ThreadPatch]) -> None:
    given: JsonObject = {"assistant_id": "a", "run_id": "r", "thread_id": "t", "graph_id": "g", "user_id": "u"}
    assert body.model_validate({"metadata": given}).metadata == {"graph_id": "g", "user_id": "u"}


SPELLINGS = [
    "+1a226a6-0000-7000-8000-00000000000a",
    "urn:uuid:01a226a6-0000-7000-8000-00000000000a",
    "{01a226a6-0000-7000-8000-00000000000a}",
    "01a226a6-000070008000-00000000000a",
    "01a226a6-0000-7000-8000-0000_0000000a",
    "0_1a226a-0000-7000-8000-00000000000a",
    "\u0660\u0661a226a6-0000-7000-8000-00000000000a",
    "01a226a6-0000-7000-8000-00000000000a\n",
    " 01a226a6-0000-7000-8000-00000000000a",
    "01a226a60-000-7000-8000-00000000000a",
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_an_id_is_hexadecimal_digits_and_dashes_only(text: str) -> None:
    with pytest.raises(Problem, match="Invalid thread ID: must be a UUID"):
        path_uuid("thread", text)
    with pytest.raises(ValidationError, match="must be a UUID"):
        ThreadCreate.model_validate({"thread_id": text})
    with pytest.raises(ValidationError, match="must be a UUID"):
        ThreadSearch.model_validate({"ids": [text]})
    with pytest.raises(ValidationError, match="must be a UUID"):
        ThreadRun.model_validate({"assistant_id": "agent", "checkpoint_id": text})
