"""Read model of checkpoints: given facts, applied twice, then the reads of savers."""

import re
from typing import Any

import pytest
from tests.projections.facts import (
    appended,
    full,
    run_claimed,
    run_created,
    run_deleted,
    run_finished,
    saved,
    state_updated,
    thread_created,
    thread_deleted,
    written,
)
from tests.projections.models.applying import Applying
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.checkpoint import ChannelHistory, CheckpointsHidden, EncodedChannel
from agentlog_facts.checkpoint_ports import CheckpointQuery, StoredCheckpoint, find_latest, find_one, find_parent
from agentlog_facts.envelope import Draft, Fact
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import RunId, Stream, ThreadId
from agentlog_facts.json_value import Json
from agentlog_projections.models.channel_chains import ChannelChains
from agentlog_projections.models.checkpoints import Checkpoints, CheckpointsModel
from agentlog_projections.sql.batch import Transaction

T1 = ThreadId("t1")
R1 = RunId("r1")
ON_R1 = Stream("run-r1")


@pytest.fixture
async def checkpoints(env: ProjectorEnv) -> Checkpoints:
    await env.pool.execute("INSERT INTO ledger.positions (partition, present) VALUES (0, true)")
    return Checkpoints(env.pool)


def begun() -> list[Draft]:
    return [draft("t1", thread_created(), run_created()), draft("t1", run_claimed())]


def by_r1(*facts: Fact) -> Draft:
    return draft("t1", *facts, stream="run-r1", epoch=1)


async def latest(checkpoints: Checkpoints) -> StoredCheckpoint:
    found = await find_latest(checkpoints, T1, "")
    assert found is not None
    return found


async def test_the_latest_checkpoint_comes_back_with_its_channels(given: Applying, checkpoints: Checkpoints) -> None:
    await given(*begun(), by_r1(saved("c1", full("x", "1", 5), full("y", "1", {"json": [1]}), metadata={"step": 1})))
    found = await latest(checkpoints)
    assert (found.checkpoint_id, found.run_id, found.metadata) == ("c1", "r1", {"step": 1})
    assert found.channels["x"] == EncodedChannel("value", "1", ON_R1, value=5)
    assert found.channels["y"] == EncodedChannel("value", "1", ON_R1, value={"json": [1]})


