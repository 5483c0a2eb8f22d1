"""Tests of the budget of an overlay: reads do not change, memory stays within its bytes, the rows are waited for."""

import asyncio
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tests.infra.langgraph.memory_checkpoints import MemoryCheckpoints, MemoryLog, SlowLog
from tests.infra.langgraph.test_saver import CONFIG, HIDDEN, RUN, THREAD, checkpoint

from agentlog_facts.checkpoint import CheckpointFact, CheckpointSaved, WritesSaved
from agentlog_facts.checkpoint_ports import (
    CheckpointQuery,
    CheckpointReads,
    StoredCheckpoint,
    StoredWrite,
    find_parent,
    merged,
)
from agentlog_facts.envelope import Actor, Cause, Draft, LogPosition
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId, ThreadId, stream
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra import timeouts
from agentlog_infra.langgraph.checkpoints.journal import RunJournal, WriteClaim
from agentlog_infra.langgraph.checkpoints.overlay import OverlaidReads, OverlayRoom
from agentlog_infra.langgraph.checkpoints.saver import LogSaver
from agentlog_infra.system_ports import SystemClock, SystemIds

OTHER = RunId("r0")
STREAM = stream("run", RUN)
SPACES = ("", "sub:1", "sub:2")
STEP_BYTES = 100_000
BUDGET_BYTES = 2 << 20


def journal(log: MemoryLog, version: int | None = None, *, acknowledged: bool = True) -> RunJournal:
    claim = WriteClaim(THREAD, RUN, 7, Cause(Actor("worker", "w"), "c"), version)
    return RunJournal(log, claim, SystemClock(), SystemIds(), acknowledged=acknowledged)


class History:
    """A random history of a run: the same facts in an overlay that keeps all, and in one with a budget."""

    def __init__(self, most_bytes: int) -> None:
        self.rows = MemoryCheckpoints()
        self.log = MemoryLog(self.rows, at_once=False)
        self.most_bytes = most_bytes
        self.ids: list[str] = []
        self.made: dict[str, list[CheckpointSaved]] = {ns: [] for ns in SPACES}
        self.lengths: dict[str, int] = {}
        self.count = 0

    def earlier(self, run_id: RunId) -> None:
        """Write what other runs, or earlier attempts of this one, have left in the rows."""
        self.log = MemoryLog(self.rows)
        for ns in SPACES[:2]:
            saved = self.saved(ns, None, grow=False, run_id=run_id, on=stream("run", run_id))
            self.rows.fold(stream("run", run_id), (saved, self.written(saved, run_id)))

    async def begin(self, *, again: bool) -> None:
        self.log = MemoryLog(self.rows, at_once=False)
        self.journal = journal(self.log)
        self.whole, self.small = OverlaidReads(self.rows), OverlaidReads(self.rows)
        unlimited = OverlayRoom(1 << 60, journal(self.log), lambda: self.log.run_version(THREAD, RUN))
        self.whole.limit(unlimited)
        self.small.limit(OverlayRoom(self.most_bytes, self.journal, lambda: self.log.run_version(THREAD, RUN)))
        if again:
            newest = (await self.rows.find(CheckpointQuery(THREAD, limit=1)))[0]
            for one in (self.whole, self.small):
                one.count_only(_counted, newest.seq)
        for one in (self.whole, self.small):
            await one.find(CheckpointQuery(THREAD))

    def saved(
        self, ns: str, parent: CheckpointSaved | None, *, grow: bool, run_id: RunId = RUN, on: str = STREAM
    ) -> CheckpointSaved:
        """Return a checkpoint with one changed list; its other channel is as in its parent."""
        self.count += 1
        number = self.count
        versions: JsonObject = {} if parent is None else dict(parent.checkpoint["channel_versions"])  # type: ignore[arg-type]  # made below
        changed, version = ("x", "y")[number % 2], f"{number}.{run_id}"
        before = None if parent is None else versions.get(changed)
        entry: JsonObject = {"channel": changed, "version": version, "kind": "full", "value": {"items": ["a" * 50]}}
        if grow and before is not None and parent is not None and parent.run_id == RUN:
            key = (THREAD, ns, changed, str(before))
            length = self.lengths.get(str(before), 0)
            if length and self.small.has_list(key, STREAM):
                base: JsonObject = {"version": before, "length": length, "stream": STREAM}
                entry = {
                    "channel": changed,
                    "version": version,
                    "kind": "append",
                    "items": [f"b{number}"],
                    "base": base,
                }
                self.lengths[version] = length + 1
        if entry["kind"] == "full" and run_id == RUN:
            self.lengths[version] = 1
        self.ids.append(f"c{number}")
        one = CheckpointSaved(
            thread_id=THREAD,
            run_id=run_id,
            checkpoint_ns=ns,
            checkpoint_id=f"c{number}",
            parent_checkpoint_id=None if parent is None else parent.checkpoint_id,
            checkpoint={"v": 4, "id": f"c{number}", "channel_versions": {**versions, changed: version}},
            metadata={"source": "loop", "odd": number % 2},
            channels=(entry,),
        )
        self.made[ns].append(one)
        return one

    def written(self, on: CheckpointSaved, run_id: RunId = RUN) -> WritesSaved:
        self.count += 1
        task = f"t{self.count}" if run_id == RUN else "t"
        entries: list[Json] = [{"index": 0, "channel": "x", "value": "w" * 40}]
        entries.append({"index": -3, "channel": "__interrupt__", "value": self.count})
        return WritesSaved(THREAD, run_id, on.checkpoint_ns, on.checkpoint_id, task, "", tuple(entries))

    async def add(self, fact: CheckpointFact) -> None:
        for one in (self.whole, self.small):
            one.add(STREAM, (fact,))
        await self.journal.write(THREAD, (fact,))
        await self.small.make_room(wait=False)

    async def check(self) -> None:
        """Compare every kind of read."""
        queries = [query for ns in (*SPACES, None) for query in _kinds(self.ids, ns)]
        for query in queries:
            assert _shown(await self.small.find(query)) == _shown(await self.whole.find(query)), query
        own = await self.whole.find(CheckpointQuery(THREAD))
        small = {one.key: one for one in await self.small.find(CheckpointQuery(THREAD))}
        for child in own:
            expected, found = await find_parent(self.whole, child), await find_parent(self.small, small[child.key])
            assert _shown([expected] if expected else []) == _shown([found] if found else []), child.key


