"""Port for what a request needs before it is decided; each answer is of one snapshot."""

from dataclasses import dataclass
from typing import Protocol

from agentlog_commands.run_request import RunAssistant
from agentlog_facts.envelope import LogPosition
from agentlog_facts.ids import AssistantId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import ThreadState


@dataclass(frozen=True, slots=True)
class ThreadContext:
    """A thread as deciders see it. `version` is that of `thread-`, also of a deleted thread; None: it never was."""

    state: ThreadState
    version: int | None
    meta_version: int | None
    metadata: JsonObject


class CommandContexts(Protocol):
    """Combined questions of the gateway. Every method raises Unavailable when the database does not answer."""

    async def thread(self, thread_id: ThreadId, partition: int) -> ThreadContext:
        """Return a thread with its active runs.

        Raises: Unavailable also while the partition is not present, Quarantined while a read model of it is parked.
        """
        ...

    async def run_target(
        self, thread_id: ThreadId, partition: int, assistant_id: AssistantId
    ) -> tuple[ThreadContext, RunAssistant | None]:
        """Return what a new run needs: its thread as of `thread`, and its assistant. Raises: as `thread`."""
        ...

    async def first_tried_at(self, thread_id: ThreadId, event_id: str) -> int | None:
        """Return the version of the thread that the first try of an intent relied on, if it came too late for it."""
        ...

    async def runs_since(self, thread_id: ThreadId, version: int) -> list[LogPosition]:
        """Return where the runs lie on the log that came to a thread after this version of it, in order."""
        ...