async def test_what_a_read_found_before_its_partition_was_rebuilt_does_not_count(
    given: Applying, env: ProjectorEnv, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    await given(*begun(), by_r1(saved("c1", full("x", "1", 5))))
    read = ChannelChains.read

    async def later(chains: ChannelChains, *arguments: Any) -> ChannelHistory:  # Any: as they come
        await env.pool.execute("UPDATE ledger.positions SET present = false")
        return await read(chains, *arguments)

    monkeypatch.setattr(ChannelChains, "read", later)
    with pytest.raises(Unavailable, match="being built"):
        await latest(checkpoints)


async def test_latest_follows_the_order_of_acceptance_not_of_ids(given: Applying, checkpoints: Checkpoints) -> None:
    await given(*begun(), by_r1(saved("z")), by_r1(saved("a")))
    assert (await latest(checkpoints)).checkpoint_id == "a"
    assert [one.checkpoint_id for one in await checkpoints.find(CheckpointQuery(T1, ""))] == ["a", "z"]
    assert [one.checkpoint_id for one in await checkpoints.find(CheckpointQuery(T1, before="a"))] == ["z"]
    assert await checkpoints.find(CheckpointQuery(T1, "", before="unknown")) == []


async def test_appended_items_are_put_behind_their_base(given: Applying, checkpoints: Checkpoints) -> None:
    await given(
        *begun(),
        by_r1(saved("c1", full("m", "1", {"items": ["a"]}))),
        by_r1(saved("c2", appended("m", "2", ["b"], "1", 1, ON_R1))),
        by_r1(saved("c3", appended("m", "3", ["c", "d"], "2", 2, ON_R1))),
        by_r1(saved("c4", versions={"m": "3", "gone": "9"})),
    )
    history = await checkpoints.find(CheckpointQuery(T1, ""))
    items = [one.channels["m"].items for one in history]
    assert items == [("a", "b", "c", "d"), ("a", "b", "c", "d"), ("a", "b"), ("a",)]
    assert history[0].channels["m"] == EncodedChannel(
        "list", "3", ON_R1, items=("a", "b", "c", "d"), full_length=1, parts=2
    )
    assert list(history[0].channels) == ["m"]


async def test_an_emptied_channel_has_no_value(given: Applying, checkpoints: Checkpoints) -> None:
    await given(
        *begun(),
        by_r1(saved("c1", full("x", "1", 5))),
        by_r1(saved("c2", {"channel": "x", "version": "2", "kind": "empty"})),
    )
    assert (await latest(checkpoints)).channels == {}


async def test_a_version_that_two_branches_share_is_the_last_one_before_the_checkpoint(
    given: Applying, checkpoints: Checkpoints
) -> None:
    await given(
        *begun(),
        by_r1(saved("c1", full("x", "1", "first"))),
        draft("t1", run_finished(checkpoint_id="c1"), epoch=1),
        draft("t1", saved("c2", full("x", "1", "second"), run=None), state_updated({"set": {"x": 1}})),
    )
    values = [one.channels["x"].value for one in await checkpoints.find(CheckpointQuery(T1, ""))]
    assert values == ["second", "first"]


async def test_writes_come_back_in_order_and_reserved_indexes_replace(
    given: Applying, checkpoints: Checkpoints
) -> None:
    await given(
        *begun(),
        by_r1(saved("c1")),
        by_r1(written("c1", "task", (0, "x", 1), (1, "y", 2))),
        by_r1(written("c1", "task", (0, "x", "again"), (-3, "__interrupt__", "a"))),
        by_r1(written("c1", "task", (-3, "__interrupt__", "b"))),
    )
    writes = (await latest(checkpoints)).writes
    assert [(write.index, write.channel, write.value) for write in writes] == [
        (0, "x", 1),
        (1, "y", 2),
        (-3, "__interrupt__", "b"),
    ]


async def test_deleting_a_run_hides_its_checkpoints_and_its_writes_on_others(
    given: Applying, checkpoints: Checkpoints
) -> None:
    await given(
        *begun(),
        by_r1(saved("c1", full("m", "1", {"items": ["a"]})), written("c1", "task", (0, "x", 1))),
        draft("t1", run_finished(checkpoint_id="c1"), epoch=1),
        draft("t1", run_created("r2")),
        draft("t1", run_claimed("r2")),
        draft("t1", written("c1", "task", (-4, "__resume__", 1), run="r2"), stream="run-r2", epoch=4),
        draft("t1", saved("c2", appended("m", "2", ["b"], "1", 1, ON_R1), run="r2"), stream="run-r2", epoch=4),
        draft("t1", run_finished("r2", checkpoint_id="c2"), epoch=4),
    )
    without = await find_latest(checkpoints, T1, "", RunId("r2"))
    assert without is not None
    assert (without.checkpoint_id, [write.index for write in without.writes]) == ("c1", [0])
    await given(draft("t1", run_deleted("r2")))
    found = await latest(checkpoints)
    assert (found.checkpoint_id, [write.index for write in found.writes]) == ("c1", [0])
    assert await find_one(checkpoints, T1, "", "c2") is None


async def test_a_checkpoint_that_builds_on_a_hidden_run_keeps_its_values(
    given: Applying, checkpoints: Checkpoints
) -> None:
    await given(
        *begun(),
        by_r1(saved("c1", full("m", "1", {"items": ["a"]}))),
        draft("t1", run_finished(checkpoint_id="c1"), epoch=1),
        draft("t1", saved("c2", appended("m", "2", ["b"], "1", 1, ON_R1), run=None), state_updated({"set": {}})),
        draft("t1", run_deleted("r1")),
    )
    history = await checkpoints.find(CheckpointQuery(T1, ""))
    assert [(one.checkpoint_id, one.channels["m"].items) for one in history] == [("c2", ("a", "b"))]


async def test_a_checkpoint_is_built_on_the_writes_that_showed_when_it_was_saved(
    given: Applying, checkpoints: Checkpoints
) -> None:
    """`r2` was deleted before `c3` was built on `c1`; `r1` was deleted after it."""
    await given(
        *begun(),
        by_r1(saved("c1"), written("c1", "by_r1", (0, "x", 1))),
        draft("t1", run_finished(checkpoint_id="c1"), epoch=1),
        draft("t1", run_created("r2")),
        draft("t1", run_claimed("r2")),
        draft("t1", written("c1", "by_r2", (0, "x", 2), run="r2"), stream="run-r2", epoch=4),
        draft("t1", run_finished("r2", checkpoint_id="c1"), epoch=4),
        draft("t1", run_deleted("r2")),
        draft("t1", saved("c3", run=None, parent="c1"), state_updated({"set": {}})),
        draft("t1", run_deleted("r1")),
    )
    parent = await find_parent(checkpoints, await latest(checkpoints))
    assert parent is not None
    assert (parent.checkpoint_id, [write.value for write in parent.writes]) == ("c1", [1])


async def test_named_checkpoints_can_be_hidden(given: Applying, checkpoints: Checkpoints) -> None:
    hidden = CheckpointsHidden(T1, ({"ns": "", "checkpoint_id": "c2"},), "prune")
    await given(*begun(), by_r1(saved("c1")), by_r1(saved("c2")), draft("t1", hidden))
    assert (await latest(checkpoints)).checkpoint_id == "c1"


async def test_any_number_of_checkpoints_is_hidden_by_one_statement_that_reads_only_them(
    env: ProjectorEnv, checkpoints: Checkpoints
) -> None:
    given = Applying(env, at_once=True)
    names = [f"c{number:03}" for number in range(300)]
    await given(draft("t1", thread_created()), *(draft("t1", saved(name, run=None)) for name in names))
    kept = {names[0], names[150], names[-1]}
    gone = ["c", *(name for name in names if name not in kept), "d"]  # the first and the last one are unknown
    hidden = CheckpointsHidden(T1, tuple({"ns": "", "checkpoint_id": name} for name in gone), "prune")
    commit = given.judged(draft("t1", hidden))
    async with env.pool.acquire() as connection:
        tx = Transaction(connection)
        await CheckpointsModel().apply(tx, [commit])
    assert (len(tx.first), tx.together) == (1, [])
    statement = tx.first[0]
    plan = "\n".join(row[0] for row in await env.pool.fetch(f"EXPLAIN {statement.sql}", *statement.arguments))
    assert "Index Scan using checkpoints_pkey" in plan, plan
    assert re.search(r"Index Cond: .*thread_id = .*checkpoint_ns = .*checkpoint_id >= ", plan), plan
    await env.pool.execute(statement.sql, *statement.arguments)
    assert {one.checkpoint_id for one in await checkpoints.find(CheckpointQuery(T1))} == kept


async def test_nothing_of_a_deleted_thread_shows_and_nothing_of_its_earlier_life(
    given: Applying, checkpoints: Checkpoints
) -> None:
    await given(*begun(), by_r1(saved("c1", full("x", "1", 1)), written("c1", "task", (0, "x", 1))))
    await given(draft("t1", thread_deleted()))
    assert await find_latest(checkpoints, T1, "") is None
    assert await checkpoints.find(CheckpointQuery(T1)) == []
    await given(draft("t1", thread_created()))
    assert await find_latest(checkpoints, T1, "") is None
    await given(draft("t1", saved("c1", full("x", "1", 2), run=None), state_updated({"set": {"x": 2}})))
    found = await latest(checkpoints)
    assert (found.channels["x"].value, found.writes) == (2, ())


async def test_history_is_filtered_by_metadata_before_it_is_limited(given: Applying, checkpoints: Checkpoints) -> None:
    await given(
        *begun(),
        by_r1(saved("c1", metadata={"source": "input", "writes": {"a": 1}})),
        by_r1(saved("c2", metadata={"source": "loop", "writes": {"a": 1, "b": "\x00"}})),
        by_r1(saved("c3", metadata={"source": "loop"})),
    )

    async def found(**wanted: Json) -> list[str]:
        chosen = await checkpoints.find(CheckpointQuery(T1, "", metadata=dict(wanted), limit=1))
        return [one.checkpoint_id for one in chosen]

    assert await found(source="input") == ["c1"]
    assert await found(source="loop") == ["c3"]
    assert await found(writes={"a": 1}) == ["c1"]
    assert await found(writes={"a": 1, "b": "\x00"}) == ["c2"]
    assert await found(source="other") == []


async def test_without_a_thread_the_history_is_that_of_all(given: Applying, checkpoints: Checkpoints) -> None:
    await given(
        *begun(),
        by_r1(saved("c1")),
        draft("t2", thread_created("t2")),
        draft("t2", saved("c2", run=None, thread="t2")),
    )
    assert [one.checkpoint_id for one in await checkpoints.find(CheckpointQuery())] == ["c2", "c1"]
