"""Commands of a thread: CreateThread, PatchThread, PruneThread, DeleteThread, ExpireThread, UpdateState."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from agentlog_commands.command import Accepted, Decision, Reason, Refused
from agentlog_commands.metadata_limit import DEFAULT, MetadataLimit
from agentlog_facts.checkpoint import CheckpointFact, CheckpointKey, CheckpointsHidden
from agentlog_facts.envelope import Demand, Fact
from agentlog_facts.ids import Stream, ThreadId, stream
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.thread import (
    StateUpdated,
    ThreadCreated,
    ThreadDeleted,
    ThreadMetadataPatched,
    ThreadPruned,
    ThreadState,
    ThreadTtlSet,
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
    ttl: JsonObject | None = None

    def decide(self, state: Sequence[Fact] = ()) -> Decision:
        """Accept, or refuse metadata that is too large; the guard decides whether the thread exists.

        `state` are facts of a first state, for the same commit.
        """
        name = thread_stream(self.thread_id)
        created = ThreadCreated(self.thread_id, self.metadata, ttl=self.ttl)
        return self.limit.refusal(self.metadata) or Accepted(name, (created, *state), {name: "absent"})


@dataclass(frozen=True, slots=True)
class PatchThread:
    """Merge metadata and replace the TTL, on the stream `meta-`, so that no decision about runs is disturbed."""

    thread_id: ThreadId
    metadata: JsonObject
    limit: MetadataLimit = DEFAULT
    ttl: JsonObject | None = None

    @property
    def large(self) -> bool:
        """Return whether a few patches like this one would exceed the limit together."""
        return not self.limit.part().holds(self.metadata)

    def decide(
        self, state: ThreadState, before: JsonObject, meta_version: int | None, version: int | None = None
    ) -> Decision:
        """Accept, or refuse if the thread does not exist, or if its metadata would be too large.

        `before` is the metadata at `meta_version`. A patch demands that version if it is large or if more than half of
        the limit is used: patches that see the same metadata must not exceed the limit together. A first patch demands
        that there is no other yet. With `version`, that of the thread, the patch demands both versions.
        """
        if not state.exists:
            return Refused("thread_not_found")
        merged = {**before, **self.metadata}
        name = meta_stream(self.thread_id)
        demands: dict[Stream, Demand] = {name: self._demand(merged, meta_version)}
        if version is not None:
            seen: Demand = "absent" if meta_version is None else meta_version
            demands = {thread_stream(self.thread_id): version, name: seen}
        return self.limit.refusal(merged) or Accepted(name, self._facts(), demands)

    def _facts(self) -> tuple[Fact, ...]:
        if self.ttl is None:
            return (ThreadMetadataPatched(self.thread_id, self.metadata),)
        patched = (ThreadMetadataPatched(self.thread_id, self.metadata),) if self.metadata else ()
        return (*patched, ThreadTtlSet(self.thread_id, self.ttl))

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
        return Accepted(thread_stream(self.thread_id), (ThreadDeleted(self.thread_id),), _versions(self))


@dataclass(frozen=True, slots=True)
class PruneThread:
    """Keep only the last checkpoint of each namespace; `earlier` are the others, as of the two versions."""

    thread_id: ThreadId
    version: int
    meta_version: int | None
    earlier: Sequence[CheckpointKey]

    def decide(self, state: ThreadState) -> Decision:
        """Accept, or refuse if the thread does not exist, if a run may still need a checkpoint, or if none is hidden.

        Without an active run, no checkpoint is accepted before the version of the thread changes.
        """
        if not state.exists:
            return Refused("thread_not_found")
        if state.runs:
            return Refused("thread_busy", f"Thread {self.thread_id} has in-flight runs: {list(state.runs)}")
        if not self.earlier:
            return Refused("nothing_to_do")
        return Accepted(thread_stream(self.thread_id), self.facts, _versions(self))

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Return the facts of a thread that is pruned, also if it has nothing to hide."""
        named: tuple[Json, ...] = tuple(
            {"ns": key.checkpoint_ns, "checkpoint_id": key.checkpoint_id} for key in self.earlier
        )
        hidden = (CheckpointsHidden(self.thread_id, named, "prune"),) if named else ()
        return (*hidden, ThreadPruned(self.thread_id))


@dataclass(frozen=True, slots=True)
class ExpireThread:
    """Delete or prune a thread whose time to live is over at `now`, by its strategy."""

    prune: PruneThread
    ttl: JsonObject | None
    expires_at: datetime | None
    now: datetime

    def decide(self, state: ThreadState) -> Decision:
        """Accept, or refuse if the thread was updated meanwhile, or while a run is active."""
        if not state.exists:
            return Refused("thread_not_found")
        if state.runs or self.ttl is None or self.expires_at is None or self.expires_at > self.now:
            return Refused("nothing_to_do")
        prune = self.prune
        if self.ttl.get("strategy") == "keep_latest":
            return Accepted(thread_stream(prune.thread_id), prune.facts, _versions(prune))
        return DeleteThread(prune.thread_id, prune.version, prune.meta_version).decide(state)


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


def _versions(command: DeleteThread | PruneThread) -> dict[Stream, Demand]:
    """Return the demand that neither the thread nor its metadata have changed since the decision was made."""
    patched: Demand = "absent" if command.meta_version is None else command.meta_version
    return {thread_stream(command.thread_id): command.version, meta_stream(command.thread_id): patched}
