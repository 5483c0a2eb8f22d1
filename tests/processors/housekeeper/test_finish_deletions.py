"""Tests of deletions whose request ended before them: each commit counts once, whoever writes it, and however often."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

from tests.fakes.memory_command_contexts import MemoryCommandContexts
from tests.fakes.memory_log import MemoryLog
from tests.fakes.memory_rows import at_once, folded
from tests.projections.facts import run_claimed, run_created, thread_created
from tests.projections.projector_env import draft

from agentlog_commands.assistants import DeletionFollowers
from agentlog_commands.submit import Submitter
from agentlog_facts.assistant import AssistantCreated, AssistantDeletionAsked
from agentlog_facts.envelope import Actor
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import AssistantId, ThreadId
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_processors.housekeeper.finish_deletions import FinishDeletions
from agentlog_processors.runs.dependencies import CommitWriter
from agentlog_projections.models.assistants import OpenDeletion

A = AssistantId("a1")
ASKED = AssistantDeletionAsked(A, (ThreadId("t1"), ThreadId("gone")), {"r2": "t2", "r3": "t3", "unknown": "t2"})
ACTOR = Actor("system", "housekeeper")


class Env:
    """A log in memory with an open deletion: a thread to delete, a pending and a claimed run to cancel."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.event_id = str(uuid4())
        self.asked_for: list[timedelta] = []

    async def begin(self) -> None:
        created = AssistantCreated(A, "agent", {}, {}, {}, "a", None)
        for one in (
            draft("a1", created, stream="assistant-a1"),
            draft("t1", thread_created("t1"), run_created("r1", "t1")),
            draft("t2", thread_created("t2"), run_created("r2", "t2")),
            draft("t3", thread_created("t3"), run_created("r3", "t3")),
            draft("t3", run_claimed("r3")),
            draft("a1", ASKED, stream="assistant-a1", event_id=self.event_id),
        ):
            await self.log.append(one)

    def followers(self) -> DeletionFollowers:
        clock, ids = SystemClock(), SystemIds()
        reads = MemoryCommandContexts(at_once(lambda: folded(self.log)))
        submitter = Submitter(self.log, self.log, self.log, clock, ids)
        return DeletionFollowers(submitter, reads, self.log.partition_of, clock, timedelta(seconds=15))

    def duty(self) -> FinishDeletions:
        followers = self.followers()
        writer = CommitWriter(followers.submitter, self.log, SystemClock(), SystemIds(), ACTOR)
        return FinishDeletions(self.open, followers, writer, timedelta(seconds=7), timedelta(milliseconds=1))

    async def open(self, after: timedelta) -> Sequence[OpenDeletion]:
        self.asked_for.append(after)
        row = folded(self.log).assistants["a1"]
        return [] if row.deletion is None else [OpenDeletion(str(row.deletion["event_id"]), ASKED)]

    def accepted(self) -> list[tuple[str, str]]:
        """Return stream and first fact of the commits after the deletion was asked for."""
        found = [(one.stream, one.types[0]) for one in folded(self.log).log if one.version is not None]
        return found[6:]


DONE = {
    ("thread-t1", "ThreadDeleted"),
    ("thread-t2", "RunFinished"),
    ("thread-t3", "RunCancelRequested"),
    ("assistant-a1", "AssistantDeleted"),
}


async def test_a_deletion_that_was_left_is_finished_once_and_the_assistant_goes_last() -> None:
    env = Env()
    await env.begin()
    await env.duty().look_once()
    assert (set(env.accepted()), len(env.accepted())) == (DONE, 4)
    assert env.accepted()[-1] == ("assistant-a1", "AssistantDeleted")
    assert env.asked_for == [timedelta(seconds=7)]
    await env.duty().look_once()
    assert len(env.accepted()) == 4
    last = env.log.rows[-1][0]
    assert (last.cause.actor, last.cause.causation_id) == (ACTOR, env.event_id)


async def test_two_that_follow_at_the_same_time_write_each_commit_once() -> None:
    env = Env()
    await env.begin()
    await asyncio.gather(env.duty().look_once(), env.duty().look_once())
    assert sorted(env.accepted()) == sorted(DONE)


async def test_what_a_failure_left_is_done_in_the_next_pass() -> None:
    env = Env()
    await env.begin()
    env.log.refuse = 2
    await env.duty().look_once()  # the two cancels could not be written, so the assistant stays
    assert env.accepted() == [("thread-t1", "ThreadDeleted")]
    await env.duty().look_once()
    assert sorted(env.accepted()) == sorted(DONE)


async def test_the_duty_goes_on_after_an_outage_of_the_rows() -> None:
    env, stop = Env(), asyncio.Event()
    await env.begin()
    first = True

    async def found(after: timedelta) -> Sequence[OpenDeletion]:
        nonlocal first
        if first:
            first = False
            raise Unavailable("rows: switched off")
        opened = await env.open(after)
        if not opened:
            stop.set()
        return opened

    followers = env.followers()
    writer = CommitWriter(followers.submitter, env.log, SystemClock(), SystemIds(), ACTOR)
    async with asyncio.timeout(10):
        await FinishDeletions(found, followers, writer, timedelta(), timedelta(milliseconds=1)).run(stop)
    assert sorted(env.accepted()) == sorted(DONE)
