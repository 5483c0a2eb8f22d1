"""Commands of a thread: CreateThread, PatchThread, DeleteThread, UpdateState."""

from collections.abc import Mapping
from dataclasses import dataclass

from agentlog_commands.command import Accepted, Decision, Reason, Refused
from agentlog_commands.metadata_limit import DEFAULT, MetadataLimit
from agentlog_facts.checkpoint import CheckpointFact
from agentlog_facts.envelope import Demand
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


def meta_stream(thread_id: ThreadId) -> Stream:
    """Return the stream for the metadata of a thread."""
    return stream("meta", thread_id)


@dataclass(frozen=True, slots=True)
class CreateThread:
    """Create a thread without a read: if the thread exists, the demand `absent` makes the commit void."""

    thread_id: ThreadId
    metadata: JsonObject
    limit: MetadataLimit = DEFAULT

    def decide(self) -> Decision:
        """Accept, or refuse metadata that is too large; the guard decides whether the thread exists."""
        name = thread_stream(self.thread_id)
        return self.limit.refusal(self.metadata) or Accepted(
            name, (ThreadCreated(self.thread_id, self.metadata),), {name: "absent"}
        )


@dataclass(frozen=True, slots=True)
class PatchThread:
    """Merge metadata, on a stream `meta-` of its own, so that it does not conflict with a decision about runs."""

    thread_id: ThreadId
    metadata: JsonObject
    limit: MetadataLimit = DEFAULT

    @property
    def large(self) -> bool:
        """Return whether a few patches like this one would exceed the limit together."""
        return not self.limit.part().holds(self.metadata)

    def decide(self, state: ThreadState, before: JsonObject, meta_version: int | None) -> Decision:
        """Accept, or refuse if the thread does not exist, or if its metadata would be too large.

        `before` is the metadata at `meta_version`. A patch demands the version if it is large or if more
        than half of the limit is used: patches that see the same metadata must not exceed the limit together. A first
        patch demands that there is no other yet.
        """
        if not state.exists:
            return Refused("thread_not_found")
        merged = {**before, **self.metadata}
        patched = ThreadMetadataPatched(self.thread_id, self.metadata)
        demand = self._demand(merged, meta_version)
        name = meta_stream(self.thread_id)
        return self.limit.refusal(merged) or Accepted(name, (patched,), {name: demand})

    def _demand(self, merged: JsonObject, meta_version: int | None) -> Demand:
        if not self.large and self.limit.part(2).holds(merged):
            return "exists"
        return "absent" if meta_version is None else meta_version


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
        patched: Demand = "absent" if self.meta_version is None else self.meta_version
        demands: Mapping[Stream, Demand] = {name: self.version, meta_stream(self.thread_id): patched}
        return Accepted(name, (ThreadDeleted(self.thread_id),), demands)


@dataclass(frozen=True, slots=True)
class UpdateState:
    """Update the state for a client: the collected checkpoints and the change of the view, in one commit."""

    thread_id: ThreadId
    version: int
    checkpoints: tuple[CheckpointFact, ...]
    updated: StateUpdated

    def decide(self, state: ThreadState) -> Decision:
        """Accept, or refuse while a run is active. Source: docs/http-api.md, section 6.3.

        The refusal `run_stopping` is for a thread whose runs are all cancelled: it holds until these have ended.
        """
        if not state.exists:
            return Refused("thread_not_found")
        if state.runs:
            reason: Reason = "thread_busy" if state.busy else "run_stopping"
            return Refused(reason, f"Thread {self.thread_id} has in-flight runs: {list(state.runs)}")
        name = thread_stream(self.thread_id)
        return Accepted(name, (*self.checkpoints, self.updated), {name: self.version})
