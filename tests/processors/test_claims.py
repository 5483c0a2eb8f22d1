"""Whether a claim stands when its verdict comes: given what the look saw and what came meanwhile, then the attempt."""

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

from agentlog_commands.leases import Limits
from agentlog_commands.submit import Submitter
from agentlog_facts.envelope import Actor, Fact
from agentlog_facts.ids import Key, Stream
from agentlog_facts.ports import RunQueue
from agentlog_facts.run_execution import RunExecution
from agentlog_facts.thread import RunReleased, ThreadCreated
from agentlog_processors.crossing import Crossing
from agentlog_processors.job_loops import JobLoops
from agentlog_processors.outputs_end import RecentEnds
from agentlog_processors.run_attempt import claim
from agentlog_processors.tools import EndViews, Hints, Timing, WorkerTools, Writing
from agentlog_projections.duties import Duties, Work

WORK = replace(a_work(), version=1)
ON_THREAD = Stream(f"thread-{WORK.thread_id}")
SECOND = timedelta(seconds=1)
ACTOR = Actor("worker", "w1")


class Claiming:
    """A worker over a log in memory; `meanwhile` is what comes onto the log between its look and its claim."""

    def __init__(self, *looks: Work | None) -> None:
        self.log = MemoryLog()
        self.looks = list(looks)
        self.meanwhile: Sequence[Fact] = ()

    async def append(self, *facts: Fact, version: int | None = None) -> None:
        demands = {} if version is None else {ON_THREAD: version}
        await self.log.append(replace(c.commit(*facts, stream=ON_THREAD, demands=demands), key=Key(WORK.thread_id)))

    async def work(self, run_id: str) -> Work | None:
        return self.looks.pop(0)

    async def before(self, thread_id: str) -> int:
        for fact in self.meanwhile:
            await self.append(fact)
        return 7

    def tools(self) -> WorkerTools:
        """Return a worker's tools; what a claim has no use for is there by name only."""
        clock, ids = TestClock(), CountedIds()
        duties, ends = create_autospec(Duties, instance=True), create_autospec(RecentEnds, instance=True)
        duties.work.side_effect, ends.before.side_effect = self.work, self.before
        return WorkerTools(
            worker="w1",
            writing=Writing(Submitter(self.log, self.log, self.log, clock, ids), self.log, clock, ids, ACTOR),
            duties=duties,
            queue=create_autospec(RunQueue, instance=True),
            outputs=MemoryFrames(),
            ends=ends,
            execution=create_autospec(RunExecution, instance=True),
            graph_ids=("agent",),
            views=create_autospec(EndViews, instance=True),
            provenance=lambda _: {},
            hints=create_autospec(Hints, instance=True),
            loops=create_autospec(JobLoops, instance=True),
            crossing=Crossing(asyncio.get_running_loop()),
            timing=Timing(1, SECOND, SECOND, SECOND, SECOND, SECOND, Limits(SECOND, 60 * SECOND, 1)),
        )


async def a_queued_run(*looks: Work | None) -> Claiming:
    claiming = Claiming(*looks)
    await claiming.append(ThreadCreated(WORK.thread_id, {}))
    await claiming.append(replace(c.run_created(WORK.run_id), thread_id=WORK.thread_id))
    return claiming


def claimed(epoch: int) -> Work:
    return replace(WORK, attempt=1, epoch=epoch, ready=False, version=epoch)


async def test_a_claim_right_behind_the_look_is_the_first_attempt() -> None:
    attempt = await claim((await a_queued_run(WORK)).tools(), WORK.run_id)
    assert attempt is not None
    assert (attempt.number, attempt.epoch) == (1, 2)


async def test_a_first_attempt_stays_the_first_when_something_came_between() -> None:
    claiming = await a_queued_run(WORK, replace(claimed(3), values={"new": 1}))
    claiming.meanwhile = [replace(c.run_created("another"), thread_id=WORK.thread_id)]
    attempt = await claim(claiming.tools(), WORK.run_id)
    assert attempt is not None
    assert (attempt.number, attempt.epoch, attempt.work.values) == (1, 3, {"new": 1})


@pytest.mark.parametrize("found", [lambda: None, lambda: replace(claimed(9), attempt=2)])
async def test_a_claim_that_is_gone_or_anothers_by_now_is_not_executed(found: Callable[[], Work | None]) -> None:
    claiming = await a_queued_run(WORK, found())
    claiming.meanwhile = [replace(c.run_created("another"), thread_id=WORK.thread_id)]
    assert await claim(claiming.tools(), WORK.run_id) is None


async def test_a_claim_whose_outcome_came_only_after_its_release_is_not_executed() -> None:
    claiming = await a_queued_run(WORK, replace(WORK, attempt=1, version=3))
    tools = claiming.tools()
    settle = tools.writing.submitter.append

    async def late(*draft: object) -> object:
        """Let the first acceptance stay unheard of, and the reaper be faster than the second try."""
        answer = await settle(*draft)  # type: ignore[arg-type]  # handed on as it came
        if len(claiming.log.rows) == 3:
            await claiming.append(RunReleased(WORK.run_id, 2, "lost"), version=2)
            answer = await settle(*draft)  # type: ignore[arg-type]  # handed on as it came
        return answer

    tools.writing.submitter.append = late  # type: ignore[method-assign,assignment]  # what the network does
    assert await claim(tools, WORK.run_id) is None
