"""Tests of the final state with graphs that fail or hang: given such a graph, then the stored values."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.infra.langgraph.memory_checkpoints import MemoryCheckpoints
from tests.processors.examples import a_work

from agentlog_facts.checkpoint_ports import CheckpointQuery, CheckpointReads, StoredCheckpoint, find_latest
from agentlog_facts.errors import Unavailable
from agentlog_facts.graph_ports import GraphNotFound, StoredState, ThreadView
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.secret_values import MASK
from agentlog_infra.system_ports import SystemClock
from agentlog_processors.runs.final_state import FinalStateReader
from agentlog_processors.runtime.loop_bridge import BridgedCheckpointReads, LoopBridge
from agentlog_processors.runtime.user_loops import JobLoops

WORK = replace(a_work(), values={"x": 0}, next=("before",))
LIMIT_S = 5.0
PATIENCE = timedelta(milliseconds=500)
OPENED: list[JsonObject | None] = []
Asking = Callable[[CheckpointReads], Coroutine[object, object, ThreadView]]
STORED = StoredState({"x": 1}, ("ask",), {"task": [{"id": "i1", "value": "really?"}]}, "c1", RunId("another"))
BEFORE = ThreadView({"x": 0}, ("before",), STORED.interrupts, "c1")


class Code:
    """A graph whose code is given by the test."""

    def __init__(self, asking: Asking, reads: CheckpointReads) -> None:
        self._asking = asking
        self._reads = reads

    async def view(self, graph_id: str, thread_id: ThreadId, *, opened_with: JsonObject | None = None) -> ThreadView:
        OPENED.append(opened_with)
        return await self._asking(self._reads)

    async def view_without_run(
        self, graph_id: str, thread_id: ThreadId, run_id: RunId, *, opened_with: JsonObject | None = None
    ) -> ThreadView:
        OPENED.append(opened_with)
        return await self._asking(self._reads)


class Channels:
    """Stored channels of a thread, with and without the writes of a run."""

    def __init__(self, stored: StoredState) -> None:
        self._stored = stored

    async def channels(self, thread_id: ThreadId, without: RunId | None = None) -> StoredState:
        return STORED if without == self._stored.run_id else self._stored


class LateRows(MemoryCheckpoints):
    """Rows that answer after `let` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.let = asyncio.Event(), asyncio.Event()

    async def find(self, query: CheckpointQuery) -> Sequence[StoredCheckpoint]:
        self.called.set()
        await self.let.wait()
        return await super().find(query)


@pytest.fixture
async def loops() -> AsyncIterator[JobLoops]:
    made = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop)
    yield made
    made.close()


@pytest.fixture
def free() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def reader(
    loops: JobLoops, asking: Asking, stored: StoredState = STORED, rows: LateRows | None = None
) -> FinalStateReader:
    bridge, reads = LoopBridge(asyncio.get_running_loop()), rows or LateRows()
    return FinalStateReader(
        loops,
        reads,
        SystemClock(),
        lambda reads: Code(asking, BridgedCheckpointReads(bridge, reads)),
        lambda _: Channels(stored),
        PATIENCE,
    )


def raising(error: BaseException) -> Asking:
    async def asking(reads: CheckpointReads) -> ThreadView:
        raise error

    return asking


async def hanging(reads: CheckpointReads) -> ThreadView:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def test_a_graph_that_answers_is_believed(loops: JobLoops) -> None:
    async def asking(reads: CheckpointReads) -> ThreadView:
        return ThreadView({"x": 2}, ("next",))

    assert await reader(loops, asking).view(WORK) == ThreadView({"x": 2}, ("next",))


async def test_a_graph_is_opened_with_config_and_context_of_the_run_without_secrets(loops: JobLoops) -> None:
    async def asking(reads: CheckpointReads) -> ThreadView:
        return ThreadView()

    sealed: JsonObject = {"$sealed": {"ciphertext": "x"}}
    config: JsonObject = {"configurable": {"tenant": "acme", "pin": sealed, "api_key": "clear"}}
    work = replace(WORK, kwargs={"input": {"x": 1}, "config": config, "context": {"tone": "dry"}})
    OPENED.clear()
    states = reader(loops, asking)
    await states.view(work)
    await states.view_without_run(work)
    shown: JsonObject = {"configurable": {"tenant": "acme", "pin": MASK, "api_key": MASK}, "context": {"tone": "dry"}}
    assert [shown, shown] == OPENED


