"""Port for the context of commands: the state that deciders need, each answer from one snapshot."""

from dataclasses import dataclass
from typing import Protocol

from agentlog_commands.run_request import RunAssistant
from agentlog_facts.envelope import LogPosition
from agentlog_facts.ids import AssistantId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import ThreadState


@dataclass(frozen=True, slots=True)
class ThreadContext:
    """A thread as deciders see it. `version` is that of `thread-`, also of a deleted thread; None: it never existed."""

    state: ThreadState
    version: int | None
    meta_version: int | None
    metadata: JsonObject


class CommandContexts(Protocol):
    """Combined queries of the gateway. Every method raises Unavailable when the database does not answer."""

    async def thread(self, thread_id: ThreadId, partition: int) -> ThreadContext:
        """Return a thread with its active runs.

        Raises: Unavailable also while the partition is not present; Quarantined while a read model has it parked.
        """
        ...

    async def run_target(
        self, thread_id: ThreadId, partition: int, assistant_id: AssistantId
    ) -> tuple[ThreadContext, RunAssistant | None]:
        """Return the thread of a new run, as `thread` does, and its assistant. Raises: as `thread`."""
        ...

    async def first_tried_at(self, thread_id: ThreadId, event_id: str) -> int | None:
        """Return the thread version that the first try of an intent expected, if that try met a version conflict."""
        ...

    async def runs_since(self, thread_id: ThreadId, version: int) -> list[LogPosition]:
        """Return the log positions of the runs created on a thread after this version of it, in order."""
        ...
