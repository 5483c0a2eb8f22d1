"""Tests of claims: given the row at the first read and later commits, then the attempt or none."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from unittest.mock import create_autospec

import pytest
from tests.contracts.memory_frames import MemoryFrames
from tests.facts import commits as c
from tests.fakes.memory_log import MemoryLog
from tests.fakes.ports import CountedIds, TestClock
from tests.processors.examples import a_work

from agentlog_commands.claims import ClaimLimits
from agentlog_commands.submit import Submitter
from agentlog_facts.envelope import Actor, Fact
from agentlog_facts.execution_port import RunExecution
from agentlog_facts.ids import Key, Stream
from agentlog_facts.ports import RunQueue
from agentlog_facts.thread import RunReleased, ThreadCreated
from agentlog_processors.runs.dependencies import CommitWriter, FinalState, Hints, WorkerDependencies, WorkerTimeouts
from agentlog_processors.runs.output_offsets import CachedEndOffsets
from agentlog_processors.runtime.loop_bridge import LoopBridge
from agentlog_processors.runtime.user_loops import JobLoops
from agentlog_processors.worker.attempt_lifecycle import claim
from agentlog_projections.queries.worker import ExecutableRun, WorkerQueries

WORK = replace(a_work(), version=1)
ON_THREAD = Stream(f"thread-{WORK.thread_id}")
SECOND = timedelta(seconds=1)
ACTOR = Actor("worker", "w1")


class Claiming:
    """A worker over a log in memory; `meanwhile` is appended between its read of the row and its claim."""

    def __init__(self, *looks: ExecutableRun | None) -> None:
        self.log = MemoryLog()
        self.looks = list(looks)
        self.meanwhile: Sequence[Fact] = ()

    async def append(self, *facts: Fact, version: int | None = None) -> None:
        demands = {} if version is None else {ON_THREAD: version}
        await self.log.append(replace(c.commit(*facts, stream=ON_THREAD, demands=demands), key=Key(WORK.thread_id)))

    async def work(self, run_id: str) -> ExecutableRun | None:
        return self.looks.pop(0)

    async def at_most(self, thread_id: str) -> int:
        for fact in self.meanwhile:
            await self.append(fact)
        return 7

    def dependencies(self) -> WorkerDependencies:
        """Return a worker's dependencies; parts without use for a claim are autospecs."""
        clock, ids = TestClock(), CountedIds()
        queries, ends = create_autospec(WorkerQueries, instance=True), create_autospec(CachedEndOffsets, instance=True)
        queries.work.side_effect, ends.at_most.side_effect = self.work, self.at_most
        return WorkerDependencies(
            worker="w1",
            writer=CommitWriter(Submitter(self.log, self.log, self.log, clock, ids), self.log, clock, ids, ACTOR),
            queries=queries,
            queue=create_autospec(RunQueue, instance=True),
            outputs=MemoryFrames(),
            ends=ends,
            execution=create_autospec(RunExecution, instance=True),
            graph_ids=("agent",),
            final_state=create_autospec(FinalState, instance=True),
            provenance=lambda _: {},
            hints=create_autospec(Hints, instance=True),
            loops=create_autospec(JobLoops, instance=True),
            bridge=LoopBridge(asyncio.get_running_loop()),
            timeouts=WorkerTimeouts(1, SECOND, SECOND, SECOND, SECOND, SECOND, ClaimLimits(SECOND, 60 * SECOND, 1)),
        )


async def a_queued_run(*looks: ExecutableRun | None) -> Claiming:
    claiming = Claiming(*looks)
    await claiming.append(ThreadCreated(WORK.thread_id, {}))
    await claiming.append(replace(c.run_created(WORK.run_id), thread_id=WORK.thread_id))
    return claiming


def claimed(epoch: int) -> ExecutableRun:
    return replace(WORK, attempt=1, epoch=epoch, ready=False, version=epoch)


async def test_a_claim_right_behind_the_look_is_the_first_attempt() -> None:
    attempt = await claim((await a_queued_run(WORK)).dependencies(), WORK.run_id)
    assert attempt is not None
    assert (attempt.number, attempt.epoch) == (1, 2)


async def test_a_first_attempt_stays_the_first_when_something_came_between() -> None:
    claiming = await a_queued_run(WORK, replace(claimed(3), values={"new": 1}))
    claiming.meanwhile = [replace(c.run_created("another"), thread_id=WORK.thread_id)]
    attempt = await claim(claiming.dependencies(), WORK.run_id)
    assert attempt is not None
    assert (attempt.number, attempt.epoch, attempt.work.values) == (1, 3, {"new": 1})


@pytest.mark.parametrize("found", [lambda: None, lambda: replace(claimed(9), attempt=2)])
async def test_a_claim_that_is_gone_or_anothers_by_now_is_not_executed(
    found: Callable[[], ExecutableRun | None],
) -> None:
    claiming = await a_queued_run(WORK, found())
    claiming.meanwhile = [replace(c.run_created("another"), thread_id=WORK.thread_id)]
    assert await claim(claiming.dependencies(), WORK.run_id) is None


async def test_a_claim_whose_outcome_came_only_after_its_release_is_not_executed() -> None:
    claiming = await a_queued_run(WORK, replace(WORK, attempt=1, version=3))
    dependencies = claiming.dependencies()
    settle = dependencies.writer.submitter.append

    async def late(*draft: object) -> object:
        """Lose the answer to the first accepted claim, and release that claim before the second try."""
        answer = await settle(*draft)  # type: ignore[arg-type]  # handed on as it came
        if len(claiming.log.rows) == 3:
            await claiming.append(RunReleased(WORK.run_id, 2, "lost"), version=2)
            answer = await settle(*draft)  # type: ignore[arg-type]  # handed on as it came
        return answer

    dependencies.writer.submitter.append = late  # type: ignore[method-assign,assignment]  # what the network does
    assert await claim(dependencies, WORK.run_id) is None
