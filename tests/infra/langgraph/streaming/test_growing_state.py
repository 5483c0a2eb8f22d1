"""Encoder of the states of a stream: equal to the encoding of each state as a whole, and new items only are encoded."""

import copy
import datetime
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from agentlog_facts.json_value import TooDeep, dump, load
from agentlog_infra.langgraph.checkpoints.channel_codec import is_list
from agentlog_infra.langgraph.streaming import growing_state
from agentlog_infra.langgraph.streaming.growing_state import GrowingStateJson
from agentlog_infra.langgraph.value_json import to_json_whole

LEVELS = 30
NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
ALIKE: list[tuple[object, ...]] = [
    (Decimal("1.10"), "1.10"),
    (NOW, "2026-01-02T00:00:00Z"),
    ([1, "x"], (1, "x")),
    (float("nan"), None),
    ({1: "x"}, {"1": "x"}),
    (1, 1.0, True, "1"),
]
"""Groups of values that are equal, or have the same JSON by pydantic."""
ITEMS: list[Callable[[random.Random], object]] = [
    lambda draw: HumanMessage(f"q {draw.random()}", id="q", additional_kwargs={"n": [draw.random()]}),
    lambda draw: AIMessage(f"a {draw.random()}", additional_kwargs={"at": NOW}),
    lambda draw: AIMessage("a", additional_kwargs={"alike": draw.choice(draw.choice(ALIKE)), "deep": []}),
    lambda draw: {"n": draw.random(), "deep": [{"x": 1}], 1: None},
    lambda draw: {"alike": draw.choice(draw.choice(ALIKE)), "deep": []},
    lambda draw: draw.choice([1, 12, True, None, 1.5, float("nan"), "", "text", "NUL \x00", "\ud800", "\\u0000"]),
    lambda draw: draw.choice([b"bytes", Decimal("1.50"), NOW, 1 << 2000, ValueError("v"), {1, 2}, object]),
]


def changed(draw: random.Random, values: list[object]) -> list[object]:
    """Return the next version of a list: grown, the same, shorter, replaced, or with an item changed in place."""
    more = [draw.choice(ITEMS)(draw) for _ in range(draw.randrange(3))]
    match draw.randrange(8):
        case 0:
            return values[: draw.randrange(len(values) + 1)] + more
        case 1:
            return more + values
        case 2:
            for one in values[-3:]:
                change(draw, one)
        case 3:
            values += more  # in place, as user code may do
            return values
        case 4:
            return copy.deepcopy(values)
        case _:
            pass
    return [*values, *more]


def change(draw: random.Random, item: Any) -> None:  # Any: a value of user code
    """Change a message or table in place, or only exchange a value in it for one of its group of `ALIKE`."""
    table = item.additional_kwargs if isinstance(item, BaseMessage) else item
    if not isinstance(item, BaseMessage | dict):
        return
    if "alike" in table and draw.random() < 0.8:
        table["alike"] = draw.choice(next(group for group in ALIKE if table["alike"] in group))
    else:
        table.setdefault("deep", []).append({"y": 2})


@pytest.mark.parametrize("seed", range(150))
def test_each_state_is_encoded_as_it_would_be_alone(seed: int) -> None:
    draw = random.Random(seed)
    encoder = GrowingStateJson(LEVELS)
    lists: dict[str, list[object]] = {"a": [], "b": []}
    for _ in range(12):
        name = draw.choice("ab")
        lists[name] = changed(draw, lists[name])
        state = {**lists, "other": draw.choice(ITEMS)(draw), "tuple": (1, "x")}
        if draw.random() < 0.1:
            del state[draw.choice("ab")]
        assert encoder.encode(state) == dump(to_json_whole(state, LEVELS))


@pytest.mark.parametrize("state", [[1, 2], "text", None, {1: [1]}, {"\x00": [1]}, {}])
def test_a_state_that_is_no_plain_object_is_encoded_as_a_whole(state: object) -> None:
    assert GrowingStateJson(LEVELS).encode(state) == dump(to_json_whole(state, LEVELS))


def test_a_state_that_is_too_deep_is_refused_as_a_whole_would_be() -> None:
    encoder = GrowingStateJson(LEVELS)
    deep: object = 1
    for _ in range(LEVELS - 2):
        deep = [deep]
    fits = {"a": [deep]}
    assert load(encoder.encode(fits)) == fits
    assert load(encoder.encode({"a": [*fits["a"], 1]})) == {"a": [deep, 1]}
    with pytest.raises(TooDeep, match=f"than {LEVELS} levels"):
        encoder.encode({"a": [*fits["a"], 1, [deep]]})
    assert load(encoder.encode(fits)) == fits


def test_only_new_items_are_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each superstep converted all messages of the thread."""
    converted: list[int] = []

    def counting(value: object, most_levels: int) -> object:
        converted.append(len(value) if is_list(value) else 1)
        return to_json_whole(value, most_levels)

    messages: list[object] = [HumanMessage(str(n), id=str(n)) for n in range(200)]
    ran = [f"step {n}" for n in range(500)]
    encoder = GrowingStateJson(LEVELS)
    encoder.encode({"messages": messages, "ran": ran})
    monkeypatch.setattr(growing_state, "to_json_whole", counting)
    for number in range(3):
        messages, ran = [*messages, AIMessage("more", id=f"more {number}")], [*ran, f"more {number}"]
        encoder.encode({"messages": messages, "ran": ran})
    encoder.encode({"messages": messages, "ran": ran})
    assert sum(converted) == 3 * 2
    first = messages[0]
    assert isinstance(first, HumanMessage)
    first.content = "changed in place"
    shown = load(encoder.encode({"messages": messages, "ran": ran}))
    assert isinstance(shown, dict)
    assert isinstance(shown["messages"], list)
    assert isinstance(shown["messages"][0], dict)
    assert shown["messages"][0]["content"] == "changed in place"
    assert sum(converted) == 3 * 2 + 1


@pytest.mark.parametrize("group", ALIKE)
@pytest.mark.parametrize("in_message", [False, True])
def test_a_change_in_place_is_shown_if_pydantic_writes_both_values_alike(
    group: tuple[object, ...], in_message: bool
) -> None:
    """A price that a node made a text of, from a decimal, was still shown as a number."""
    for before in group:
        for after in group:
            message = AIMessage("a", additional_kwargs={"alike": before})
            table = message.additional_kwargs
            state = {"a": [message if in_message else table]}
            encoder = GrowingStateJson(LEVELS)
            encoder.encode(state)
            table["alike"] = after
            assert encoder.encode(state) == dump(to_json_whole(state, LEVELS))


def test_a_message_that_is_encoded_each_time_costs_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[object] = []

    def counting(value: object, most_levels: int) -> object:
        converted.extend(value if is_list(value) else [value])
        return to_json_whole(value, most_levels)

    dated = AIMessage("dated", additional_kwargs={"at": NOW})
    messages = [HumanMessage("first"), dated, HumanMessage("last")]
    encoder = GrowingStateJson(LEVELS)
    encoder.encode({"messages": messages})
    monkeypatch.setattr(growing_state, "to_json_whole", counting)
    encoder.encode({"messages": [*messages]})
    assert converted == [dated]


def test_another_object_with_the_same_json_by_pydantic_is_encoded_again() -> None:
    encoder = GrowingStateJson(LEVELS)
    assert load(encoder.encode({"a": [Decimal("1.50"), b"x"]})) == {"a": [1.5, "eA=="]}
    assert load(encoder.encode({"a": ["1.50", b"x", 2]})) == {"a": ["1.50", "eA==", 2]}
