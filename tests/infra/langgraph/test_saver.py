"""Tests of the saver in a claim, in a collected commit, and standalone: its writes and its reads."""

import asyncio
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import ERROR
from langgraph.graph import START, StateGraph
from tests.fakes.standalone_saver import StandaloneSaver
from tests.infra.langgraph.memory_checkpoints import MemoryCheckpoints, MemoryLog, MemoryThreads, SlowLog

from agentlog_facts.checkpoint import CheckpointSaved
from agentlog_facts.checkpoint_ports import find_latest
from agentlog_facts.envelope import Actor, Cause
from agentlog_facts.errors import Unavailable
from agentlog_facts.execution_port import AttemptLost
from agentlog_facts.ids import RunId, Stream, ThreadId
from agentlog_facts.secret_values import MASK, HiddenValues, SecretKeys
from agentlog_infra.langgraph.checkpoints.channel_delta import MIN_PARTS
from agentlog_infra.langgraph.checkpoints.journal import BACKLOG, CollectingJournal, ReadOnly, RunJournal, WriteClaim
from agentlog_infra.langgraph.checkpoints.overlay import OverlaidReads
from agentlog_infra.langgraph.checkpoints.saver import LogSaver
from agentlog_infra.system_ports import SystemClock, SystemIds

THREAD = ThreadId("t1")
RUN = RunId("r1")
AT_ROOT = {"thread_id": THREAD, "checkpoint_ns": ""}
CONFIG: RunnableConfig = {"configurable": AT_ROOT}


SECRET = "sk-never-in-clear"
HIDDEN = HiddenValues(SecretKeys(), [SECRET])


class Unshowable(Exception):
    def __repr__(self) -> str:
        raise ZeroDivisionError


@dataclass
class Described(Exception):
    reason: str
    key: str = field(repr=False)


class Changing(Exception):
    """An error whose repr shows a secret from its second call on."""

    calls = 0

    def __repr__(self) -> str:
        self.calls += 1
        return "Changing()" if self.calls == 1 else SECRET


class Rig:
    """A saver in a claim over a log in memory."""

    def __init__(self, log: MemoryLog, reads: MemoryCheckpoints, *, acknowledged: bool = True) -> None:
        self.log = log
        claim = WriteClaim(THREAD, RUN, 7, Cause(Actor("worker", "w"), "c"))
        self.journal = RunJournal(log, claim, SystemClock(), SystemIds(), acknowledged=acknowledged)
        self.saver = LogSaver(OverlaidReads(reads), self.journal, JsonPlusSerializer(), "r1:7", HIDDEN)

    async def put(
        self, number: int, parent: str | None = None, source: Literal["input", "loop"] = "loop"
    ) -> RunnableConfig:
        version = self.saver.get_next_version(None, None)
        config: RunnableConfig = {"configurable": {**AT_ROOT, "checkpoint_id": parent}}
        metadata: CheckpointMetadata = {"source": source, "step": number}
        return await self.saver.aput(config, checkpoint(f"c{number}", {"x": version}), metadata, {"x": version})

    async def write(self, checkpoint_id: str, task_id: str) -> None:
        config: RunnableConfig = {"configurable": {**AT_ROOT, "checkpoint_id": checkpoint_id}}
        await self.saver.aput_writes(config, [("x", task_id)], task_id)


def checkpoint(checkpoint_id: str, versions: dict[str, str | int | float]) -> Checkpoint:
    return Checkpoint(
        v=4,
        id=checkpoint_id,
        ts=datetime.now(UTC).isoformat(),
        channel_values={name: checkpoint_id for name in versions},
        channel_versions=versions,
        versions_seen={},
        updated_channels=None,
    )


def rig(*, slow: bool = False, acknowledged: bool = True) -> Rig:
    reads = MemoryCheckpoints()
    return Rig(SlowLog(reads) if slow else MemoryLog(reads), reads, acknowledged=acknowledged)


def release(log: MemoryLog) -> None:
    assert isinstance(log, SlowLog)
    log.gate.set()


async def test_puts_that_wait_go_into_one_commit() -> None:
    one = rig(slow=True)
    puts = [asyncio.create_task(one.put(number)) for number in range(5)]
    await asyncio.wait(puts, timeout=0, return_when=asyncio.FIRST_COMPLETED)
    release(one.log)
    await asyncio.gather(*puts)
    assert sum(len(draft.facts) for draft in one.log.drafts) == 5
    assert len(one.log.drafts) <= 2


