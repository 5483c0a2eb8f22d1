"""Contract of `CheckpointReads`, in memory and in PostgreSQL, with LangGraph's conformance suite on top."""

# pyright: reportMissingTypeStubs=false
# (langgraph-checkpoint-conformance has no marker for its types)

from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer
from langgraph.checkpoint.conformance.validate import validate
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from tests.contracts import checkpoint_envs
from tests.contracts.checkpoint_envs import CheckpointEnv
from tests.fakes.standalone_saver import StandaloneSaver
from tests.projections.projector_env import migrated_database
from tests.stack_fixtures import RunningStack

from agentlog_facts.checkpoint import CheckpointSaved, CheckpointsHidden, WritesSaved
from agentlog_facts.checkpoint_ports import (
    CheckpointQuery,
    StoredCheckpoint,
    find_latest,
    find_one,
    find_parent,
    merged,
)
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra.langgraph.checkpoints.filters import ExcludeRun

ENVIRONMENTS = {
    "memory": checkpoint_envs.memory,
    "postgres": checkpoint_envs.postgres,
    "overlaid": checkpoint_envs.overlaid,
    "overlaid_in_part": checkpoint_envs.overlaid_in_part,
    "bridged": checkpoint_envs.bridged,
    "retrying": checkpoint_envs.retrying,
    "timed": checkpoint_envs.timed,
    "without_another_run": checkpoint_envs.without_another_run,
}
STANDALONE = [name for name in ENVIRONMENTS if not name.startswith("overlaid")]
"""Kinds for a saver outside of runs, which deletes and hides checkpoints, unlike a run's saver."""
THREAD = ThreadId("t1")


@pytest.fixture(scope="session")
def tables(stack: RunningStack) -> str:
    """Return the address of a database with all tables."""
    return migrated_database(stack.postgres, "checkpoint_reads")


@pytest.fixture(params=list(ENVIRONMENTS))
async def checkpoints(request: pytest.FixtureRequest, tables: str) -> AsyncGenerator[CheckpointEnv]:
    async with ENVIRONMENTS[request.param](tables) as env:
        yield env


@pytest.mark.parametrize("checkpoints", STANDALONE, indirect=True)
@pytest.mark.parametrize("capability", [capability.value for capability in Capability])
async def test_the_saver_conforms(checkpoints: CheckpointEnv, capability: str) -> None:
    async def savers() -> "AsyncGenerator[BaseCheckpointSaver[str], None]":
        yield StandaloneSaver(checkpoints.reads, checkpoints.commit, JsonPlusSerializer(), "token")

    report = await validate(RegisteredCheckpointer("LogSaver", savers), capabilities={capability})
    result = report.results[capability]
    assert result.detected
    assert result.failures == []
    assert result.passed
    assert result.tests_passed > 0
    assert result.tests_skipped == 0


def saved(checkpoint_id: str, *entries: JsonObject, run: str | None = None, **more: Json) -> CheckpointSaved:
    versions: JsonObject = {str(entry["channel"]): entry["version"] for entry in entries}
    return CheckpointSaved(
        thread_id=THREAD,
        run_id=None if run is None else RunId(run),
        checkpoint_ns=str(more.pop("ns", "")),
        checkpoint_id=checkpoint_id,
        parent_checkpoint_id=None,
        checkpoint={"v": 4, "id": checkpoint_id, "channel_versions": versions, "versions_seen": {}},
        metadata={"source": "loop", **more},
        channels=tuple(entries),
    )


def full(version: str, value: Json) -> JsonObject:
    return {"channel": "x", "version": version, "kind": "full", "value": value}


def grown(version: str, items: list[Json], base: str, length: int, stream: str) -> JsonObject:
    named: JsonObject = {"version": base, "length": length, "stream": stream}
    return {"channel": "x", "version": version, "kind": "append", "items": items, "base": named}


def written(
    checkpoint_id: str, task: str, index: int, value: Json, run: str | None = None, path: str = ""
) -> WritesSaved:
    entry: JsonObject = {"index": index, "channel": "x", "value": value}
    return WritesSaved(THREAD, None if run is None else RunId(run), "", checkpoint_id, task, path, (entry,))


def names(found: "list[StoredCheckpoint]") -> list[str]:
    return [one.checkpoint_id for one in found]


async def test_latest_is_the_last_accepted_one(checkpoints: CheckpointEnv) -> None:
    await checkpoints.commit(THREAD, (saved("c9"), saved("c1"), saved("c5", ns="sub")))
    latest = await find_latest(checkpoints.reads, THREAD, "")
    assert latest is not None
    assert (latest.checkpoint_id, latest.run_id, latest.metadata) == ("c1", None, {"source": "loop"})
    assert await find_latest(checkpoints.reads, ThreadId("other"), "") is None


