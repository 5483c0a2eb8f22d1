"""Tests of the decoder of messages: each message is what pydantic makes of its fields, and shares nothing."""

import random
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, HumanMessage

from agentlog_facts.errors import Corrupt
from agentlog_facts.json_value import Json, JsonObject, fresh_object
from agentlog_infra.langgraph.checkpoints import message_decoder
from agentlog_infra.langgraph.checkpoints.channel_codec import is_list
from agentlog_infra.langgraph.checkpoints.message_decoder import MESSAGES, MOST_SHAPES, MessageDecoder

TEXTS: list[Json] = ["", "text", "NUL \x00", "öé", "ai", "error", "a much longer text " * 20]
VALUES: dict[str, list[Json]] = {
    "content": [*TEXTS, [], ["part"], [{"type": "text", "text": "part"}]],
    "id": [None, *TEXTS, 7],
    "name": [None, *TEXTS],
    "additional_kwargs": [{}, {"tool_calls": []}, {"deep": [{"x": [1]}]}],
    "response_metadata": [{}, {"model_name": "m", "deep": [{}]}],
    "example": [False, True],
    "tool_calls": [[], [{"name": "f", "args": {"x": [1]}, "id": "c", "type": "tool_call"}]],
    "invalid_tool_calls": [[]],
    "usage_metadata": [None, {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}],
    "tool_call_id": TEXTS,
    "artifact": [None, "text", {"x": [1]}, []],
    "status": ["success", "error", "no such status"],
    "chunk_position": [None, "last"],
    "tool_call_chunks": [[], [{"name": "f", "args": "{}", "id": "c", "index": 0}]],
    "extra": [None, "text", [], True, 1],
}
FIELDS: dict[str, list[str]] = {
    "human": ["example"],
    "system": [],
    "ai": ["tool_calls", "invalid_tool_calls", "usage_metadata", "example"],
    "AIMessageChunk": ["tool_calls", "invalid_tool_calls", "usage_metadata", "tool_call_chunks", "chunk_position"],
    "tool": ["tool_call_id", "artifact", "status"],
}


def drawn(draw: random.Random) -> JsonObject:
    """Return the stored fields of a message; most have the first value, which is the usual one."""
    kind = draw.choice([*MESSAGES])
    names = ["content", "additional_kwargs", "response_metadata", "name", "id", *FIELDS[kind]]
    fields: JsonObject = {
        name: VALUES[name][0] if draw.random() < 0.4 else draw.choice(VALUES[name])
        for name in names
        if draw.random() < 0.9
    }
    if draw.random() < 0.1:
        fields["extra"] = draw.choice(VALUES["extra"])
    return fresh_object({**fields, "type": kind} if draw.random() < 0.5 else {"type": kind, **fields})


def validated(stored: JsonObject) -> BaseMessage:
    """Return the message as each was made before there was a decoder."""
    of = MESSAGES[str(stored["type"])]
    try:
        return of.model_validate(fresh_object(stored))
    except ValueError:
        return of.model_construct(None, **fresh_object(stored))


def parts(message: BaseMessage) -> tuple[object, ...]:
    """Return all that a message consists of, with types and order."""
    extra, private = message.__pydantic_extra__, message.__pydantic_private__
    return type(message), repr(message.__dict__), message.model_fields_set, repr(extra), repr(private)


def spoil(message: BaseMessage) -> None:
    """Change all parts of a message in place."""
    fields: dict[str, Any] = vars(message)  # Any: whatever user code finds there
    for name, part in fields.items():
        if is_list(part):
            part.append("spoilt")
        elif isinstance(part, dict):
            part["spoilt"] = True
        else:
            fields[name] = "spoilt"
    message.model_fields_set.add("spoilt")
    if message.__pydantic_extra__ is not None:
        message.__pydantic_extra__["spoilt"] = True


@pytest.mark.parametrize("seed", range(60))
def test_a_message_is_what_pydantic_makes_of_its_fields(seed: int) -> None:
    draw = random.Random(seed)
    decoder = MessageDecoder()
    for _ in range(150):
        stored = drawn(draw)
        if "content" not in stored or (stored["type"] == "tool" and "tool_call_id" not in stored):
            continue
        before = fresh_object(stored)
        message = decoder.message(stored)
        assert parts(message) == parts(validated(stored))
        spoil(message)
        assert stored == before, "a message shares nothing with its stored form"


def test_the_messages_of_a_chat_are_validated_once_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on a thread of 1,430 messages spent an eighth of its time on their validation."""
    calls: list[object] = []
    validate = HumanMessage.model_validate

    def counting(fields: object) -> HumanMessage:
        calls.append(fields)
        return validate(fields)

    monkeypatch.setattr(message_decoder, "MESSAGES", {"human": HumanMessage})
    monkeypatch.setattr(HumanMessage, "model_validate", counting)
    decoder = MessageDecoder()
    for number in range(100):
        made = HumanMessage(f"question {number}", id=str(number))
        assert decoder.message(made.model_dump()) == made
    assert len(calls) == 1


def test_a_decoder_remembers_a_limited_number_of_shapes() -> None:
    decoder = MessageDecoder()
    for number in range(2 * MOST_SHAPES):
        stored: JsonObject = {"type": "tool", "content": "x", "tool_call_id": "c", "artifact": f"file {number}"}
        assert parts(decoder.message(stored)) == parts(validated(stored))
    assert len(decoder._templates) == MOST_SHAPES  # pyright: ignore[reportPrivateUsage]  # its size is not told


@pytest.mark.parametrize("kind", ["remove", None, 1])
def test_a_message_of_an_unknown_type_is_corrupt(kind: Json) -> None:
    with pytest.raises(Corrupt, match="unknown type"):
        MessageDecoder().message({"type": kind, "content": "x"})