def _kinds(ids: Sequence[str], ns: str | None) -> list[CheckpointQuery]:
    every = CheckpointQuery(THREAD, ns)
    some = [ids[0], ids[len(ids) // 2], ids[-1]]
    return [
        every,
        replace(every, limit=1),
        replace(every, limit=3),
        replace(every, metadata={"odd": 1}),
        replace(every, exclude_run=RUN),
        *(replace(every, checkpoint_id=one) for one in some),
        *(replace(every, before=one, limit=2) for one in some),
        replace(every, before="unknown"),
    ]


def _counted(writes: Sequence[StoredWrite]) -> list[StoredWrite]:
    return [write for write in writes if write.run_id != RUN or write.channel != "__interrupt__"]


def _shown(found: Sequence[StoredCheckpoint]) -> list[object]:
    """Return what a saver shows of checkpoints; order numbers and the memory of lists may differ."""
    return [
        (
            *one.key,
            one.parent_checkpoint_id,
            one.run_id,
            one.checkpoint,
            one.metadata,
            {name: (held.kind, held.value, [*held.items], held.stream) for name, held in one.channels.items()},
            [(w.task_id, w.index, w.channel, w.value, w.run_id) for w in merged(one.writes)],
        )
        for one in found
    ]


STEP = st.tuples(
    st.sampled_from(["save", "save", "save", "write", "write old", "fork", "project", "read", "check"]),
    st.sampled_from(SPACES),
    st.integers(0, 1000),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEP, max_size=25), st.sampled_from([0, 2_000, 8_000]), st.sampled_from(["new", "after", "again"]))
async def test_reads_are_the_same_whatever_is_dropped(
    steps: list[tuple[str, str, int]], most_bytes: int, before: str
) -> None:
    history = History(most_bytes)
    if before != "new":
        history.earlier(OTHER)
    if before == "again":
        history.earlier(RUN)
    await history.begin(again=before == "again")
    for kind, ns, number in steps:
        made = history.made[ns]
        any_one = made[number % len(made)] if made else None
        match kind:
            case "save":
                await history.add(history.saved(ns, made[-1] if made else None, grow=number % 2 == 0))
            case "fork":
                await history.add(history.saved(ns, any_one, grow=number % 2 == 0))
            case "write" if made:
                await history.add(history.written(made[-1]))
            case "write old" if any_one:
                await history.add(history.written(any_one))
            case "project":
                history.log.project()
                await history.small.make_room(wait=False)
            case "read":
                query = CheckpointQuery(THREAD, ns, before=f"c{number % (history.count + 1)}", limit=2)
                assert _shown(await history.small.find(query)) == _shown(await history.whole.find(query))
            case "check" if history.ids:
                await history.check()
            case _:
                pass
    if history.ids:
        history.log.project()
        await history.small.make_room(wait=True)
        await history.check()


class Counting(MemoryLog):
    """A log that keeps only the number of its commits."""

    commits = 0

    async def append(self, draft: Draft) -> LogPosition:
        self.commits += 1
        return LogPosition(0, self.commits)

    async def run_version(self, thread_id: ThreadId, run_id: RunId) -> int | None:
        return self.commits - 1 if self.commits else None


class Saving:
    """A saver whose overlay has a budget."""

    def __init__(self, log: MemoryLog, rows: CheckpointReads, *, most_bytes: int = BUDGET_BYTES) -> None:
        self.journal = journal(log)
        self.overlay = OverlaidReads(rows)
        self.overlay.limit(OverlayRoom(most_bytes, self.journal, lambda: log.run_version(THREAD, RUN)))
        self.saver = LogSaver(self.overlay, self.journal, JsonPlusSerializer(), "r1:7", HIDDEN)
        self.at: RunnableConfig = CONFIG

    async def step(self, number: int, values: dict[str, object]) -> None:
        versions: dict[str, str | int | float] = {name: self.saver.get_next_version(None, None) for name in values}
        one = checkpoint(f"c{number:04}", versions)
        one["channel_values"] = dict(values)
        self.at = await self.saver.aput(self.at, one, {"source": "loop", "step": number}, versions)
        await self.saver.aput_writes(self.at, [(name, value) for name, value in values.items()], f"t{number}")


@pytest.mark.parametrize("kind", ["text", "list", "namespaces"])
async def test_500_steps_of_100_kb_stay_within_the_budget(kind: str) -> None:
    saving = Saving(Counting(MemoryCheckpoints()), MemoryCheckpoints())
    tracemalloc.start()
    try:
        for number in range(500):
            text = f"{number:04}" * (STEP_BYTES // 4)
            if kind == "namespaces":
                saving.at = {"configurable": {"thread_id": THREAD, "checkpoint_ns": f"sub:{number}"}}
            await saving.step(number, {"x": [text] if kind == "list" else text})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert saving.overlay.older_bytes <= BUDGET_BYTES
    assert peak < BUDGET_BYTES + 20 * STEP_BYTES


async def test_a_list_that_grows_stays_an_append_on_the_log() -> None:
    log = MemoryLog(MemoryCheckpoints())
    saving = Saving(log, log.rows, most_bytes=0)
    for number in range(20):
        await saving.step(number, {"x": ["a", "b", *range(number)]})
    facts = [fact for draft in log.drafts for fact in draft.facts if isinstance(fact, CheckpointSaved)]
    kinds = [entry["kind"] for fact in facts for entry in fact.channels if isinstance(entry, dict)]
    assert kinds == ["full", *["append"] * 19]
    last = await saving.saver.aget_tuple(CONFIG)
    assert last is not None
    assert last.checkpoint["channel_values"]["x"] == ["a", "b", *range(19)]


async def test_a_list_is_stored_anew_if_memory_has_dropped_what_it_grew_from() -> None:
    log = MemoryLog(MemoryCheckpoints())
    saving = Saving(log, log.rows, most_bytes=0)
    inside: RunnableConfig = {"configurable": {"thread_id": THREAD, "checkpoint_ns": "sub:1"}}
    await saving.step(0, {"x": ["a"]})
    root, saving.at = saving.at, inside
    await saving.step(1, {"x": ["s"]})
    saving.at = root
    await saving.step(2, {"x": ["a", "b"]})
    last = await saving.saver.aget_tuple(CONFIG)
    assert last is not None
    assert last.checkpoint["channel_values"] == {"x": ["a", "b"]}
    assert [one.checkpoint["id"] async for one in saving.saver.alist(CONFIG)] == ["c0002", "c0000"]


async def test_a_checkpoint_beyond_the_budget_waits_for_the_rows() -> None:
    log = MemoryLog(MemoryCheckpoints(), at_once=False)
    saving = Saving(log, log.rows, most_bytes=0)
    await saving.step(0, {"x": "a"})
    second = asyncio.create_task(saving.step(1, {"x": "b"}))
    done, _ = await asyncio.wait([second], timeout=0.1)
    assert not done
    log.project()
    await second
    assert saving.overlay.older_bytes == 0


async def test_rows_that_never_follow_give_the_attempt_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "OVERLAY_PATIENCE_S", 0.05)
    log = MemoryLog(MemoryCheckpoints(), at_once=False)
    saving = Saving(log, log.rows, most_bytes=0)
    await saving.step(0, {"x": "a"})
    with pytest.raises(Unavailable, match="the rows do not follow"):
        await saving.step(1, {"x": "b"})


@pytest.mark.parametrize("end", ["hold", "leave"])
async def test_a_journal_that_writes_nothing_makes_nobody_wait(end: str) -> None:
    log = SlowLog(MemoryCheckpoints())
    saving = Saving(log, log.rows, most_bytes=0)
    getattr(saving.journal, end)()
    async with asyncio.timeout(5):
        await saving.step(0, {"x": "a"})
        await saving.step(1, {"x": "b"})
    assert [one.checkpoint["id"] async for one in saving.saver.alist(CONFIG)] == ["c0001", "c0000"]