async def test_a_put_returns_when_the_log_has_it() -> None:
    one = rig(slow=True)
    put = asyncio.create_task(one.put(1))
    done, _ = await asyncio.wait([put], timeout=0.05)
    assert not done
    release(one.log)
    await put
    assert (one.journal.last_version, one.journal.last_checkpoint_id) == (0, "c1")


async def test_only_the_end_of_a_superstep_waits_in_a_pipeline() -> None:
    one = rig(slow=True, acknowledged=False)
    await one.put(-1, source="input")
    await one.write("c-1", "t1")
    assert one.log.drafts == []
    put = asyncio.create_task(one.put(1))
    done, _ = await asyncio.wait([put], timeout=0.05)
    assert not done
    release(one.log)
    await put
    assert (one.journal.last_version, one.journal.last_checkpoint_id) == (0, "c1")


async def test_a_pipeline_gathers_a_superstep_into_one_commit() -> None:
    one = rig(acknowledged=False)
    for task in range(20):
        await one.write("c0", f"t{task}")
        await asyncio.to_thread(lambda: None)  # time passes, as between the ends of tasks
    await one.put(1)
    assert sum(len(draft.facts) for draft in one.log.drafts) == 21
    assert len(one.log.drafts) < 20


async def test_a_pipeline_that_is_full_makes_writers_wait() -> None:
    one = rig(slow=True, acknowledged=False)
    for task in range(BACKLOG):
        await one.write("c0", f"t{task}")
    write = asyncio.create_task(one.write("c0", "last"))
    done, _ = await asyncio.wait([write], timeout=0.05)
    assert not done
    release(one.log)
    await write


async def test_after_a_lost_append_nothing_is_written() -> None:
    one = rig()
    one.log.fails = True
    with pytest.raises(AttemptLost, match="an append was lost") as lost:
        await one.put(1)
    assert isinstance(lost.value.__cause__, Unavailable)
    one.log.fails = False
    with pytest.raises(AttemptLost):
        await one.put(2)
    assert one.log.drafts == []
    assert one.journal.failed


async def test_a_cancelled_writer_does_not_lose_the_append_of_others() -> None:
    one = rig(slow=True)
    first, second = asyncio.create_task(one.put(1)), asyncio.create_task(one.put(2))
    await asyncio.wait([first], timeout=0.01)
    first.cancel()
    release(one.log)
    await second
    assert [fact.checkpoint_id for fact in saved(one.log)] == ["c1", "c2"]


async def test_own_checkpoints_are_read_before_they_are_projected() -> None:
    reads = MemoryCheckpoints()
    one = Rig(MemoryLog(reads, at_once=False), reads)
    config = await one.put(1)
    await one.saver.aput_writes(config, [("x", "w")], "task")
    found = await one.saver.aget_tuple(CONFIG)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"x": "c1"}
    assert found.pending_writes == [("task", "x", "w")]
    assert [found.checkpoint["id"] async for found in one.saver.alist(CONFIG)] == ["c1"]


async def test_a_thread_of_another_run_is_refused() -> None:
    one = rig()
    other: RunnableConfig = {"configurable": {"thread_id": "t2", "checkpoint_ns": ""}}
    with pytest.raises(ValueError, match="writes thread t1, not t2"):
        await one.saver.aput(other, checkpoint("c", {"x": "1"}), {}, {"x": "1"})


async def test_a_sync_call_on_the_loop_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="use ainvoke"):
        rig().saver.get_tuple(CONFIG)


async def test_sync_calls_work_from_other_threads() -> None:
    one = rig()
    await one.put(1)
    found = await asyncio.to_thread(one.saver.get_tuple, CONFIG)
    assert found is not None
    listed = await asyncio.to_thread(lambda: list(one.saver.list(CONFIG)))
    assert [item.checkpoint["id"] for item in listed] == ["c1"]


async def test_another_loop_may_use_the_saver() -> None:
    one = rig()

    def elsewhere() -> object:
        return asyncio.run(one.put(1))

    await asyncio.to_thread(elsewhere)
    assert [fact.checkpoint_id for fact in saved(one.log)] == ["c1"]


