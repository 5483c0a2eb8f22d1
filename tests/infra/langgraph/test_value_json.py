"""Tests of the JSON of graph values in the API."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langgraph.errors import EmptyInputError, GraphRecursionError
from langgraph.types import Interrupt, Send
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from agentlog_facts.json_value import Json, dump, load
from agentlog_infra.langgraph.errors import error_json
from agentlog_infra.langgraph.value_json import interrupt_json, to_json


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    label: object = None


class Letter(BaseModel):
    message: BaseMessage
    weight: float = float("nan")


class Strange:
    def __str__(self) -> str:
        return "strange"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), None),
        ([float("inf"), 1.5], [None, 1.5]),
        (2**70, 2**70),
        ("a\x00b", "a\ufffdb"),
        ({"a\x00": ["\ud800x"]}, {"a\ufffd": ["\ufffdx"]}),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        (b"\x01", "AQ=="),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (timedelta(seconds=1.5), 1.5),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "red"),
        (Point(1, {2}), {"x": 1, "label": [2]}),
        ({1: "one"}, {"1": "one"}),
        (Strange(), "strange"),
        ([Strange(), "\x00"], ["strange", "\ufffd"]),
        (ValueError("x"), "ValueError('x')"),
        (Send("n", {"a": 1}), {"node": "n", "arg": {"a": 1}}),
    ],
)
def test_values_have_a_json_form(value: object, shown: Json) -> None:
    assert to_json(value) == shown


def test_a_human_message_has_the_shape_of_the_contract() -> None:
    assert to_json(HumanMessage("x", id="1")) == {
        "content": "x",
        "additional_kwargs": {},
        "response_metadata": {},
        "type": "human",
        "name": None,
        "id": "1",
    }


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (AIMessage("x"), {"tool_calls", "invalid_tool_calls", "usage_metadata"}),
        (ToolMessage("x", tool_call_id="1"), {"tool_call_id", "artifact", "status"}),
        (AIMessageChunk(content="x"), {"tool_call_chunks", "chunk_position"}),
    ],
)
def test_messages_show_what_belongs_to_their_type(message: BaseMessage, fields: set[str]) -> None:
    shown = to_json([message])
    assert isinstance(shown, list)
    assert isinstance(shown[0], dict)
    assert fields <= shown[0].keys()


def test_a_message_inside_a_model_keeps_its_own_fields() -> None:
    shown = to_json(Letter(message=AIMessage("x")))
    assert isinstance(shown, dict)
    assert isinstance(shown["message"], dict)
    assert "tool_calls" in shown["message"]
    assert shown["weight"] is None


def test_a_value_that_holds_itself_is_cut_off() -> None:
    value: list[object] = []
    value.append(value)
    shown = to_json(value)
    assert load(dump(shown)) == shown


def test_deep_nesting_stays_readable() -> None:
    value: dict[str, object] = {}
    for _ in range(400):
        value = {"a": value}
    shown = to_json(value)
    assert load(dump({"facts": [{"data": shown}]})) == {"facts": [{"data": shown}]}


def test_an_interrupt_shows_a_schema_only_if_it_has_one() -> None:
    assert interrupt_json(Interrupt("v", "i")) == {"value": "v", "id": "i"}
    assert interrupt_json(Interrupt("v", "i", response_schema={"type": "string"}))["response_schema"] == {
        "type": "string"
    }


class OwnError(Exception):
    """A user's own error."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("bad"), "bad"),
        (KeyError("k"), "'k'"),
        (RecursionError("deep"), "deep"),
        (NotImplementedError("no"), "no"),
        (TimeoutError("late"), "late"),
        (EmptyInputError("none"), "none"),
        (GraphRecursionError("loop"), "loop"),
        (HTTPException(418, "teapot"), "418: teapot"),
        (OwnError("secret"), "An internal error occurred"),
        (ZeroDivisionError("secret"), "An internal error occurred"),
        (ConnectionError("secret"), "An internal error occurred"),
        (AssertionError("secret"), "An internal error occurred"),
        (IndexError("secret"), "An internal error occurred"),
    ],
)
def test_only_known_errors_show_their_message(error: Exception, message: str) -> None:
    assert error_json(error) == {"error": type(error).__name__, "message": message}


def test_a_group_of_one_error_is_that_error() -> None:
    assert error_json(ExceptionGroup("g", [ValueError("one")])) == {"error": "ValueError", "message": "one"}
