"""Tests of the end of an attempt: given commits while its last frames are written, then facts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from unittest.mock import create_autospec

import pytest
from tests.contracts.memory_frames import MemoryFrames
from tests.facts import commits as c
from tests.fakes.memory_log import MemoryLog
from tests.fakes.ports import CountedIds, TestClock
from tests.processors.examples import a_work
from tests.processors.housekeeper.reaping import FixedFinalStates, LoggedQueries

from agentlog_commands.claims import ClaimLimits
from agentlog_commands.submit import Submitter
from agentlog_facts.checkpoint import WritesSaved
from agentlog_facts.envelope import Actor, Fact
from agentlog_facts.execution_port import RunExecution, RunOutcome
from agentlog_facts.frame import FrameRecord
from agentlog_facts.guard import Accepted, Void
from agentlog_facts.ids import Key, RunId, Stream, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_facts.ports import RunQueue
from agentlog_facts.state_diff import diff_state
from agentlog_facts.thread import RunAlive, RunCancelRequested, RunFinished, RunReleased, ThreadCreated
from agentlog_facts.vocabulary import encode_fact
from agentlog_infra.system_ports import SystemClock
from agentlog_processors.runs.dependencies import CommitWriter, Hints, WorkerDependencies, WorkerTimeouts
from agentlog_processors.runs.output_offsets import CachedEndOffsets
from agentlog_processors.runtime.loop_bridge import LoopBridge
from agentlog_processors.runtime.user_loops import JobLoops
from agentlog_processors.worker.attempt import Attempt
from agentlog_processors.worker.attempt_lifecycle import carry_out

WORK = replace(a_work(), values={"x": 0}, version=1)
EPOCH = 2
ON_THREAD, ON_RUN = Stream(f"thread-{WORK.thread_id}"), Stream(f"run-{WORK.run_id}")
SECOND = timedelta(seconds=1)
DONE = RunOutcome("success", None, {"x": 1}, (), {}, "c1", None)
ROLLBACK = RunCancelRequested(WORK.run_id, "rollback", c.NOW, {"error": "UserRollback", "message": "asked"})
INTERRUPT = replace(ROLLBACK, action="interrupt")
LIMIT_S = 10.0


class LastFrames(MemoryFrames):
    """Outputs that run a callback before each record that ends a run."""

    def __init__(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    async def append(self, thread_id: ThreadId, record: FrameRecord) -> int:
        if record.end is not None:
            await self._meanwhile()
        return await super().append(thread_id, record)


class Ending:
    """A worker whose graph has ended with `outcome`; `meanwhile` are facts that are appended before its end."""

    def __init__(self, loops: JobLoops, meanwhile: Sequence[Fact] = (), outcome: RunOutcome = DONE) -> None:
        self.log, self.states = MemoryLog(), FixedFinalStates()
        self.rows = LoggedQueries(self.log, TestClock())
        self._loops, self._meanwhile, self._outcome = loops, meanwhile, outcome
        self.outputs = LastFrames(self._happens)
        self.attempt = Attempt(WORK, EPOCH, "00000000-0000-7000-8000-000000000001")

    async def carried_out(self) -> "list[Fact]":
        """End the attempt; return the facts after `meanwhile`."""
        created = replace(c.run_created(WORK.run_id), thread_id=WORK.thread_id)
        for fact in (ThreadCreated(WORK.thread_id, {}), created, c.run_claimed(WORK.run_id)):
            await self.append(fact)
        async with asyncio.timeout(LIMIT_S):
            await carry_out(self._dependencies(), self.attempt)
        return self.facts()[3 + len(self._meanwhile) :]

    async def append(self, fact: Fact) -> None:
        stream = ON_RUN if isinstance(fact, WritesSaved) else ON_THREAD
        epoch = EPOCH if isinstance(fact, WritesSaved | RunAlive) else None
        free = stream == ON_RUN or isinstance(fact, ThreadCreated)
        demands = {} if free else {stream: self.log.heads[WORK.thread_id].versions[stream]}
        draft = replace(c.commit(fact, stream=stream, demands=demands, epoch=epoch), key=Key(WORK.thread_id))
        await self.log.append(draft)
        assert isinstance(self.log.rows[-1][1], Accepted), fact

    def facts(self) -> list[Fact]:
        """Return the accepted facts, in order."""
        return [fact for draft, verdict in self.log.rows if isinstance(verdict, Accepted) for fact in draft.facts]

    def voids(self) -> list[Void]:
        """Return the facts of void commits."""
        return [verdict for _, verdict in self.log.rows if isinstance(verdict, Void)]

    async def _happens(self) -> None:
        for fact in self._meanwhile:
            await self.append(fact)

    def _dependencies(self) -> WorkerDependencies:
        """Return a worker's dependencies; parts without use for an end are autospecs."""
        clock, ids = SystemClock(), CountedIds()
        execution = create_autospec(RunExecution, instance=True)
        execution.execute.return_value = self._outcome
        return WorkerDependencies(
            worker="w1",
            writer=CommitWriter(
                Submitter(self.log, self.log, self.log, clock, ids), self.log, clock, ids, Actor("worker", "w1")
            ),
            queries=self.rows,
            queue=create_autospec(RunQueue, instance=True),
            outputs=self.outputs,
            ends=create_autospec(CachedEndOffsets, instance=True),
            execution=execution,
            graph_ids=("agent",),
            final_state=self.states,
            provenance=lambda _: {},
            hints=create_autospec(Hints, instance=True),
            loops=self._loops,
            bridge=LoopBridge(asyncio.get_running_loop()),
            timeouts=WorkerTimeouts(1, SECOND, SECOND, SECOND, SECOND, SECOND, ClaimLimits(SECOND, 60 * SECOND, 1)),
        )