@pytest.mark.parametrize(
    "error", [ValueError("user code"), GraphNotFound("gone"), asyncio.CancelledError("a library's own")]
)
async def test_a_graph_that_is_gone_or_raises_is_done_without(loops: JobLoops, error: BaseException) -> None:
    states = reader(loops, raising(error))
    assert await states.view(WORK) == BEFORE
    assert await states.view_without_run(WORK) == BEFORE


async def test_what_is_left_behind_a_checkpoint_of_the_run_are_the_nodes_that_ask(loops: JobLoops) -> None:
    own = replace(STORED, values={"x": 2}, checkpoint_id="c2", run_id=WORK.run_id)
    states = reader(loops, raising(GraphNotFound("gone")), own)
    assert await states.view(WORK) == ThreadView({"x": 2}, ("ask",), own.interrupts, "c2")
    assert await states.view_without_run(WORK) == BEFORE


async def test_the_code_of_a_run_whose_worker_died_is_not_called(loops: JobLoops) -> None:
    states = reader(loops, raising(AssertionError("called")))
    suspect = replace(WORK, deaths=1)
    assert await states.view(suspect) == BEFORE
    assert await states.view_without_run(suspect) == BEFORE


async def test_a_graph_that_waits_for_ever_is_done_without(loops: JobLoops) -> None:
    async def asking(reads: CheckpointReads) -> ThreadView:
        try:
            return await hanging(reads)
        finally:
            home.call_soon_threadsafe(stopped.set)

    stopped, home = asyncio.Event(), asyncio.get_running_loop()
    async with asyncio.timeout(LIMIT_S):
        assert await reader(loops, asking).view(WORK) == BEFORE
        await stopped.wait()


async def test_a_graph_that_blocks_its_loop_is_done_without(free: threading.Event) -> None:
    loops = JobLoops(asyncio.get_running_loop(), asyncio.new_event_loop, isolated=True)
    stopped = asyncio.Event()
    home = asyncio.get_running_loop()

    async def asking(reads: CheckpointReads) -> ThreadView:
        free.wait(LIMIT_S * 2)
        home.call_soon_threadsafe(stopped.set)
        return ThreadView()

    async with asyncio.timeout(LIMIT_S):
        assert await reader(loops, asking).view(WORK) == BEFORE
        free.set()
        await stopped.wait()
    loops.close()


async def test_rows_that_are_away_are_no_fault_of_the_graph(loops: JobLoops) -> None:
    with pytest.raises(Unavailable):
        await reader(loops, raising(Unavailable("away"))).view(WORK)


async def reading(reads: CheckpointReads) -> ThreadView:
    """Query the rows once."""
    assert await find_latest(reads, WORK.thread_id, "") is None
    return ThreadView({"read": True})


async def test_a_graph_is_not_taken_for_one_that_hangs_because_rows_do_not_answer(loops: JobLoops) -> None:
    rows = LateRows()
    showing = asyncio.create_task(reader(loops, reading, rows=rows).view_without_run(WORK))
    await asyncio.wait_for(rows.called.wait(), LIMIT_S)
    assert not (await asyncio.wait({showing}, timeout=3 * PATIENCE.total_seconds()))[0]
    rows.let.set()
    assert await asyncio.wait_for(showing, LIMIT_S) == ThreadView({"read": True})


async def test_a_graph_that_hangs_when_rows_have_answered_is_done_without(loops: JobLoops) -> None:
    async def asking(reads: CheckpointReads) -> ThreadView:
        await reading(reads)
        return await hanging(reads)

    rows = LateRows()
    rows.let.set()
    assert await asyncio.wait_for(reader(loops, asking, rows=rows).view(WORK), LIMIT_S) == BEFORE


async def test_a_graph_that_blocks_its_loop_when_rows_have_answered_is_done_without(free: threading.Event) -> None:
    async def asking(reads: CheckpointReads) -> ThreadView:
        question = asyncio.create_task(reading(reads))
        await asyncio.sleep(0)  # the query is in progress
        free.wait(LIMIT_S * 2)
        try:
            return await question
        finally:
            home.call_soon_threadsafe(stopped.set)

    rows, stopped, home = LateRows(), asyncio.Event(), asyncio.get_running_loop()
    rows.let.set()
    loops = JobLoops(home, asyncio.new_event_loop, isolated=True)
    async with asyncio.timeout(LIMIT_S):
        assert await reader(loops, asking, rows=rows).view(WORK) == BEFORE
        free.set()
        await stopped.wait()
    loops.close()
