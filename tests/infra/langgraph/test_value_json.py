"""Tests of the JSON of graph values in the API."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langgraph.errors import EmptyInputError, GraphRecursionError
from langgraph.types import Interrupt, Send
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from agentlog_facts.json_value import LEVELS, MOST_LEVELS, Json, JsonObject, TooDeep, dump, load
from agentlog_infra.langgraph.errors import error_json
from agentlog_infra.langgraph.value_json import interrupt_json, stored_json, to_json, to_json_whole


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    label: object = None


class Letter(BaseModel):
    message: BaseMessage
    weight: float = float("nan")


class Dated(BaseModel):
    at: datetime
    price: Decimal


class Strange:
    def __str__(self) -> str:
        return "strange"


class Unshowable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        raise SystemExit


class UnshowableObject:
    def __str__(self) -> str:
        raise ZeroDivisionError


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
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (datetime(2026, 1, 2, 3, 4, 5, 678, UTC), "2026-01-02T03:04:05.000678+00:00"),
        (datetime(2026, 1, 2), "2026-01-02T00:00:00"),  # noqa: DTZ001 - user code has such times
        (datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T00:00:00+02:00"),
        (["2026-01-02T00:00:00Z"], ["2026-01-02T00:00:00Z"]),
        ([{"at": datetime(2026, 1, 2, tzinfo=UTC)}], [{"at": "2026-01-02T00:00:00+00:00"}]),
        (Point(1, datetime(2026, 1, 2, tzinfo=UTC)), {"x": 1, "label": "2026-01-02T00:00:00+00:00"}),
        ((Decimal("1.50"), Decimal(3), Decimal("1E+3"), Decimal("-0.5")), [1.5, 3, 1000, -0.5]),
        ([Decimal("NaN"), Decimal("Infinity"), Decimal("1E+400")], [None, None, "1E+400"]),
        (Point(1, Decimal("2.5")), {"x": 1, "label": 2.5}),
        (
            Dated(at=datetime(2026, 1, 2, tzinfo=UTC), price=Decimal("1.5")),
            {"at": "2026-01-02T00:00:00+00:00", "price": 1.5},
        ),
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


@pytest.mark.parametrize("value", [Unshowable(), UnshowableObject()])
def test_a_value_whose_text_cannot_be_had_is_shown_by_its_class(value: object) -> None:
    assert to_json([value, 1]) == [f"<{type(value).__name__}>", 1]


def test_deep_nesting_stays_readable() -> None:
    value: dict[str, object] = {}
    for _ in range(400):
        value = {"a": value}
    shown = to_json(value)
    assert load(dump({"facts": [{"data": shown}]})) == {"facts": [{"data": shown}]}


class Attachment(BaseModel):
    raw: bytes
    parts: list[Point] = []


@dataclass
class Letters:
    first: object


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"\xfb\xff\xfe", "+//+"),
        (bytearray(b"\xfb\xff\xfe"), "+//+"),
        ({"a": [(b"\xfb\xff\xfe", 1)]}, {"a": [["+//+", 1]]}),
        (Attachment(raw=b"MQ=="), {"raw": "TVE9PQ==", "parts": []}),
        (Attachment(raw=b"1", parts=[Point(1, b"\xff")]), {"raw": "MQ==", "parts": [{"x": 1, "label": "/w=="}]}),
        (Letters(Attachment(raw=b"1")), {"first": {"raw": "MQ==", "parts": []}}),
        ([datetime(2026, 1, 2, tzinfo=UTC), b"1"], ["2026-01-02T00:00:00+00:00", "MQ=="]),
    ],
)
def test_bytes_are_standard_base64_in_containers_models_and_dataclasses_too(value: object, shown: Json) -> None:
    assert to_json(value) == shown


@pytest.mark.parametrize("number", [10**400, -(10**400), 10**5000], ids=lambda number: f"{number.bit_length()} bits")
def test_a_number_that_json_readers_refuse_becomes_text(number: int) -> None:
    shown = to_json({"n": [number], "point": Point(number)})
    assert load(dump(shown)) == {"n": [hex(number)], "point": {"x": hex(number), "label": None}}


def nested(levels: int) -> object:
    value: object = "x"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [*range(110, 130), 180, 199, 200, 260, 2000])
def test_what_is_shown_of_a_deep_value_can_be_wrapped_and_read_again(levels: int) -> None:
    shown = to_json(nested(levels))
    spare = LEVELS - MOST_LEVELS
    assert load(b"[" * spare + dump(shown) + b"]" * spare) is not None
    assert (shown == nested(levels)) is (levels <= MOST_LEVELS)


def test_a_value_that_must_not_be_cut_off_is_refused_if_it_is_too_deep() -> None:
    assert to_json_whole(nested(30), 30) == nested(30)
    holds_itself: list[object] = []
    holds_itself.append(holds_itself)
    for value in (nested(31), {"a": nested(30)}, Point(1, nested(30)), Letters(nested(30)), holds_itself):
        with pytest.raises(TooDeep, match="nested deeper than 30 levels"):
            to_json_whole(value, 30)


STORED: list[JsonObject] = [
    {},
    {"a": [1, 1.5, None, True, "\u00e9"]},
    {"a\x00b": "c\x00d"},
    {"a": "\\u0000"},
    {"a": 1 << 1024, "b": -(1 << 1023), "c": "1" * 400},
    {"a": load(b"[" * (LEVELS - 5) + b"]" * (LEVELS - 5))},
    {"a": [[] for _ in range(MOST_LEVELS)]},
]


@pytest.mark.parametrize("stored", STORED)
def test_a_stored_object_has_the_json_that_any_value_has(stored: JsonObject) -> None:
    assert stored_json(stored) == dump(to_json(stored))


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
