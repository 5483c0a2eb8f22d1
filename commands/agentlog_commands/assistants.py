"""Commands of an assistant, and the commits that follow its deletion.

Every decision about an existing assistant demands the version of its stream: no demand says that an assistant was
deleted. Source: docs/http-api.md, section 4.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol, TypeVar
from uuid import UUID, uuid5

from agentlog_commands.command import Accepted, Decision, Refused
from agentlog_commands.identity import digest
from agentlog_commands.metadata_limit import DEFAULT, MetadataLimit
from agentlog_commands.run_request import BOTH_GIVEN
from agentlog_commands.runs import CancelRun
from agentlog_commands.submit import Intent, Outcome, Submitter
from agentlog_commands.threads import DeleteThread
from agentlog_facts.assistant import (
    AssistantCreated,
    AssistantDeleted,
    AssistantDeletionAsked,
    AssistantRevised,
    AssistantState,
    AssistantVersion,
    AssistantVersionSelected,
)
from agentlog_facts.configurable import is_server_key
from agentlog_facts.envelope import Cause, Demand
from agentlog_facts.ids import AssistantId, Key, RunId, Stream, ThreadId, stream
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.ports import Clock
from agentlog_facts.thread import ThreadState

T = TypeVar("T")
AT_ONCE = 16
"""Most followers of a deletion that are written at the same time."""
CANCELLED: Mapping[str, str] = {
    "error": "UserInterrupt",
    "message": "interrupt requested via DELETE /assistants/{assistant_id}",
}
"""Error of the runs that a deletion cancels."""
SYSTEM_NAMESPACE = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
"""Namespace of the ids of system assistants. Source: docs/http-api.md, section 1.2."""
UNTITLED = "Untitled"
DELETING = "the assistant is being deleted"


def system_assistant_id(graph_id: str) -> AssistantId:
    """Return the id of the system assistant of a graph."""
    return AssistantId(str(uuid5(SYSTEM_NAMESPACE, graph_id)))


def assistant_stream(assistant_id: AssistantId) -> Stream:
    """Return the stream of an assistant."""
    return stream("assistant", assistant_id)


def _as_seen(name: Stream, version: int | None) -> dict[Stream, Demand]:
    """Return the demand that the assistant is as the decision has seen it; `version` is None if it never was."""
    return {name: "absent" if version is None else version}


@dataclass(frozen=True, slots=True)
class EnsureSystemAssistant:
    """Create the system assistant of a graph, or revise it after its description in langgraph.json has changed.

    `told` is the description that a server stated last: a change by a client stays until langgraph.json changes.
    """

    graph_id: str
    description: str | None

    def decide(self, state: AssistantState, version: int | None, told: str | None) -> Decision:
        """Create the assistant, revise it if the description has changed, or refuse with `nothing_to_do`."""
        assistant_id = system_assistant_id(self.graph_id)
        name = assistant_stream(assistant_id)
        current = state.current
        if current is None:
            return Accepted(name, (self._created(assistant_id),), _as_seen(name, version))
        if told == self.description or state.asked is not None:
            return Refused("nothing_to_do")
        revised = _revised(current, state.newest + 1, description=self.description)
        return Accepted(name, (revised,), _as_seen(name, version))

    def _created(self, assistant_id: AssistantId) -> AssistantCreated:
        metadata: JsonObject = {"created_by": "system"}
        return AssistantCreated(assistant_id, self.graph_id, {}, {}, metadata, self.graph_id, self.description)


@dataclass(frozen=True, slots=True)
class CreateAssistant:
    """Create an assistant as version 1."""

    assistant_id: AssistantId
    graph_id: str
    config: JsonObject = field(default_factory=dict[str, Json])
    context: JsonObject = field(default_factory=dict[str, Json])
    metadata: JsonObject = field(default_factory=dict[str, Json])
    name: str = UNTITLED
    description: str | None = None
    limit: MetadataLimit = DEFAULT

    def decide(self, state: AssistantState, version: int | None) -> Decision:
        """Accept, or refuse an id that exists, `context` with `config.configurable`, and metadata that is too large."""
        if state.current is not None:
            return Refused("assistant_exists")
        refusal = _both_given(self.config, self.context) or self.limit.refusal(self.metadata)
        if refusal is not None:
            return refusal
        config, context = mirror(self.config, self.context)
        created = AssistantCreated(
            self.assistant_id, self.graph_id, config, context, self.metadata, self.name, self.description
        )
        name = assistant_stream(self.assistant_id)
        return Accepted(name, (created,), _as_seen(name, version))


@dataclass(frozen=True, slots=True)
class PatchAssistant:
    """Make the next version; None keeps a field, and so do an empty `config` and `context`.

    `metadata` is merged by its top-level keys, every other field is replaced.
    """

    assistant_id: AssistantId
    graph_id: str | None = None
    config: JsonObject | None = None
    context: JsonObject | None = None
    metadata: JsonObject | None = None
    name: str | None = None
    description: str | None = None
    limit: MetadataLimit = DEFAULT

    def decide(self, state: AssistantState, version: int | None) -> Decision:
        """Accept, or refuse an unknown assistant, one that is being deleted, and values that cannot be stored."""
        current = state.current
        if current is None or version is None:
            return Refused("assistant_not_found")
        if state.asked is not None:
            return Refused("assistant_deleting", DELETING)
        metadata = {**current.metadata, **(self.metadata or {})}
        refusal = _both_given(self.config or {}, self.context or {}) or self.limit.refusal(metadata)
        if refusal is not None:
            return refusal
        config, context = self._settings(current)
        revised = AssistantRevised(
            self.assistant_id,
            state.newest + 1,
            current.graph_id if self.graph_id is None else self.graph_id,
            config,
            context,
            metadata,
            current.name if self.name is None else self.name,
            current.description if self.description is None else self.description,
        )
        name = assistant_stream(self.assistant_id)
        return Accepted(name, (revised,), _as_seen(name, version))

    def _settings(self, current: AssistantVersion) -> tuple[JsonObject, JsonObject]:
        """Return config and context; a new context alone replaces `configurable`, and keeps the rest of the config."""
        if self.config:
            return mirror(self.config, self.context or {})
        if self.context:
            rest = {name: value for name, value in current.config.items() if name != "configurable"}
            return mirror(rest, self.context)
        return current.config, current.context


@dataclass(frozen=True, slots=True)
class SelectVersion:
    """Make an existing version the current one; `wanted` states it, None if there is no such version."""

    assistant_id: AssistantId
    wanted: AssistantVersionSelected | None

    def decide(self, state: AssistantState, version: int | None) -> Decision:
        """Accept, or refuse an unknown assistant or version, and an assistant that is being deleted."""
        if state.current is None or version is None:
            return Refused("assistant_not_found")
        if state.asked is not None:
            return Refused("assistant_deleting", DELETING)
        if self.wanted is None:
            return Refused("version_not_found")
        name = assistant_stream(self.assistant_id)
        return Accepted(name, (self.wanted,), _as_seen(name, version))


@dataclass(frozen=True, slots=True)
class DeleteAssistant:
    """Delete an assistant, after the runs `runs` (run id -> thread id) are cancelled and `threads` are deleted."""

    assistant_id: AssistantId
    threads: tuple[ThreadId, ...] = ()
    runs: Mapping[RunId, ThreadId] = field(default_factory=dict[RunId, ThreadId])

    def decide(self, state: AssistantState, version: int | None) -> Decision:
        """Delete at once if nothing has to follow; else ask for it. Refuse a deletion that was asked for already."""
        if state.current is None or version is None:
            return Refused("assistant_not_found")
        if state.asked is not None:
            return Refused("assistant_deleting", DELETING)
        name = assistant_stream(self.assistant_id)
        if not self.threads and not self.runs:
            return Accepted(name, (AssistantDeleted(self.assistant_id),), _as_seen(name, version))
        runs: JsonObject = {str(run_id): str(thread_id) for run_id, thread_id in self.runs.items()}
        asked = AssistantDeletionAsked(self.assistant_id, self.threads, runs)
        return Accepted(name, (asked,), _as_seen(name, version))


@dataclass(frozen=True, slots=True)
class FinishDeletion:
    """End a deletion whose followers are all done."""

    assistant_id: AssistantId

    def decide(self, state: AssistantState, version: int | None) -> Decision:
        """Delete the assistant, or refuse if no deletion is open."""
        if state.asked is None or version is None:
            return Refused("nothing_to_do")
        name = assistant_stream(self.assistant_id)
        return Accepted(name, (AssistantDeleted(self.assistant_id),), _as_seen(name, version))


def mirror(config: JsonObject, context: JsonObject) -> tuple[JsonObject, JsonObject]:
    """Return config and context with each filled from the other; keys of the server are no context.

    Source: docs/http-api.md, section 4.2.
    """
    if context:
        return {**config, "configurable": context}, context
    configurable = config.get("configurable")
    given = configurable if isinstance(configurable, dict) else {}
    return config, {name: value for name, value in given.items() if not is_server_key(name)}


def _both_given(config: JsonObject, context: JsonObject) -> Refused | None:
    return Refused("context_and_configurable", BOTH_GIVEN) if config.get("configurable") and context else None


def _revised(old: AssistantVersion, version: int, *, description: str | None) -> AssistantRevised:
    return AssistantRevised(
        old.assistant_id, version, old.graph_id, old.config, old.context, old.metadata, old.name, description
    )


class _ThreadSeen(Protocol):
    @property
    def state(self) -> ThreadState: ...
    @property
    def version(self) -> int | None: ...
    @property
    def meta_version(self) -> int | None: ...


class _AssistantSeen(Protocol):
    @property
    def state(self) -> AssistantState: ...
    @property
    def version(self) -> int | None: ...


class DeletionReads(Protocol):
    """The rows on which the followers of a deletion are decided. Every method raises Unavailable."""

    async def thread(self, thread_id: ThreadId, partition: int) -> _ThreadSeen:
        """Return a thread with its active runs."""
        ...

    async def assistant(self, assistant_id: AssistantId, partition: int) -> _AssistantSeen:
        """Return an assistant."""
        ...


@dataclass(frozen=True, slots=True)
class DeletionFollowers:
    """Commits that follow an accepted deletion. Several processes may write them at the same time: each counts once.

    A process that dies here leaves the rest to the housekeeper.
    """

    submitter: Submitter
    reads: DeletionReads
    partition_of: Callable[[Key], int]
    clock: Clock
    grace: timedelta
    """Workers of cancelled runs must stop within this time."""

    async def follow(self, event_id: str, asked: AssistantDeletionAsked, cause: Cause, deadline: float) -> Outcome:
        """Cancel the runs, delete the threads, then the assistant; `event_id` is that of the commit that asked for it.

        Return the outcome of the last step. Raises: Unavailable, OutcomeUnknown; then the assistant is not deleted, and
        all runs and threads are done but those that failed.
        """
        caused = replace(cause, causation_id=event_id)
        failed: list[BaseException] = []
        for part in _parts([*asked.runs.items()]):
            failed += await _all(
                self._cancel(event_id, RunId(run), ThreadId(str(thread)), caused, deadline) for run, thread in part
            )
        for threads in _parts(asked.threads):
            failed += await _all(self._delete(event_id, thread_id, caused, deadline) for thread_id in threads)
        if failed:
            raise failed[0]
        command = FinishDeletion(asked.assistant_id)

        async def decide() -> Decision:
            found = await self.reads.assistant(asked.assistant_id, self.partition_of(Key(asked.assistant_id)))
            return command.decide(found.state, found.version)

        intent = _follower(event_id, "deleted", Key(asked.assistant_id), caused)
        return await self.submitter.submit(intent, decide, deadline)

    async def _cancel(self, event_id: str, run_id: RunId, thread_id: ThreadId, cause: Cause, deadline: float) -> None:
        async def decide() -> Decision:
            found = await self.reads.thread(thread_id, self.partition_of(Key(thread_id)))
            until = self.clock.now() + self.grace
            command = CancelRun(thread_id, run_id, "interrupt", {**CANCELLED}, until, found.version or 0)
            return command.decide(found.state)

        await self.submitter.submit(_follower(event_id, run_id, Key(thread_id), cause), decide, deadline)

    async def _delete(self, event_id: str, thread_id: ThreadId, cause: Cause, deadline: float) -> None:
        async def decide() -> Decision:
            found = await self.reads.thread(thread_id, self.partition_of(Key(thread_id)))
            return DeleteThread(thread_id, found.version or 0, found.meta_version).decide(found.state)

        await self.submitter.submit(_follower(event_id, thread_id, Key(thread_id), cause), decide, deadline)


def _follower(event_id: str, name: str, key: Key, cause: Cause) -> Intent:
    """Return the intent of a follower: the same whoever writes it, and however often."""
    derived = str(uuid5(UUID(event_id), name))
    return Intent(key, derived, digest(derived.encode()), cause, keyed=True, serial=True)


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE))


async def _all(works: Iterable[Awaitable[None]]) -> list[BaseException]:
    """Await all of them to their end; return the errors of those that failed."""
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    return [outcome for outcome in outcomes if outcome is not None]
