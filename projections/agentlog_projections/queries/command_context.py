"""Port for the rows on which commands are decided; each answer comes from one snapshot."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agentlog_commands.run_request import OpenInterrupts, RunAssistant
from agentlog_facts.assistant import AssistantState
from agentlog_facts.envelope import LogPosition
from agentlog_facts.ids import AssistantId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import ThreadState
from agentlog_projections.models.assistant_fold import AssistantRow


@dataclass(frozen=True, slots=True)
class ThreadContext:
    """A thread for a decision: its state with the active runs, its metadata, and the versions to demand.

    `version` is that of the stream `thread-`, `meta_version` that of `meta-`. Both continue after a deletion, and are
    None if nothing was ever accepted on the stream. `ttl` and `expires_at` are those of `ThreadRow`.
    """

    state: ThreadState
    version: int | None
    meta_version: int | None
    metadata: JsonObject
    ttl: JsonObject | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AssistantContext:
    """An assistant for a decision; `row` is None if there never was one, and stays after a deletion."""

    row: AssistantRow | None

    @property
    def state(self) -> AssistantState:
        """Return the state for deciders."""
        return AssistantState() if self.row is None else self.row.state

    @property
    def version(self) -> int | None:
        """Return the version of the stream, None if nothing was ever accepted on it; it continues after a deletion."""
        return None if self.row is None else self.row.revision


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

    async def assistant(self, assistant_id: AssistantId, partition: int) -> AssistantContext:
        """Return an assistant. Raises: as `thread`."""
        ...

    async def open_interrupts(self, thread_id: ThreadId) -> OpenInterrupts:
        """Return the open interrupts of a thread and its newest checkpoint; none of a thread that is not there."""
        ...

    async def first_tried_at(self, thread_id: ThreadId, event_id: str) -> int | None:
        """Return the thread version that an intent demanded when it first lost to a version conflict.

        None: no append with this event id has met a version conflict on the stream `thread-`.
        """
        ...

    async def runs_since(self, thread_id: ThreadId, version: int) -> list[LogPosition]:
        """Return the log positions of the commits above `version` that created a run on the thread, in order."""
        ...
