"""Frames of the stream mode `messages`: each message so far, built from the chunks that LangGraph streams.

Each frame holds the whole message, so a reader needs none of the frames before it (decision 0058).
Source: docs/http-api.md, section 10.4.
"""

from collections.abc import Callable, Iterator
from typing import TypeGuard

from langchain_core.messages import BaseMessage, BaseMessageChunk, message_chunk_to_message

from agentlog_facts.frame import Frame
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra.langgraph.value_json import clean_text

Encode = Callable[[object], Json]
"""Returns a value as JSON. Raises: TooDeep."""


class AccumulatedMessages:
    """The messages of one run, in the order of their first chunks."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._so_far: dict[str, BaseMessageChunk | None] = {}

    def frames(self, message: BaseMessage, metadata: JsonObject) -> Iterator[Frame]:
        """Yield the metadata of a message that is new, and then the message as far as it is known."""
        message_id = clean_text(str(message.id))
        if message_id not in self._so_far:
            self._so_far[message_id] = None
            yield Frame("messages/metadata", {message_id: {"metadata": metadata}})
        if not _is_chunk(message):
            yield Frame("messages/complete", [self._encode(message)])
            return
        before = self._so_far[message_id]
        whole = message if before is None else _joined(before, message)
        self._so_far[message_id] = whole
        yield Frame("messages/partial", [self._encode(message_chunk_to_message(whole))])


def _joined(before: BaseMessageChunk, chunk: BaseMessageChunk) -> BaseMessageChunk:
    joined = before + chunk
    if not _is_chunk(joined):
        raise TypeError(f"langchain joins {type(before).__name__} and a chunk to {type(joined).__name__}")
    return joined


def _is_chunk(message: object) -> TypeGuard[BaseMessageChunk]:
    return isinstance(message, BaseMessageChunk)
