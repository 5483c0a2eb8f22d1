"""Builders of commits for tests of the core, with readable ids."""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count

from agentlog_facts.envelope import Actor, Cause, Demand, Draft, Fact
from agentlog_facts.guard import EMPTY, Accepted as GuardAccepted, AggregateHead, Prior, Verdict, advance, guard
from agentlog_facts.ids import Key, RunId, Stream, ThreadId
from agentlog_facts.thread import (
    RunCancelRequested,
    RunClaimed,
    RunCreated,
    RunDeleted,
    RunFinished,
    RunReleased,
    StateUpdated,
    ThreadCreated,
    ThreadDeleted,
    ThreadMetadataPatched,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
THREAD = ThreadId("t1")
ON_THREAD = Stream("thread-t1")
ON_META = Stream("meta-t1")

_numbers = count()


def commit(
    *facts: Fact,
    stream: Stream = ON_THREAD,
    demands: Mapping[Stream, Demand] | None = None,
    epoch: int | None = None,
    event_id: str | None = None,
    body: str = "body",
) -> Draft:
    """Return a commit on the thread t1."""
    number = next(_numbers)
    return Draft(
        key=Key("t1"),
        stream=stream,
        event_id=event_id or f"event-{number}",
        append_id=f"append-{number}",
        body_sha256=body,
        facts=facts,
        occurred_at=NOW,
        cause=Cause(Actor("user", "ana"), correlation_id="request-1"),
        demands=demands or {},
        epoch=epoch,
    )


def thread_created(temporary: bool = False) -> ThreadCreated:
    return ThreadCreated(THREAD, {}, temporary)


def patched() -> ThreadMetadataPatched:
    return ThreadMetadataPatched(THREAD, {"a": 1})


def thread_deleted() -> ThreadDeleted:
    return ThreadDeleted(THREAD)


def state_updated() -> StateUpdated:
    return StateUpdated(THREAD, "", "c1", {"set": {"x": 1}}, (), {})


def run_created(run: str = "r1", due_at: datetime | None = None) -> RunCreated:
    return RunCreated(RunId(run), THREAD, {"graph_id": "agent"}, {}, {}, "enqueue", due_at)


def run_claimed(run: str = "r1", attempt: int = 1) -> RunClaimed:
    return RunClaimed(RunId(run), "worker-1", attempt, 0)


def run_released(run: str = "r1", epoch: int = 2) -> RunReleased:
    return RunReleased(RunId(run), epoch, "lost")


def cancel_requested(run: str = "r1") -> RunCancelRequested:
    return RunCancelRequested(RunId(run), "interrupt", NOW, {})


def run_finished(run: str = "r1", moves: bool = True) -> RunFinished:
    return RunFinished(RunId(run), "success", None, {"set": {"x": 1}} if moves else {}, (), {})


def run_deleted(run: str = "r1", moves: bool = True) -> RunDeleted:
    return RunDeleted(RunId(run), {"set": {"x": 1}} if moves else {}, (), {})


class Log:
    """Log of one aggregate, folded as every reader does: verdict first, then the head."""

    def __init__(self) -> None:
        self.head: AggregateHead = EMPTY
        self.accepted: dict[str, Prior] = {}

    def append(self, draft: Draft) -> Verdict:
        verdict = guard(self.head, self.accepted.get(draft.event_id), draft)
        if isinstance(verdict, GuardAccepted):
            self.head = advance(self.head, draft)
            self.accepted[draft.event_id] = Prior(draft.body_sha256, verdict.version)
        return verdict

    def given(self, *drafts: Draft) -> "Log":
        for draft in drafts:
            verdict = self.append(draft)
            assert isinstance(verdict, GuardAccepted), f"{draft.facts}: {verdict}"
        return self
