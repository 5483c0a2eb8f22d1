"""Rows of a partition that is being built: neither a row nor its absence counts."""

import pytest
from tests.projections.facts import full, run_claimed, run_created, run_finished, saved, thread_created, written
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.checkpoint_ports import CheckpointQuery, find_latest, find_one
from agentlog_facts.errors import Unavailable
from agentlog_facts.ids import Key, RunId, ThreadId
from agentlog_projections.models.checkpoints import Checkpoints
from agentlog_projections.queries.postgres_worker import PostgresWorkerQueries
from agentlog_projections.queries.run_status import RunStatusRows
from agentlog_projections.queries.worker import ClaimStatus

T1, R1, UNKNOWN = ThreadId("t1"), RunId("r1"), RunId("nobody")


@pytest.fixture
async def here(env: ProjectorEnv) -> ProjectorEnv:
    """Return an environment with a claimed run with a checkpoint on `t1`, and an ended run on another partition."""
    other = next(f"u{number}" for number in range(99) if env.log.partition_of(Key(f"u{number}")) != partition(env))
    env.append(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", saved("c1", full("x", "1", 1)), written("c1", "task", (0, "x", 1)), stream="run-r1", epoch=1),
        draft(other, thread_created(other), run_created("r2", other)),
        draft(other, run_claimed("r2")),
        draft(other, run_finished("r2"), epoch=1),
    )
    async with env.projector():
        await env.folded()
        await env.until(lambda: env.caught_up(0))
        await env.until(lambda: env.caught_up(1))
    return env


def partition(env: ProjectorEnv) -> int:
    return env.log.partition_of(Key("t1"))


async def being_built(env: ProjectorEnv, **changed: str) -> None:
    """Mark the partition of `t1` as not present, or set the columns in `changed`."""
    assignments = ", ".join(f"{name} = {value}" for name, value in (changed or {"present": "false"}).items())
    await env.pool.execute(f"UPDATE ledger.positions SET {assignments} WHERE partition = $1", partition(env))


@pytest.mark.parametrize("changed", [{"present": "false"}, {"stopped": "'log diverged'"}])
async def test_a_partition_that_is_not_present_or_stopped_tells_nothing(
    here: ProjectorEnv, changed: dict[str, str]
) -> None:
    queries, statuses, checkpoints = PostgresWorkerQueries(here.pool), RunStatusRows(here.pool), Checkpoints(here.pool)
    assert await queries.marks({R1: T1}) == {R1: ClaimStatus(1, "worker-1", None, 1)}
    assert await queries.run_version(T1, R1) == 0
    assert (await statuses.rows([R1])).keys() == {R1}
    await being_built(here, **changed)
    assert await queries.marks({R1: T1}) == {}
    assert await statuses.rows([R1]) == {}
    for answer in (
        queries.run_version(T1, R1),
        find_latest(checkpoints, T1, ""),
        find_one(checkpoints, T1, "", "c1"),
        checkpoints.find(CheckpointQuery(T1, "")),
        checkpoints.find(CheckpointQuery()),
    ):
        with pytest.raises(Unavailable, match="being built"):
            await answer


async def test_other_partitions_go_on_telling(here: ProjectorEnv) -> None:
    await being_built(here)
    found = await RunStatusRows(here.pool).rows([R1, RunId("r2")])
    assert [row and row.status for row in found.values()] == ["success"]
    other = next(row for row in found.values() if row is not None)
    marks = await PostgresWorkerQueries(here.pool).marks({R1: T1, other.run_id: other.thread_id})
    assert marks == {other.run_id: ClaimStatus(None, "worker-1", None, 2)}
    assert await find_latest(Checkpoints(here.pool), other.thread_id, "") is None
    assert await PostgresWorkerQueries(here.pool).run_version(other.thread_id, other.run_id) is None


async def test_a_missing_row_counts_once_everything_is_present(here: ProjectorEnv) -> None:
    queries, statuses = PostgresWorkerQueries(here.pool), RunStatusRows(here.pool)
    assert await queries.marks({UNKNOWN: T1}) == {UNKNOWN: ClaimStatus(None, None, None, 1)}
    assert await queries.marks({UNKNOWN: ThreadId("nobody")}) == {}
    assert await statuses.rows([UNKNOWN]) == {UNKNOWN: None}
    assert await find_latest(Checkpoints(here.pool), ThreadId("nobody"), "") is None


@pytest.mark.parametrize("emptied", ["DELETE FROM ledger.positions", "UPDATE ledger.positions SET present = false"])
async def test_empty_tables_say_nothing_is_known_instead_of_nothing_is_there(here: ProjectorEnv, emptied: str) -> None:
    await here.reset()
    await here.pool.execute(emptied)
    queries, statuses = PostgresWorkerQueries(here.pool), RunStatusRows(here.pool)
    assert await queries.marks({R1: T1}) == {}
    assert await statuses.rows([R1]) == {}
    for answer in (queries.run_version(T1, R1), find_latest(Checkpoints(here.pool), T1, "")):
        with pytest.raises(Unavailable):
            await answer


async def test_an_unknown_aggregate_waits_for_partitions_that_nobody_has_taken_yet(here: ProjectorEnv) -> None:
    await here.pool.execute("UPDATE ledger.positions SET partitions = 3")
    assert await RunStatusRows(here.pool).rows([R1, UNKNOWN]) != {}
    assert UNKNOWN not in await RunStatusRows(here.pool).rows([UNKNOWN])
    assert await find_latest(Checkpoints(here.pool), T1, "") is not None
    with pytest.raises(Unavailable):
        await find_latest(Checkpoints(here.pool), ThreadId("nobody"), "")
