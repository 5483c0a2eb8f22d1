"""Facts of a copy of a thread, on the stream `copy-` of the new thread, which exists only after `ThreadCopied`.

The copied checkpoints and writes are facts on this stream too, so that a fold of the new thread reads no other one.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from agentlog_facts.ids import ThreadId
from agentlog_facts.json_value import JsonObject


@dataclass(frozen=True, slots=True)
class ThreadCopyAsked:
    """A copy of a thread was asked for; the fact holds all of the source but its checkpoints.

    `source_versions` are those of the source's streams, {thread, meta}. Of its aggregate, the checkpoints among the
    first `as_of` facts are copied. `view`, `next` and `interrupts` are as in `StateUpdated`, from no state on.
    """

    thread_id: ThreadId
    source_thread_id: ThreadId
    source_created_at: datetime
    source_versions: JsonObject
    as_of: int
    metadata: JsonObject
    ttl: JsonObject | None
    view: JsonObject
    next: tuple[str, ...]
    interrupts: JsonObject


@dataclass(frozen=True, slots=True)
class ThreadCopyContinued:
    """With this commit, all checkpoints and writes of the source's first `up_to` facts are on the stream.

    Channels that append name bases on this stream. A `CheckpointsHidden` names those that are hidden on the source.
    """

    thread_id: ThreadId
    up_to: int


@dataclass(frozen=True, slots=True)
class ThreadCopyGivenUp:
    """The copy will never exist; the reason is one of `late`, `source_gone` and `exists`.

    It was not finished in time, its source is gone, or another command made a thread of this id.
    """

    thread_id: ThreadId
    reason: str


ThreadCopyFact: TypeAlias = ThreadCopyAsked | ThreadCopyContinued | ThreadCopyGivenUp
