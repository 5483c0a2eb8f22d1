"""Tests of attempts without an end: the facts on the log, and whether the attempt counts as a retry."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.contracts.memory_frames import MemoryFrames
from tests.processors.worker.test_claims import WORK, Claiming, a_queued_run

from agentlog_commands.command import Accepted
from agentlog_facts import guard
from agentlog_facts.envelope import Cause
from agentlog_facts.errors import OutcomeUnknown, Unavailable
from agentlog_facts.execution_port import AttemptLost
from agentlog_facts.ids import Key
from agentlog_facts.thread import RunAlive, RunReleased
from agentlog_processors.runs.dependencies import CommitWriter
from agentlog_processors.runtime.user_loops import JobLoops
from agentlog_processors.worker.attempt_lifecycle import carry_out, claim


@pytest.fixture
async def loops() -> AsyncIterator[JobLoops]:
    made = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop)
    yield made
    made.close()


async def released_after(loops: JobLoops, error: Exception) -> RunReleased:
    """Run an attempt that fails without a checkpoint; return its release, which comes after a fence on `outputs`."""
    claiming: Claiming = await a_queued_run(WORK)
    outputs = MemoryFrames(base=0)
    dependencies = replace(claiming.dependencies(), loops=loops, outputs=outputs)
    dependencies.execution.execute.side_effect = error  # type: ignore[attr-defined]  # a mock with the port's shape
    dependencies.queries.run_version.return_value = None  # type: ignore[attr-defined]  # as above
    attempt = await claim(dependencies, WORK.run_id)
    assert attempt is not None
    await carry_out(dependencies, attempt)
    released = claiming.log.rows[-1][0]
    flushes = [flush.record async for flush in outputs.read(WORK.thread_id, 0, await outputs.end(WORK.thread_id))]
    assert [flush.release for flush in flushes] == [None, released.event_id]
    fact = released.facts[-1]
    assert isinstance(fact, RunReleased)
    return fact


def lost(cause: BaseException) -> AttemptLost:
    """Return the exception of a saver whose append failed for this reason."""
    error = AttemptLost("run-1: an append was lost, nothing more is written")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error", [Unavailable("rows are away"), lost(Unavailable("the log is away")), lost(OutcomeUnknown("no answer"))]
)
async def test_an_outage_of_log_or_rows_costs_no_retry(loops: JobLoops, error: Exception) -> None:
    assert await released_after(loops, error) == RunReleased(WORK.run_id, 2, "attempt_lost", counts=False)


@pytest.mark.parametrize("error", [lost(asyncio.CancelledError()), ValueError("a bug")], ids=["cancelled", "bug"])
async def test_what_would_happen_again_for_ever_does(loops: JobLoops, error: Exception) -> None:
    assert await released_after(loops, error) == RunReleased(WORK.run_id, 2, "attempt_lost", counts=True)


async def test_a_suspect_shows_on_the_log_that_it_is_executed_before_its_code_runs(loops: JobLoops) -> None:
    """The code may end the process before the first lease or checkpoint; the death counts by this commit."""
    claiming = await a_queued_run(replace(WORK, deaths=1))
    dependencies = replace(claiming.dependencies(), loops=loops, outputs=MemoryFrames(base=0))
    before: list[object] = []

    async def die(*_: object) -> None:
        before.extend(fact for draft, _ in claiming.log.rows for fact in draft.facts)
        raise Unavailable("the process is gone")

    dependencies.execution.execute.side_effect = die  # type: ignore[attr-defined]  # a mock with the port's shape
    attempt = await claim(dependencies, WORK.run_id, alone=True)
    assert attempt is not None
    await carry_out(dependencies, attempt)
    assert before[-1] == RunAlive(WORK.run_id)


async def test_a_suspect_whose_claim_is_gone_is_not_executed(loops: JobLoops) -> None:
    claiming = await a_queued_run(replace(WORK, deaths=1))
    dependencies = replace(claiming.dependencies(), loops=loops, outputs=MemoryFrames(base=0))
    attempt = await claim(dependencies, WORK.run_id, alone=True)
    assert attempt is not None
    await claiming.append(RunReleased(WORK.run_id, 2, "lost"), version=2)
    await carry_out(dependencies, attempt)
    dependencies.execution.execute.assert_not_called()  # type: ignore[attr-defined]  # a mock with the port's shape


async def test_a_suspect_is_released_if_nobody_knows_that_the_log_shows_its_execution(
    loops: JobLoops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage between the commit and its verdict left the claim, and its end counted as a death."""
    claiming = await a_queued_run(replace(WORK, deaths=1))
    dependencies = replace(claiming.dependencies(), loops=loops, outputs=MemoryFrames(base=0))
    attempt = await claim(dependencies, WORK.run_id, alone=True)
    assert attempt is not None
    commit = CommitWriter.commit

    async def unanswered(
        writer: CommitWriter, key: Key, event_id: str, decision: Accepted, cause: Cause
    ) -> guard.Verdict:
        verdict = await commit(writer, key, event_id, decision, cause)
        if decision.facts == (RunAlive(WORK.run_id),):
            raise OutcomeUnknown("no answer")
        return verdict

    monkeypatch.setattr(CommitWriter, "commit", unanswered)
    await carry_out(dependencies, attempt)
    facts = [fact for draft, _ in claiming.log.rows for fact in draft.facts]
    assert facts[-2:] == [RunAlive(WORK.run_id), RunReleased(WORK.run_id, 2, "attempt_lost", counts=False)]
    dependencies.execution.execute.assert_not_called()  # type: ignore[attr-defined]  # a mock with the port's shape