async def test_history_follows_the_order_of_acceptance(checkpoints: CheckpointEnv) -> None:
    facts = (saved("c9", step=1), saved("c1", step=2), saved("c5", step=3), saved("d1", ns="sub"))
    await checkpoints.commit(THREAD, facts)
    reads = checkpoints.reads
    assert names(list(await reads.find(CheckpointQuery(THREAD, "")))) == ["c5", "c1", "c9"]
    assert names(list(await reads.find(CheckpointQuery(THREAD, limit=2)))) == ["d1", "c5"]
    assert names(list(await reads.find(CheckpointQuery(THREAD, "", before="c5")))) == ["c1", "c9"]
    assert names(list(await reads.find(CheckpointQuery(THREAD, "", before="unknown")))) == []
    assert names(list(await reads.find(CheckpointQuery(THREAD, "", metadata={"step": 2})))) == ["c1"]


async def test_appended_items_are_resolved(checkpoints: CheckpointEnv) -> None:
    await checkpoints.commit(THREAD, (saved("c1", full("1", {"items": ["a"]})),))
    await checkpoints.commit(THREAD, (saved("c2", grown("2", [{"json": {"b": 1}}], "1", 1, "thread-t1")),))
    await checkpoints.commit_by_run(THREAD, RunId("r1"), (saved("c3", grown("3", [], "2", 2, "thread-t1"), run="r1"),))
    found = await find_one(checkpoints.reads, THREAD, "", "c3")
    assert found is not None
    channel = found.channels["x"]
    assert (channel.kind, channel.items) == ("list", ("a", {"json": {"b": 1}}))
    assert (channel.version, channel.stream, channel.full_length, channel.parts) == ("3", "run-r1", 1, 2)


async def test_an_empty_channel_is_left_out(checkpoints: CheckpointEnv) -> None:
    gone: JsonObject = {"channel": "x", "version": "2", "kind": "empty"}
    await checkpoints.commit(THREAD, (saved("c1", full("1", 5)), saved("c2", gone)))
    first = await find_one(checkpoints.reads, THREAD, "", "c1")
    second = await find_one(checkpoints.reads, THREAD, "", "c2")
    assert first is not None
    assert first.channels["x"].value == 5
    assert second is not None
    assert second.channels == {}


async def test_a_version_said_again_holds_for_later_checkpoints_only(checkpoints: CheckpointEnv) -> None:
    await checkpoints.commit(THREAD, (saved("c1", full("1", "old")), saved("c2", full("1", "new"))))
    first = await find_one(checkpoints.reads, THREAD, "", "c1")
    second = await find_one(checkpoints.reads, THREAD, "", "c2")
    assert first is not None
    assert second is not None
    assert (first.channels["x"].value, second.channels["x"].value) == ("old", "new")


async def test_writes_on_special_channels_replace_and_others_stay(checkpoints: CheckpointEnv) -> None:
    await checkpoints.commit(THREAD, (saved("c1"), written("c1", "t", 0, "first"), written("c1", "t", -4, "old")))
    again = (written("c1", "t", 0, "second", run="r1"), written("c1", "t", -4, "new", run="r1"))
    await checkpoints.commit_by_run(THREAD, RunId("r1"), again)
    found = await find_one(checkpoints.reads, THREAD, "", "c1")
    assert found is not None
    assert [(write.index, write.value) for write in merged(found.writes)] == [(-4, "new"), (0, "first")]


async def test_writes_come_in_the_order_of_their_paths(checkpoints: CheckpointEnv) -> None:
    facts = (saved("c1"), written("c1", "a", 0, 1, path="2"), written("c1", "b", 0, 2, path="1"))
    await checkpoints.commit(THREAD, facts)
    found = await find_one(checkpoints.reads, THREAD, "", "c1")
    assert found is not None
    assert [write.value for write in merged(found.writes)] == [2, 1]


async def test_a_run_can_be_left_out(checkpoints: CheckpointEnv) -> None:
    await checkpoints.commit(THREAD, (saved("c1"), written("c1", "t", 0, "kept")))
    theirs = (written("c1", "t", -4, "answer", run="r1"), saved("c2", run="r1"))
    await checkpoints.commit_by_run(THREAD, RunId("r1"), theirs)
    latest = await find_latest(checkpoints.reads, THREAD, "", RunId("r1"))
    assert latest is not None
    assert latest.checkpoint_id == "c1"
    assert [write.value for write in latest.writes] == ["kept"]
    assert await checkpoints.reads.find(CheckpointQuery(THREAD, "", "c2", exclude_run=RunId("r1"))) == []
    assert await find_one(checkpoints.reads, THREAD, "", "c2") is not None


