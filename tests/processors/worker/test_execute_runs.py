"""Tests of a worker that stops: cancelled pops, released runs, and code that does not stop."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from unittest.mock import AsyncMock

import pytest
from tests.processors.worker.test_attempt import DONE, WORK, Execution, Hanging, worker

from agentlog_commands.command import Accepted as Decided
from agentlog_facts import guard
from agentlog_facts.envelope import Cause
from agentlog_facts.execution_port import Emit, RunAssignment, RunOutcome
from agentlog_facts.ids import Key, RunId
from agentlog_facts.thread import RunReleased
from agentlog_infra.process.child import child_environment
from agentlog_processors.runs.dependencies import CommitWriter, WorkerDependencies
from agentlog_processors.runtime.user_loops import JobLoops
from agentlog_processors.worker import execute_runs
from agentlog_processors.worker.attempt import Stuck
from agentlog_processors.worker.execute_runs import ExecuteRuns


class Deaf:
    """A queue whose client loses the first cancellation, as a client may that sends inside `asyncio.wait_for`."""

    def __init__(self) -> None:
        self.pops = 0
        self.popping = asyncio.Event()

    async def pop(self, queues: Sequence[str], patience: timedelta) -> RunId | None:
        self.pops += 1
        self.popping.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.pops > 1:
                raise
        return None


@pytest.fixture
async def loops() -> AsyncIterator[JobLoops]:
    made = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop)
    yield made
    made.close()


async def test_a_worker_drains_although_a_cancel_of_its_pop_was_lost(loops: JobLoops) -> None:
    queue, stop = Deaf(), asyncio.Event()
    dependencies = worker(loops, Hanging(), Execution(asyncio.get_running_loop()))
    dependencies.queue.pop = queue.pop  # type: ignore[method-assign]  # a mock with the port's shape
    async with asyncio.timeout(10):
        running = asyncio.ensure_future(ExecuteRuns(dependencies, {}).run(stop))
        await queue.popping.wait()
        stop.set()
        await running
    assert queue.pops == 2


@dataclass
class Once:
    """A queue with these runs, then none."""

    run_ids: list[RunId]

    async def pop(self, queues: Sequence[str], patience: timedelta) -> RunId | None:
        if self.run_ids:
            return self.run_ids.pop(0)
        await asyncio.Event().wait()
        return None


@dataclass
class Blocking:
    """A graph whose code blocks its loop, so that only the end of the process stops it."""

    began: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    async def execute(self, order: RunAssignment, emit: Emit, stop: asyncio.Event) -> RunOutcome:
        self.began.set()
        self.go_on.wait(30)
        return DONE


@dataclass
class Leaving:
    """A graph that ends by itself while a thread of its code continues."""

    go_on: threading.Event = field(default_factory=threading.Event)

    async def execute(self, order: RunAssignment, emit: Emit, stop: asyncio.Event) -> RunOutcome:
        began = threading.Event()
        asyncio.get_running_loop().run_in_executor(None, self._go_on, began)
        await asyncio.get_running_loop().run_in_executor(None, began.wait, 10)
        return DONE

    def _go_on(self, began: threading.Event) -> None:
        began.set()
        self.go_on.wait(30)


@dataclass
class Log:
    """A log that accepts and records every decision."""

    decided: list[Decided] = field(default_factory=list[Decided])

    async def commit(self, decision: Decided) -> guard.Verdict:
        self.decided.append(decision)
        return guard.Accepted(WORK.version + 1)

    def released(self) -> list[RunReleased]:
        """Return the releases among the decisions."""
        return [fact for one in self.decided for fact in one.facts if isinstance(fact, RunReleased)]


def at_work(
    loops: JobLoops,
    execution: Blocking | Leaving,
    log: Log,
    run_ids: list[RunId],
    monkeypatch: pytest.MonkeyPatch,
) -> WorkerDependencies:
    """Return the dependencies of a worker that claims these runs and executes this graph."""
    dependencies = worker(loops, Hanging(), execution)  # type: ignore[arg-type]  # any execution does
    dependencies.queue.pop = Once(run_ids).pop  # type: ignore[method-assign]  # a mock with the port's shape
    dependencies.queries.work = AsyncMock(side_effect=lambda run_id: replace(WORK, run_id=run_id))  # type: ignore[method-assign]  # mocks
    dependencies.ends.at_most = AsyncMock(return_value=0)  # type: ignore[method-assign]  # mocks

    async def commit(_: CommitWriter, key: Key, event_id: str, decision: Decided, cause: Cause) -> guard.Verdict:
        return await log.commit(decision)

    monkeypatch.setattr(CommitWriter, "commit", commit)
    quick = replace(dependencies.timeouts, grace=timedelta(0), stubborn=timedelta(seconds=1), jobs=len(run_ids) + 1)
    return replace(dependencies, timeouts=quick)


def numbered(count: int) -> list[RunId]:
    return [RunId(f"00000000-0000-7000-8000-0000000001{number:02}") for number in range(count)]


async def test_a_run_that_blocks_its_loop_is_given_back_by_a_draining_worker(
    loops: JobLoops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlog_processors.timeouts.GIVE_BACK_S", 0.2)
    execution, log, stop = Blocking(), Log(), asyncio.Event()
    dependencies = at_work(loops, execution, log, numbered(1), monkeypatch)
    async with asyncio.timeout(20):
        running = asyncio.ensure_future(ExecuteRuns(dependencies, {}).run(stop))
        assert await asyncio.to_thread(execution.began.wait, 10)
        stop.set()
        await running
    execution.go_on.set()
    assert [(fact.reason, fact.counts) for fact in log.released()] == [("drain", False)]


async def test_threads_that_ended_runs_left_behind_cost_their_worker_before_none_is_free(
    loops: JobLoops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute_runs, "MOST_ORPHANED", 3)
    execution, log, stop = Leaving(), Log(), asyncio.Event()
    dependencies = at_work(loops, execution, log, numbered(3), monkeypatch)
    async with asyncio.timeout(20):
        with pytest.raises(Stuck, match="thread still runs"):
            await ExecuteRuns(dependencies, {}).run(stop)
    execution.go_on.set()


_FAILS = """
import asyncio, threading
from agentlog_processors import main
from agentlog_processors.runtime.user_loops import JobLoops

async def serve(settings, roles, ready_fd, *, leaves):
    loops = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop)
    began = threading.Event()

    async def code():
        await asyncio.get_running_loop().run_in_executor(None, lambda: (began.set(), threading.Event().wait()))

    loops.start("graph", code)
    await asyncio.to_thread(began.wait)
    raise RuntimeError("the handler is closed")

main._serve = serve
main.main(["worker"])
"""


@pytest.mark.slow
def test_a_process_ends_by_a_foreign_error_too_while_user_code_holds_a_thread() -> None:
    elsewhere = {
        "AGENTLOG_KAFKA_BOOTSTRAP": "127.0.0.1:9",
        "DATABASE_URI": "postgresql://x/y",
        "REDIS_URI": "redis://x",
    }
    words = [sys.executable, "-c", _FAILS]
    done = subprocess.run(
        words, env=child_environment({**os.environ, **elsewhere}), capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 1, done.stderr.decode()
    assert b"the handler is closed" in done.stderr
