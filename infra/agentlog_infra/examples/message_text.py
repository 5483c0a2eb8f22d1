"""Decides what the text of a message is: its content when that is a string, else its text blocks joined."""

from collections.abc import Sequence

from langchain_core.messages import BaseMessage, HumanMessage


def text_of(message: BaseMessage) -> str:
    """Return the words of a message, whatever shape its content has."""
    return str(message.text)


def last_question(messages: Sequence[BaseMessage]) -> str:
    """Return the text of the newest human message, or nothing if no human has spoken."""
    return next((text_of(message) for message in reversed(messages) if isinstance(message, HumanMessage)), "")
