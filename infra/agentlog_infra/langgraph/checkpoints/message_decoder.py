"""Decoder of chat messages: a message of texts is made like an earlier one of the same shape, without validation.

The validation of a message by pydantic costs more than the rest of a long thread's decoding. It changes no field of a
message that holds only texts and empty containers, and does not depend on the text of FREE_TEXTS.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeAlias

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from agentlog_facts.errors import Corrupt
from agentlog_facts.json_value import JsonObject, fresh_object

MESSAGES: Mapping[str, type[BaseMessage]] = {
    "human": HumanMessage,
    "ai": AIMessage,
    "AIMessageChunk": AIMessageChunk,
    "system": SystemMessage,
    "tool": ToolMessage,
}
"""Message classes that are stored as JSON, by their field `type`; objects of subclasses are not."""
PLAIN = frozenset({"human", "ai", "system", "tool"})
"""Types whose validators look at no text of FREE_TEXTS."""
FREE_TEXTS = frozenset({"content", "id", "name", "tool_call_id"})
"""Fields that take any text as it is."""
MOST_SHAPES = 64
"""Shapes of messages that a decoder remembers; others are validated one by one."""

_Shape: TypeAlias = tuple[object, ...]
"""Names of the stored fields, and for each its value, or its type if that decides nothing else."""


@dataclass(frozen=True, slots=True)
class _Template:
    """A validated message, and the fields in which each message of its shape has a text, list or dict of its own."""

    message: BaseMessage
    texts: tuple[str, ...]
    lists: tuple[str, ...]
    dicts: tuple[str, ...]

    def filled(self, stored: JsonObject) -> BaseMessage:
        """Return a message with the texts of `stored`, which shares nothing that can change."""
        made = copy(self.message)
        fields: dict[str, Any] = vars(made)  # Any: of the fields' own types
        for name in self.texts:
            fields[name] = stored[name]
        for name in self.lists:
            fields[name] = []
        for name in self.dicts:
            fields[name] = {}
        return made


class MessageDecoder:
    """Makes messages from their stored fields; each equals what `model_validate` makes of the fields."""

    def __init__(self) -> None:
        self._templates: dict[_Shape, _Template] = {}

    def message(self, stored: JsonObject) -> BaseMessage:
        """Return the message with these fields; it shares nothing with them.

        Like LangGraph, skip validation if the fields no longer pass it. Raises: Corrupt for an unknown type.
        """
        shape = _shape(stored)
        template = None if shape is None else self._templates.get(shape)
        if template is not None:
            return template.filled(stored)
        kind = stored.get("type")
        if not isinstance(kind, str) or kind not in MESSAGES:
            raise Corrupt("channel value: a message of an unknown type")
        try:
            made = MESSAGES[kind].model_validate(fresh_object(stored))
        except ValueError:
            return MESSAGES[kind].model_construct(None, **fresh_object(stored))
        if shape is not None and kind in PLAIN and len(self._templates) < MOST_SHAPES and _is_plain(made):
            self._templates[shape] = _template(made, stored)
        return made


def _shape(stored: JsonObject) -> _Shape | None:
    """Return the shape of a message of texts, truth values and empty containers, None for any other message."""
    found: list[object] = [*stored]
    for name, part in stored.items():
        of = type(part)
        if of is str:
            found.append(of if name in FREE_TEXTS else part)
        elif part is None or of is bool:
            found.append(part)
        elif (of is list or of is dict) and not part:
            found.append(of)
        else:
            return None
    return tuple(found)


def _is_plain(made: BaseMessage) -> bool:
    """Return whether validation has added no part that the messages of a shape would share."""
    parts = made.__dict__.values()
    return not (made.__pydantic_extra__ or made.__pydantic_private__) and all(
        part is None or type(part) in (str, bool) or (type(part) in (list, dict) and not part) for part in parts
    )


def _template(made: BaseMessage, stored: JsonObject) -> _Template:
    """Return the template of a message; its copy is its own, because user code may change the message."""
    fields = made.__dict__
    return _Template(
        message=copy(made),
        texts=tuple(name for name in fields if name in FREE_TEXTS and type(stored.get(name)) is str),
        lists=tuple(name for name, part in fields.items() if type(part) is list),
        dicts=tuple(name for name, part in fields.items() if type(part) is dict),
    )
