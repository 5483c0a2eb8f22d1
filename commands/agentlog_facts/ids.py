"""Identities that could be swapped, kept apart by type, and how the streams of an aggregate are named."""

from typing import Literal, NewType

ThreadId = NewType("ThreadId", str)
RunId = NewType("RunId", str)
AssistantId = NewType("AssistantId", str)
Key = NewType("Key", str)
"""Aggregate key: the Kafka key of every record of the aggregate. A thread's id, an assistant's id, ..."""
Stream = NewType("Stream", str)
"""`category-rest`, for example `thread-<thread_id>`; a stream's version counts its accepted commits from 0."""

Category = Literal["thread", "meta", "run", "assistant", "cron", "store", "webhook", "system", "refusals", "partition"]


def stream(category: Category, rest: str) -> Stream:
    """Name the stream `rest` of a category."""
    return Stream(f"{category}-{rest}")


def category(name: Stream) -> str:
    """Return what stands before the first dash."""
    return name.partition("-")[0]


def rest(name: Stream) -> str:
    """Return what stands behind the first dash."""
    return name.partition("-")[2]