def frames_of(outputs: MemoryFrames) -> list[tuple[str, Json]]:
    """Return event and data of all frames of the thread."""
    return [(frame.event, frame.data) for record in outputs.of(WORK.thread_id) for frame in record.frames]


@pytest.fixture
async def loops() -> AsyncIterator[JobLoops]:
    made = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop)
    yield made
    made.close()


async def test_a_rollback_that_is_accepted_while_the_last_frames_are_written_takes_the_run_back(
    loops: JobLoops,
) -> None:
    [finished] = await Ending(loops, [ROLLBACK]).carried_out()
    assert isinstance(finished, RunFinished)
    assert (finished.status, finished.view, finished.checkpoint_id) == ("rollback", {"remove": ["x"]}, None)


async def test_a_rollback_counts_also_for_a_run_that_is_over_its_time(loops: JobLoops) -> None:
    ending = Ending(loops, [ROLLBACK], replace(DONE, status="interrupted"))
    ending.attempt.request_stop("timeout")
    [finished] = await ending.carried_out()
    assert isinstance(finished, RunFinished)
    assert finished.status == "rollback"


@pytest.mark.parametrize("outcome", [DONE, replace(DONE, status="error", error={"error": "E", "message": "m"})])
async def test_a_cancel_that_is_accepted_before_the_end_of_a_run_counts_and_its_values_stay(
    loops: JobLoops, outcome: RunOutcome
) -> None:
    [finished] = await Ending(loops, [INTERRUPT], outcome).carried_out()
    assert isinstance(finished, RunFinished)
    assert (finished.status, finished.view, finished.checkpoint_id) == ("interrupted", {"set": {"x": 1}}, "c1")


async def test_what_else_comes_onto_the_thread_meanwhile_changes_no_end(loops: JobLoops) -> None:
    waiting = [replace(c.run_created(name), thread_id=WORK.thread_id) for name in ("next", "last")]
    ending = Ending(loops, [*waiting, RunAlive(WORK.run_id)])
    [finished] = await ending.carried_out()
    assert isinstance(finished, RunFinished)
    assert finished.status == "success"
    assert [void.reason for void in ending.voids()] == ["version_conflict"], "it looks once, then it knows"


async def test_nobody_ends_a_run_that_was_taken_away_meanwhile(loops: JobLoops) -> None:
    ending = Ending(loops, [RunReleased(WORK.run_id, EPOCH, "lost")])
    assert await ending.carried_out() == []
    assert [void.stream for void in ending.voids()] == [ON_THREAD]


async def test_a_run_whose_last_checkpoint_the_worker_does_not_know_is_given_back(loops: JobLoops) -> None:
    written = WritesSaved(WORK.thread_id, RunId(WORK.run_id), "", "c9", "task", "", ())
    ending = Ending(loops, [written], replace(DONE, run_version=7))
    assert await ending.carried_out() == [RunReleased(WORK.run_id, EPOCH, "attempt_lost")]


async def test_clients_of_a_run_whose_end_no_reader_could_decode_see_the_error_of_its_row(loops: JobLoops) -> None:
    ending = Ending(loops, outcome=replace(DONE, values={"x": "\ud800"}))
    [finished] = await ending.carried_out()
    assert isinstance(finished, RunFinished)
    assert (finished.status, finished.view, finished.checkpoint_id) == ("error", {}, "c1")
    begun: JsonObject = {"run_id": WORK.run_id, "attempt": 1}
    assert frames_of(ending.outputs) == [("metadata", begun), ("error", finished.error)]


async def test_an_end_is_checked_for_readers_once_however_often_it_is_tried(
    loops: JobLoops, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Fact] = []

    def counting(fact: Fact) -> JsonObject:
        checked.append(fact)
        return encode_fact(fact)

    monkeypatch.setattr("agentlog_processors.runs.outcome.encode_fact", counting)
    ending = Ending(loops, [RunAlive(WORK.run_id)])
    [finished] = await ending.carried_out()
    assert isinstance(finished, RunFinished)
    assert len(ending.voids()) == len(checked) == 1


async def test_the_state_is_compared_with_the_earlier_one_once_for_each_end(
    loops: JobLoops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the end and the end itself compared the whole state of a long thread."""
    compared: list[JsonObject] = []

    def counting(before: JsonObject, after: JsonObject) -> JsonObject:
        compared.append(after)
        return diff_state(before, after)

    monkeypatch.setattr("agentlog_processors.runs.outcome.diff_state", counting)
    ending = Ending(loops, [RunAlive(WORK.run_id)])
    [finished] = await ending.carried_out()
    assert isinstance(finished, RunFinished)
    assert len(ending.voids()) == len(compared) == 1
