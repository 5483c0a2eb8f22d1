"""Types that keep the kinds of ids apart, and the names of streams."""

from typing import Literal, NewType

ThreadId = NewType("ThreadId", str)
RunId = NewType("RunId", str)
AssistantId = NewType("AssistantId", str)
CronId = NewType("CronId", str)
Key = NewType("Key", str)
"""Aggregate key: the Kafka key of every record of the aggregate. A thread's id, an assistant's id, ..."""
Stream = NewType("Stream", str)
"""`category-rest`, for example `thread-<thread_id>`; a stream's version counts its accepted commits from 0."""

Category = Literal[
    "thread", "meta", "run", "copy", "assistant", "cron", "store", "webhook", "system", "refusals", "partition"
]


def stream(category: Category, rest: str) -> Stream:
    """Return the name of a stream: `category-rest`."""
    return Stream(f"{category}-{rest}")


def category(name: Stream) -> str:
    """Return the part of a stream's name before the first dash."""
    return name.partition("-")[0]


def rest(name: Stream) -> str:
    """Return the part of a stream's name after the first dash."""
    return name.partition("-")[2]