async def test_hidden_checkpoints_do_not_show_but_carry_others(checkpoints: CheckpointEnv) -> None:
    await checkpoints.commit(THREAD, (saved("c1", full("1", {"items": ["a"]})),))
    await checkpoints.commit(THREAD, (saved("c2", grown("2", ["b"], "1", 1, "thread-t1")),))
    hidden = CheckpointsHidden(THREAD, ({"ns": "", "checkpoint_id": "c1"},), "prune")
    await checkpoints.commit(THREAD, (hidden,))
    assert names(list(await checkpoints.reads.find(CheckpointQuery(THREAD, "")))) == ["c2"]
    latest = await find_latest(checkpoints.reads, THREAD, "")
    assert latest is not None
    assert latest.channels["x"].items == ("a", "b")


async def test_a_hidden_checkpoint_is_found_by_its_child_with_the_writes_of_that_time(
    checkpoints: CheckpointEnv,
) -> None:
    child = replace(saved("c2"), parent_checkpoint_id="c1")
    hidden = CheckpointsHidden(THREAD, ({"ns": "", "checkpoint_id": "c1"},), "prune")
    await checkpoints.commit(THREAD, (saved("c1"), written("c1", "t", 0, "before"), child))
    await checkpoints.commit(THREAD, (written("c1", "u", 0, "after"), hidden))
    found = await find_one(checkpoints.reads, THREAD, "", "c2")
    assert found is not None
    parent = await find_parent(checkpoints.reads, found)
    assert parent is not None
    assert (parent.checkpoint_id, [write.value for write in parent.writes]) == ("c1", ["before"])


async def test_a_child_keeps_what_a_run_wrote_that_is_left_out_now(checkpoints: CheckpointEnv) -> None:
    await checkpoints.commit(THREAD, (saved("c1"),))
    theirs = (written("c1", "t", 0, "theirs", run="r1"), replace(saved("c2", run="r1"), parent_checkpoint_id="c1"))
    await checkpoints.commit_by_run(THREAD, RunId("r1"), theirs)
    found = await find_one(checkpoints.reads, THREAD, "", "c2")
    assert found is not None
    parent = await find_parent(ExcludeRun(checkpoints.reads, RunId("r1")), found)
    assert parent is not None
    assert [write.value for write in parent.writes] == ["theirs"]


async def test_a_hidden_checkpoint_that_is_saved_again_shows_with_the_writes_on_it(checkpoints: CheckpointEnv) -> None:
    hidden = CheckpointsHidden(THREAD, ({"ns": "", "checkpoint_id": "c1"},), "prune")
    await checkpoints.commit(THREAD, (saved("c1"), written("c1", "t", 0, "kept"), hidden))
    assert await find_one(checkpoints.reads, THREAD, "", "c1") is None
    await checkpoints.commit(THREAD, (saved("c1"),))
    again = await find_one(checkpoints.reads, THREAD, "", "c1")
    assert again is not None
    assert [write.value for write in again.writes] == ["kept"]


async def test_all_conditions_of_a_query_hold_together(checkpoints: CheckpointEnv) -> None:
    facts = (saved("c1", step=1), saved("c2", step=1), saved("c2", ns="sub", step=1), saved("c3", step=2))
    await checkpoints.commit(THREAD, facts)
    await checkpoints.commit_by_run(THREAD, RunId("r1"), (saved("c4", run="r1", step=1), saved("c5", run="r1", step=1)))
    find = checkpoints.reads.find
    others = CheckpointQuery(THREAD, "", before="c5", metadata={"step": 1}, exclude_run=RunId("r1"))
    assert names(list(await find(others))) == ["c2", "c1"]
    assert names(list(await find(replace(others, limit=1)))) == ["c2"]
    assert names(list(await find(replace(others, checkpoint_id="c1")))) == ["c1"]
    assert names(list(await find(replace(others, exclude_run=None)))) == ["c4", "c2", "c1"]
    assert names(list(await find(CheckpointQuery(THREAD, checkpoint_id="c2")))) == ["c2", "c2"]
    assert names(list(await find(CheckpointQuery(THREAD, "", before="c2", checkpoint_id="c2")))) == []
