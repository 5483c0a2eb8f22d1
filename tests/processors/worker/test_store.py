"""Tests of the store for user code: one commit per namespace, retries of reads and writes, calls from any loop."""

import asyncio

import pytest
from tests.fakes.memory_log import MemoryLog
from tests.fakes.memory_store import MemoryStore

from agentlog_commands.submit import Submitter
from agentlog_facts.envelope import Actor, Cause, Draft, LogPosition
from agentlog_facts.errors import Quarantined, Unavailable
from agentlog_facts.guard import Accepted, Verdict, Void
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.store import StoreItemDeleted, StoreItemFact, StoreItemPut, store_key
from agentlog_facts.store_ports import Namespace, StoredItem
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_processors.runs.dependencies import CommitWriter
from agentlog_processors.runtime.loop_bridge import LoopBridge
from agentlog_processors.worker.store import RunStore

ACTOR = Actor("worker", "w1")
CAUSE = Cause(ACTOR, "r", "claim")
WHO = (ThreadId("t"), RunId("r"), 3)
ANA, BOB = ("users", "ana"), ("users", "bob")


class Built(MemoryStore):
    """Rows that cannot be read the first few times."""

    left = 2

    async def item(self, namespace: Namespace, key: str) -> StoredItem | None:
        self.left -= 1
        if self.left >= 0:
            raise Unavailable("being built")
        return await super().item(namespace, key)


class Voiding(MemoryLog):
    """A log that appends to the wrong partition, as a wrong partitioner would."""

    async def wait(self, place: LogPosition, append_id: str, deadline: float) -> Verdict:
        return Void("wrong_partition")


class Slow(Voiding):
    """A log that accepts commits of one namespace later than others."""

    async def append(self, draft: Draft) -> LogPosition:
        if draft.key == store_key(BOB):
            await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0.05)
        return await super().append(draft)


def store(log: MemoryLog, reads: MemoryStore | None = None) -> RunStore:
    clock, ids = SystemClock(), SystemIds()
    writer = CommitWriter(Submitter(log, log, log, clock, ids), log, clock, ids, ACTOR)
    return RunStore(LoopBridge(asyncio.get_running_loop()), reads or MemoryStore(), writer)


async def test_the_facts_of_a_namespace_are_one_commit_with_the_cause_of_the_run() -> None:
    log = MemoryLog()
    facts: list[StoreItemFact] = [
        StoreItemPut(ANA, "a", {}, *WHO),
        StoreItemPut(BOB, "b", {}, *WHO),
        StoreItemDeleted(ANA, "c", *WHO),
    ]
    await store(log).write(facts, CAUSE)
    commits = {draft.key: draft for draft, verdict in log.rows if isinstance(verdict, Accepted)}
    assert {key: draft.facts for key, draft in commits.items()} == {
        store_key(ANA): (facts[0], facts[2]),
        store_key(BOB): (facts[1],),
    }
    ana = commits[store_key(ANA)]
    assert (ana.stream, ana.epoch, ana.demands, ana.cause) == (f"store-{store_key(ANA)}", None, {}, CAUSE)


async def test_a_batch_that_no_record_holds_is_several_commits_of_its_namespace() -> None:
    log = MemoryLog()
    facts = [StoreItemPut(ANA, str(number), {"n": "x" * 40}, *WHO) for number in range(8_000)]
    large = StoreItemPut(ANA, "large", {"text": "y" * 2_000_000}, *WHO)
    await store(log).write([*facts[:10], large, *facts[10:]], CAUSE)
    assert [fact for draft, _ in log.rows for fact in draft.facts] == [*facts[:10], large, *facts[10:]]
    assert [draft.facts for draft, _ in log.rows if large in draft.facts] == [(large,)], (
        "its value goes to a blob alone"
    )
    assert max(len(value) for _, value in log.records if len(value) < 2_000_000) < 900 * 1024
    assert len(log.records) <= 6


async def test_when_a_write_has_failed_nothing_of_it_is_under_way_any_more() -> None:
    log = Slow()
    with pytest.raises(Unavailable, match="wrong_partition"):
        await store(log).write([StoreItemPut(ANA, "a", {}, *WHO), StoreItemPut(BOB, "b", {}, *WHO)], CAUSE)
    assert [draft.key for draft, _ in log.rows] == [store_key(ANA), store_key(BOB)]


async def test_a_write_whose_acknowledgement_is_lost_is_on_the_log_once() -> None:
    log = MemoryLog(lose_acks=1)
    await store(log).write([StoreItemPut(ANA, "a", {}, *WHO)], CAUSE)
    assert [type(verdict) for _, verdict in log.rows] == [Accepted]


async def test_a_log_that_is_away_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlog_processors.timeouts.APPEND_RETRY_S", 0.01)
    log = MemoryLog(refuse=2)
    await store(log).write([StoreItemPut(ANA, "a", {}, *WHO)], CAUSE)
    assert [type(verdict) for _, verdict in log.rows] == [Accepted]


async def test_what_the_log_does_not_take_is_no_success() -> None:
    with pytest.raises(Unavailable, match="wrong_partition"):
        await store(Voiding()).write([StoreItemPut(ANA, "a", {}, *WHO)], CAUSE)


async def test_nothing_of_a_write_is_handed_over_if_one_namespace_is_in_quarantine() -> None:
    log, rows = MemoryLog(), MemoryStore()
    rows.quarantined.add(BOB)
    with pytest.raises(Quarantined):
        await store(log, rows).write([StoreItemPut(ANA, "a", {}, *WHO), StoreItemPut(BOB, "b", {}, *WHO)], CAUSE)
    assert log.rows == []


async def test_rows_that_are_being_built_are_asked_for_again() -> None:
    rows = Built()
    assert await store(MemoryLog(), rows).item(ANA, "a") is None
    assert rows.left == -1


async def test_it_is_reached_from_another_loop() -> None:
    log = MemoryLog()
    shared = store(log)
    facts = [StoreItemPut(ANA, "a", {}, *WHO)]
    await asyncio.to_thread(lambda: asyncio.run(shared.write(facts, CAUSE)))
    assert len(log.rows) == 1
