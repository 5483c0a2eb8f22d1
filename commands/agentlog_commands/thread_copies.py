"""Commands of a copy of a thread, and their sequence: asked for, continued in parts, finished or given up.

The aggregate of the new thread decides, so no other one takes part. Each commit demands the version of the stream
`copy-` that it follows, and its event id is derived from the request: several processes may drive one copy. If one dies
here, a housekeeper goes on where it stopped.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from agentlog_commands.command import Accepted, Decision, Refused
from agentlog_commands.identity import digest, follow_up
from agentlog_commands.submit import Intent, Outcome, Submitted, Submitter, Voided
from agentlog_commands.threads import thread_stream
from agentlog_facts.checkpoint import CheckpointFact
from agentlog_facts.envelope import Cause, Demand
from agentlog_facts.errors import Contended, Unavailable
from agentlog_facts.ids import Key, Stream, ThreadId, stream
from agentlog_facts.thread import ThreadCopied, ThreadCreated
from agentlog_facts.thread_copy import ThreadCopyAsked, ThreadCopyContinued, ThreadCopyGivenUp

CopyState: TypeAlias = Literal["open", "done", "given_up"]


def copy_stream(thread_id: ThreadId) -> Stream:
    """Return the stream of the copy that becomes this thread."""
    return stream("copy", thread_id)


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """Progress of a copy: the version of its stream, and how many facts of its source it has copied."""

    state: CopyState
    version: int
    copied_to: int


@dataclass(frozen=True, slots=True)
class CopyPart:
    """Facts for the new thread, from the rows of the source, and how many facts of the source are copied with them."""

    facts: tuple[CheckpointFact, ...]
    up_to: int


class CopyReads(Protocol):
    """Rows of copies and of their sources. All raise Unavailable."""

    async def progress(self, thread_id: ThreadId) -> CopyProgress | None:
        """Return the progress of a copy, None if there is none of this id."""
        ...

    async def part(self, asked: ThreadCopyAsked, start: int) -> CopyPart | None:
        """Return the next part of a copy, from fact number `start` of its source on; None if the source is gone."""
        ...


def ask(asked: ThreadCopyAsked) -> Accepted:
    """Return the commit that begins a copy; the new thread must not exist."""
    name = copy_stream(asked.thread_id)
    return Accepted(name, (asked,), {name: "absent"})


@dataclass(frozen=True, slots=True)
class CopyDrive:
    """Drive of one copy. `event_id` is that of the commit that asked for it; `deadline` as in `Submitter.submit`."""

    submitter: Submitter
    reads: CopyReads
    asked: ThreadCopyAsked
    event_id: str
    cause: Cause
    deadline: float

    async def finish(self) -> Submitted | None:
        """Copy the rest; return the commit that made the thread, or None if the copy was given up.

        It is given up if its source is gone, or if the new thread exists, which another command made. Raises:
        Unavailable, also if a round changed nothing; OutcomeUnknown.
        """
        seen: CopyProgress | None = None
        while (progress := await self.reads.progress(self.asked.thread_id)) is not None:
            if progress.state == "given_up":
                return None
            if progress == seen:
                raise Unavailable(f"copy {self.asked.thread_id}: no progress after {progress.copied_to} facts")
            seen = progress
            if progress.state == "done" or progress.copied_to >= self.asked.as_of:
                outcome = await self._submit(0, progress, self._copied)
                if isinstance(outcome, Submitted):
                    return outcome
            else:
                outcome = await self._submit(progress.version + 1, progress, self._continued)
            if isinstance(outcome, Voided) and outcome.void.reason == "exists":
                await self.give_up("exists")
        return None

    async def give_up(self, reason: str) -> None:
        """End a copy that is not finished. Raises: Unavailable, OutcomeUnknown."""

        async def given_up(progress: CopyProgress) -> Decision:
            return self._on_copy(progress, ThreadCopyGivenUp(self.asked.thread_id, reason))

        progress = await self.reads.progress(self.asked.thread_id)
        if progress is not None and progress.state == "open":
            await self._submit(-1, progress, given_up)

    async def _submit(
        self, number: int, progress: CopyProgress, decide: Callable[[CopyProgress], Awaitable[Decision]]
    ) -> Outcome | None:
        """Submit a commit that follows `progress`; return None, or a refusal, if another one came first."""

        async def decision() -> Decision:
            now = await self.reads.progress(self.asked.thread_id)
            return await decide(progress) if now == progress else Refused("nothing_to_do")

        event_id = follow_up(self.event_id, number)
        intent = Intent(Key(self.asked.thread_id), event_id, digest(event_id.encode()), self.cause, keyed=True)
        try:
            return await self.submitter.submit(intent, decision, self.deadline)
        except Contended:
            return None

    async def _continued(self, progress: CopyProgress) -> Decision:
        part = await self.reads.part(self.asked, progress.copied_to)
        if part is None:
            return self._on_copy(progress, ThreadCopyGivenUp(self.asked.thread_id, "source_gone"))
        decided = self._on_copy(progress, *part.facts, ThreadCopyContinued(self.asked.thread_id, part.up_to))
        return replace(decided, demands={**decided.demands, thread_stream(self.asked.thread_id): "absent"})

    def _on_copy(
        self, progress: CopyProgress, *facts: CheckpointFact | ThreadCopyContinued | ThreadCopyGivenUp
    ) -> Accepted:
        name = copy_stream(self.asked.thread_id)
        return Accepted(name, facts, {name: progress.version})

    async def _copied(self, progress: CopyProgress) -> Decision:
        asked = self.asked
        if progress.state != "open":
            return Refused("nothing_to_do")
        created = ThreadCreated(asked.thread_id, asked.metadata, ttl=asked.ttl)
        copied = ThreadCopied(asked.thread_id, asked.source_thread_id, asked.view, asked.next, asked.interrupts)
        name = thread_stream(asked.thread_id)
        demands: dict[Stream, Demand] = {name: "absent", copy_stream(asked.thread_id): progress.version}
        return Accepted(name, (created, copied), demands)


@dataclass(frozen=True, slots=True)
class OpenCopy:
    """A copy that is neither done nor given up; `event_id` is that of the commit that asked for it."""

    thread_id: ThreadId
    event_id: str
    asked_at: datetime
