"""Commands of a thread: CreateThread, PatchThread, DeleteThread, UpdateState."""

from dataclasses import dataclass

from agentlog_commands.command import Accepted, Decision, Refused
from agentlog_facts.checkpoint import CheckpointFact
from agentlog_facts.ids import Stream, ThreadId, stream
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import (
    StateUpdated,
    ThreadCreated,
    ThreadDeleted,
    ThreadMetadataPatched,
    ThreadState,
)


def thread_stream(thread_id: ThreadId) -> Stream:
    """Return the stream for the life cycle of a thread and of its runs."""
    return stream("thread", thread_id)


@dataclass(frozen=True, slots=True)
class CreateThread:
    """Create a thread without a read: if the thread exists, the demand `absent` makes the commit void."""

    thread_id: ThreadId
    metadata: JsonObject

    def decide(self) -> Decision:
        """Always accept; the guard decides whether the thread exists."""
        name = thread_stream(self.thread_id)
        return Accepted(name, (ThreadCreated(self.thread_id, self.metadata),), {name: "absent"})


@dataclass(frozen=True, slots=True)
class PatchThread:
    """Merge metadata, on a stream `meta-` of its own, so that it never conflicts with a decision about runs."""

    thread_id: ThreadId
    metadata: JsonObject

    def decide(self, state: ThreadState) -> Decision:
        """Accept, or refuse if the thread does not exist."""
        if not state.exists:
            return Refused("thread_not_found")
        name = stream("meta", self.thread_id)
        return Accepted(name, (ThreadMetadataPatched(self.thread_id, self.metadata),), {name: "exists"})


@dataclass(frozen=True, slots=True)
class DeleteThread:
    """Delete a thread with its runs and checkpoints; the decision relies on `version` and `meta_version`."""

    thread_id: ThreadId
    version: int
    meta_version: int | None

    def decide(self, state: ThreadState) -> Decision:
        """Accept, or refuse if the thread does not exist; active runs end with it."""
        if not state.exists:
            return Refused("thread_not_found")
        name = thread_stream(self.thread_id)
        demands = {name: self.version}
        if self.meta_version is not None:
            demands[stream("meta", self.thread_id)] = self.meta_version
        return Accepted(name, (ThreadDeleted(self.thread_id),), demands)


@dataclass(frozen=True, slots=True)
class UpdateState:
    """Update the state for a client: the collected checkpoints and the change of the view, in one commit."""

    thread_id: ThreadId
    version: int
    checkpoints: tuple[CheckpointFact, ...]
    updated: StateUpdated

    def decide(self, state: ThreadState) -> Decision:
        """Accept, or refuse while a run is active. Source: docs/http-api.md, section 6.3."""
        if not state.exists:
            return Refused("thread_not_found")
        if state.busy:
            return Refused("thread_busy", f"Thread {self.thread_id} has in-flight runs: {list(state.runs)}")
        name = thread_stream(self.thread_id)
        return Accepted(name, (*self.checkpoints, self.updated), {name: self.version})
