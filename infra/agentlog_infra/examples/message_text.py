"""Text of a message: its content if that is a string, else its text blocks joined."""

from collections.abc import Sequence

from langchain_core.messages import BaseMessage, HumanMessage


def text_of(message: BaseMessage) -> str:
    """Return the text of a message, for every form of its content."""
    return str(message.text)


def last_question(messages: Sequence[BaseMessage]) -> str:
    """Return the text of the newest human message, or "" if there is none."""
    return next((text_of(message) for message in reversed(messages) if isinstance(message, HumanMessage)), "")