async def test_latest_follows_the_order_of_acceptance_not_the_ids() -> None:
    one = rig()
    for number in (5, 3):
        await one.put(number)
    found = await one.saver.aget_tuple(CONFIG)
    assert found is not None
    assert found.checkpoint["id"] == "c3"
    before: RunnableConfig = {"configurable": {"thread_id": THREAD, "checkpoint_id": "c3"}}
    assert [item.checkpoint["id"] async for item in one.saver.alist(CONFIG, before=before)] == ["c5"]


async def test_collected_facts_are_one_commit_of_the_caller() -> None:
    journal = CollectingJournal(THREAD)
    saver = LogSaver(OverlaidReads(MemoryCheckpoints()), journal, JsonPlusSerializer(), "u1", HIDDEN)
    graph = adding(["a"]).compile(checkpointer=saver)
    await graph.aupdate_state({"configurable": {"thread_id": THREAD}}, {"said": ["by hand"]}, as_node="a")
    state = await graph.aget_state({"configurable": {"thread_id": THREAD}})
    assert state.values == {"said": ["by hand"]}
    assert any(isinstance(fact, CheckpointSaved) for fact in journal.facts)
    assert {fact.run_id for fact in journal.facts if isinstance(fact, CheckpointSaved)} == {None}


async def test_a_thread_grows_linearly_on_the_log() -> None:
    sizes: list[int] = []
    for turns in (60, 120):
        reads = MemoryCheckpoints()
        log = MemoryLog(reads)
        for turn in range(turns):
            run = RunId(f"r{turn}")
            claim = WriteClaim(THREAD, run, turn, Cause(Actor("worker", "w"), "c"))
            journal = RunJournal(log, claim, SystemClock(), SystemIds(), acknowledged=False)
            saver = LogSaver(OverlaidReads(reads), journal, JsonPlusSerializer(), f"{run}", HIDDEN)
            graph = adding(["a"]).compile(checkpointer=saver)
            await graph.ainvoke({"said": [f"turn {turn}"]}, {"configurable": {"thread_id": THREAD}})
            await journal.flush()
        items = [entry["items"] if "items" in entry else entry["value"] for entry in said(log)]
        sizes.append(len(str(items)))
        latest = await find_latest(reads, THREAD, "")
        assert latest is not None
        assert len(latest.channels["said"].items) == 2 * turns
        assert latest.channels["said"].parts <= max(MIN_PARTS, 2 * turns)
    assert sizes[1] < 2.6 * sizes[0]


def said(log: MemoryLog) -> list[dict[str, Any]]:
    entries = [entry for fact in saved(log) for entry in fact.channels if isinstance(entry, dict)]
    return [dict(entry) for entry in entries if entry["channel"] == "said" and entry["kind"] != "empty"]


def saved(log: MemoryLog) -> list[CheckpointSaved]:
    return [fact for draft in log.drafts for fact in draft.facts if isinstance(fact, CheckpointSaved)]


class Said(TypedDict):
    said: Annotated[list[str], operator.add]


def adding(words: Sequence[str]) -> "StateGraph[Said, None, Said, Said]":
    builder = StateGraph(Said)
    for before, word in zip((START, *words), words, strict=False):
        builder.add_node(word, _adder(word))
        builder.add_edge(before, word)
    return builder


def _adder(word: str) -> Any:
    def node(state: Any) -> Any:
        return {"said": [word]}

    return node


def _extended(old: list[str], new: Sequence[list[str]]) -> list[str]:
    return old + [item for items in new for item in items]


class Delta(TypedDict):
    said: Annotated[list[str], DeltaChannel(_extended, list, snapshot_frequency=4)]


def delta_graph() -> "StateGraph[Delta, None, Delta, Delta]":
    builder = StateGraph(Delta)
    builder.add_node("a", _adder("a"))
    builder.add_node("b", _adder("b"))
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    return builder


