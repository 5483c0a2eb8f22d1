"""Tests of the codec of channel values: each value comes back from the log with its types."""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given, strategies as st
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Interrupt, Send

from agentlog_facts.errors import Corrupt
from agentlog_facts.json_value import Json, dump, load, load_object
from agentlog_infra.langgraph.checkpoints.channel_codec import ChannelCodec, stored_digest
from agentlog_infra.langgraph.snapshots.user_code import UserCode, UserCodeNeeded

CODEC = ChannelCodec(JsonPlusSerializer())

texts = st.text(st.characters(exclude_categories=()))  # lone surrogates and NUL included
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def stored(value: object) -> Json:
    """Return the stored form of a value after its way through the bytes of the log."""
    return load_object(dump({"value": CODEC.encode(value)}))["value"]


def same(left: object, right: object) -> bool:
    """Return whether two values are equal in value and type; NaN equals itself, 0.0 does not equal -0.0."""
    return type(left) is type(right) and (left == right if unordered(left) else repr(left) == repr(right))


def unordered(value: object) -> bool:
    return isinstance(value, set | frozenset)


def serializable(value: object) -> bool:
    try:
        JsonPlusSerializer().dumps_typed(value)
    except (TypeError, ValueError):
        return False
    return True


@given(values)
def test_a_value_comes_back_as_it_was(value: object) -> None:
    if serializable(value):
        assert same(CODEC.decode(stored(value)), value)


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        b"\x00\xff",
        datetime(2026, 1, 2, tzinfo=UTC),
        UUID(int=7),
        HumanMessage("hello", id="1"),
        {"nested": [AIMessage("x", id="2")]},
        {1: "int key"},
        float("inf"),
    ],
)
def test_what_json_cannot_say_comes_back_too(value: object) -> None:
    assert same(CODEC.decode(stored(value)), value)


def made(kind: str, text: str, value: object) -> BaseMessage:
    """Return a message of a kind with a text, and with the value if its class accepts any value."""
    call = ToolCall(name="n", args={"a": [1]}, id="1", type="tool_call")
    match kind:
        case "human":
            return HumanMessage(content=text, id=text)
        case "blocks":
            return HumanMessage(content=[{"type": "text", "text": text}])
        case "system":
            return SystemMessage(content=text, name=text)
        case "ai":
            return AIMessage(content=text, tool_calls=[call], response_metadata={"any": value})
        case "tool":
            return ToolMessage(content=text, tool_call_id="1", artifact=value)
        case "chunk":
            return AIMessageChunk(content=text)
        case _:
            return RemoveMessage(id=text)


@given(st.sampled_from(["human", "blocks", "system", "ai", "tool", "chunk", "remove"]), texts, values)
def test_a_message_comes_back_as_langgraphs_serializer_gives_it_back(kind: str, text: str, value: object) -> None:
    message = made(kind, text, value)
    if serializable(message):
        serde = JsonPlusSerializer()
        found = CODEC.decode(stored(message))
        assert type(found) is type(message)
        assert same(found, serde.loads_typed(serde.dumps_typed(message)))


def test_a_message_can_be_read_on_the_log() -> None:
    encoded = CODEC.encode([HumanMessage("hello", id="1")])
    assert isinstance(encoded, dict)
    [item] = encoded["items"] if isinstance(encoded["items"], list) else []
    assert isinstance(item, dict)
    assert isinstance(item["message"], dict)
    assert (item["message"]["type"], item["message"]["content"]) == ("human", "hello")


class OwnMessage(HumanMessage):
    """A user's own kind of message."""


def test_a_message_of_an_own_class_keeps_its_class() -> None:
    assert type(CODEC.decode(stored(OwnMessage(content="x")))) is OwnMessage


def test_a_list_is_stored_item_by_item() -> None:
    encoded = CODEC.encode(["a", {"b": 1}, HumanMessage("x", id="1")])
    assert isinstance(encoded, dict)
    items = encoded["items"]
    assert isinstance(items, list)
    assert items[:2] == ["a", {"json": {"b": 1}}]


