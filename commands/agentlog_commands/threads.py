"""CreateThread, PatchThread, DeleteThread, UpdateState: what may be asked of a thread."""

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
    """Name the stream of a thread's life cycle and that of its runs."""
    return stream("thread", thread_id)


@dataclass(frozen=True, slots=True)
class CreateThread:
    """Create a thread; the log refuses it where the thread exists (demand `absent`), so nothing is read before."""

    thread_id: ThreadId
    metadata: JsonObject

    def decide(self) -> Decision:
        """Always accept; the guard knows better than any read whether the thread exists."""
        name = thread_stream(self.thread_id)
        return Accepted(name, (ThreadCreated(self.thread_id, self.metadata),), {name: "absent"})


@dataclass(frozen=True, slots=True)
class PatchThread:
    """Merge metadata; lies on `meta-`, so that it never disturbs a decision about runs."""

    thread_id: ThreadId
    metadata: JsonObject

    def decide(self, state: ThreadState) -> Decision:
        """Refuse for a thread that does not exist."""
        if not state.exists:
            return Refused("thread_not_found")
        name = stream("meta", self.thread_id)
        return Accepted(name, (ThreadMetadataPatched(self.thread_id, self.metadata),), {name: "exists"})


@dataclass(frozen=True, slots=True)
class DeleteThread:
    """Delete a thread with its runs and checkpoints; `version`, `meta_version`: what the decision relied on."""

    thread_id: ThreadId
    version: int
    meta_version: int | None

    def decide(self, state: ThreadState) -> Decision:
        """Refuse for a thread that does not exist; active runs end with it."""
        if not state.exists:
            return Refused("thread_not_found")
        name = thread_stream(self.thread_id)
        demands = {name: self.version}
        if self.meta_version is not None:
            demands[stream("meta", self.thread_id)] = self.meta_version
        return Accepted(name, (ThreadDeleted(self.thread_id),), demands)


@dataclass(frozen=True, slots=True)
class UpdateState:
    """Write the state by hand: the collected checkpoints and what they made of the view, in one commit."""

    thread_id: ThreadId
    version: int
    checkpoints: tuple[CheckpointFact, ...]
    updated: StateUpdated

    def decide(self, state: ThreadState) -> Decision:
        """Refuse while a run is active. Source: docs/http-api.md, section 6.3."""
        if not state.exists:
            return Refused("thread_not_found")
        if state.busy:
            return Refused("thread_busy", f"Thread {self.thread_id} has in-flight runs: {list(state.runs)}")
        name = thread_stream(self.thread_id)
        return Accepted(name, (*self.checkpoints, self.updated), {name: self.version})