@pytest.mark.parametrize("runs", [1, 2, 5])
@pytest.mark.parametrize("durability", ["sync", "exit"])
async def test_delta_channels_are_rebuilt_as_langgraphs_own_saver_does(runs: int, durability: Any) -> None:
    reads = MemoryCheckpoints()
    own = StandaloneSaver(reads, MemoryThreads(reads).commit, JsonPlusSerializer(), "token")
    states: list[object] = []
    for saver in (own, InMemorySaver()):
        graph = delta_graph().compile(checkpointer=saver)
        config: RunnableConfig = {"configurable": {"thread_id": THREAD}}
        for number in range(runs):
            await graph.ainvoke({"said": [f"in {number}"]}, config, durability=durability)
        history = [snapshot.values async for snapshot in graph.aget_state_history(config)]
        found = await saver.aget_tuple(config)
        assert found is not None
        deltas = await saver.aget_delta_channel_history(config=found.config, channels=["said"])
        states.append((history, [write[1:] for write in deltas["said"]["writes"]], "seed" in deltas["said"]))
    assert states[0] == states[1]


async def test_no_channels_have_no_history() -> None:
    assert await rig().saver.aget_delta_channel_history(config=CONFIG, channels=[]) == {}


async def test_pruning_keeps_what_delta_channels_are_rebuilt_from() -> None:
    reads = MemoryCheckpoints()
    saver = StandaloneSaver(reads, MemoryThreads(reads).commit, JsonPlusSerializer(), "token")
    graph = delta_graph().compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": THREAD}}
    for number in range(3):
        await graph.ainvoke({"said": [f"in {number}"]}, config)
    before = (await graph.aget_state(config)).values
    await saver.aprune([THREAD])
    assert (await graph.aget_state(config)).values == before
    assert len([item async for item in saver.alist(config)]) < 9


async def test_a_reading_saver_writes_nothing() -> None:
    saver = LogSaver(MemoryCheckpoints(), ReadOnly(), JsonPlusSerializer(), "read", HIDDEN)
    with pytest.raises(Exception, match="only reads"):
        await saver.aput(CONFIG, checkpoint("c", {"x": "1"}), {}, {"x": "1"})


async def test_a_checkpoint_whose_parent_cannot_be_read_is_not_shown_in_part() -> None:
    reads = MemoryCheckpoints()
    log = MemoryLog(reads)
    graph = adding(["a"]).compile(checkpointer=Rig(log, reads).saver)
    await graph.ainvoke({"said": ["first"]}, {"configurable": {"thread_id": THREAD}})
    last = await find_latest(reads, THREAD, "")
    assert last is not None
    rows = MemoryCheckpoints()  # being rebuilt: nothing there yet
    own = OverlaidReads(rows)
    fact = CheckpointSaved(
        THREAD, RUN, "", "c-own", last.checkpoint_id, {**last.checkpoint, "id": "c-own"}, dict(last.metadata), ()
    )
    own.add(Stream("run-r1"), [fact])
    with pytest.raises(Unavailable):
        await find_latest(own, THREAD, "")


async def test_the_error_of_a_cancelled_task_is_not_saved_and_what_it_wrote_before_is() -> None:
    one = rig()
    at = await one.put(1)
    error = ("__error__", asyncio.CancelledError())
    await one.saver.aput_writes(at, [error], "t1")
    await one.saver.aput_writes(at, [("x", 1), error], "t2")
    await one.saver.aput_writes(at, [("__error__", ValueError("no"))], "t3")
    found = await one.saver.aget_tuple(CONFIG)
    assert found is not None
    assert [(task, channel) for task, channel, _ in found.pending_writes or ()] == [("t2", "x"), ("t3", "__error__")]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (asyncio.CancelledError(SECRET), None),
        (asyncio.CancelledError(), None),
        (ValueError(SECRET), f"ValueError('{MASK}')"),
        (Unshowable(), "An internal error occurred"),
        (Described("refused", SECRET), "Described(reason='refused')"),
        (Changing(), "Changing()"),
        ("as text", "as text"),
    ],
)
async def test_an_error_is_stored_without_secrets_and_a_cancel_not_at_all(error: object, shown: str | None) -> None:
    """The mask made a text of a cancel, which was stored as the error of its task; a dataclass showed its fields."""
    reads = MemoryCheckpoints()
    rig = Rig(MemoryLog(reads), reads)
    config = await rig.put(1)
    await rig.saver.aput_writes(config, [(ERROR, error), ("x", 1)], "task")
    assert SECRET not in str(rig.log.drafts)
    found = await rig.saver.aget_tuple(config)
    assert found is not None
    errors = [value for _, channel, value in found.pending_writes or () if channel == ERROR]
    assert errors == ([] if shown is None else [shown])