@given(st.lists(values, max_size=3))
def test_a_digest_is_the_same_before_and_after_storing(value: list[object]) -> None:
    if serializable(value):
        encoded = stored(value)
        assert isinstance(encoded, dict)
        items = encoded["items"]
        assert isinstance(items, list)
        assert [stored_digest(item) for item in items] == [CODEC.item(item).digest for item in value]


def test_digests_tell_values_of_different_types_apart() -> None:
    assert len({CODEC.item(value).digest for value in (1, 1.0, True, "1", [1], {"1": 1}, (1,))}) == 7


def test_later_changes_of_an_object_do_not_show() -> None:
    value: dict[str, Json] = {"a": [1]}
    encoded = CODEC.encode(value)
    value["a"] = [2]
    assert CODEC.decode(encoded) == {"a": [1]}


def test_a_text_that_utf8_cannot_say_is_stored_as_langgraphs_serializer_says_it() -> None:
    assert CODEC.decode(stored(["a\ud800"])) == ["a?"]


def test_an_unknown_form_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="unknown form"):
        CODEC.decode({"yaml": "a: 1"})


@dataclass(frozen=True)
class OfUsers:
    """A class of users."""

    name: str = "tea"


LANGGRAPHS_OWN: tuple[tuple[object, Json], ...] = (
    (Interrupt({"question": "go on?"}, "i1"), {"interrupt": {"id": "i1", "value": {"json": {"question": "go on?"}}}}),
    ([Interrupt("a", "i1")], {"items": [{"interrupt": {"id": "i1", "value": "a"}}]}),
    ((Interrupt("a", "i1"), Interrupt([1], "i2")), None),
    (Interrupt(HumanMessage("tea"), "i1"), None),
    (Interrupt({1: "no text"}, "i1"), None),
    (Send("node", {"x": 1}), {"send": {"node": "node", "arg": {"json": {"x": 1}}}}),
    ([Send("node", [HumanMessage("tea")])], None),
    (ValueError("boom"), "ValueError('boom')"),
    (KeyError("a", 1), "KeyError('a', 1)"),
)


@pytest.mark.parametrize(("value", "stored"), LANGGRAPHS_OWN, ids=lambda value: str(value)[:30])
def test_what_a_step_asks_sends_and_raises_is_readable_and_restored_as_langgraph_restores_it(
    value: object, stored: Json
) -> None:
    serde = JsonPlusSerializer()
    codec = ChannelCodec(serde)
    encoded = codec.encode(value)
    assert stored is None or encoded == stored
    assert not isinstance(encoded, dict) or "base64" not in encoded
    expected = serde.loads_typed(serde.dumps_typed(value))
    assert codec.decode(encoded) == expected
    assert type(codec.decode(encoded)) is type(expected)
    assert codec.decode(old_form(serde, value)) == expected
    if not isinstance(value, list):
        assert stored_digest(load(dump(encoded))) == codec.item(value).digest


def old_form(serde: JsonPlusSerializer, value: object) -> Json:
    """Return the form in which earlier releases stored a value."""
    tag, data = serde.dumps_typed(value)
    return {"type": tag, "base64": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    "value",
    [Send("node", 1, timeout=3), Interrupt(1, "i1", response_schema={"type": "string"}), (1, Interrupt(1, "i"))],
)
def test_objects_with_more_than_their_plain_fields_are_stored_by_langgraph(value: object) -> None:
    serde = JsonPlusSerializer()
    codec = ChannelCodec(serde)
    encoded = codec.encode(value)
    assert isinstance(encoded, dict)
    assert "base64" in encoded
    assert codec.decode(encoded) == serde.loads_typed(serde.dumps_typed(value))


def test_an_interrupt_with_a_value_of_a_class_of_users_needs_their_code() -> None:
    codec = ChannelCodec(JsonPlusSerializer())
    UserCode(allowed=False).decode(codec.encode([Interrupt({"a": (1, 2)}, "i1"), Send("node", {"x": 1})]))
    for value in (Interrupt(OfUsers(), "i1"), Send("node", [OfUsers()])):
        with pytest.raises(UserCodeNeeded):
            UserCode(allowed=False).decode(codec.encode(value))
