"""Read model of copies, and the rows of a thread that was copied: given facts, applied twice, then rows."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.projections.facts import full, saved, thread_created
from tests.projections.models.applying import Applying
from tests.projections.projector_env import START, ProjectorEnv, draft

from agentlog_commands.thread_copies import CopyProgress
from agentlog_facts.checkpoint_ports import CheckpointQuery
from agentlog_facts.ids import ThreadId
from agentlog_facts.thread import ThreadCopied
from agentlog_facts.thread_copy import ThreadCopyAsked, ThreadCopyContinued, ThreadCopyGivenUp
from agentlog_projections.models.checkpoints import Checkpoints
from agentlog_projections.models.threads import Threads
from agentlog_projections.queries.thread_copying import ThreadCopying

T1, SOURCE = ThreadId("t1"), ThreadId("t0")
ASKED = ThreadCopyAsked(T1, SOURCE, START, {"thread": 3, "meta": None}, 9, {"a": 1}, None, {"set": {"x": 1}}, (), {})
ON = "copy-t1"
CREATED = replace(thread_created(), metadata={"a": 1})
COPIED = ThreadCopied(T1, SOURCE, {"set": {"x": 1}}, ("two",), {})


@pytest.fixture
async def copying(env: ProjectorEnv) -> ThreadCopying:
    await env.pool.execute("INSERT INTO ledger.positions (partition, present) VALUES (0, true)")
    return ThreadCopying(env.pool)


async def test_a_copy_advances_until_it_is_a_thread(given: Applying, env: ProjectorEnv, copying: ThreadCopying) -> None:
    assert await copying.progress(T1) is None
    await given(draft("t1", ASKED, stream=ON))
    assert await copying.progress(T1) == CopyProgress("open", 0, 0)
    part = saved("c1", full("x", "1", 1), run=None)
    await given(draft("t1", part, ThreadCopyContinued(T1, 5), stream=ON))
    assert await copying.progress(T1) == CopyProgress("open", 1, 5)
    assert await Threads(env.pool).get(T1) is None
    await given(draft("t1", ThreadCopyContinued(T1, 9), stream=ON), draft("t1", CREATED, COPIED))
    assert await copying.progress(T1) == CopyProgress("done", 2, 9)
    thread = await Threads(env.pool).get(T1)
    assert thread is not None
    assert (thread.values, thread.status, thread.next) == ({"x": 1}, "interrupted", ("two",))
    assert (thread.metadata, thread.config, thread.version) == ({"a": 1}, {}, 0)
    found = await Checkpoints(env.pool).find(CheckpointQuery(T1))
    assert [one.checkpoint_id for one in found] == ["c1"]


async def test_the_parts_of_a_copy_that_was_given_up_are_no_part_of_a_later_thread(
    given: Applying, env: ProjectorEnv, copying: ThreadCopying
) -> None:
    part = saved("c1", full("x", "1", 1), run=None)
    await given(
        draft("t1", ASKED, stream=ON),
        draft("t1", part, ThreadCopyContinued(T1, 5), stream=ON),
        draft("t1", ThreadCopyGivenUp(T1, "late"), stream=ON),
        draft("t1", CREATED),
    )
    assert await copying.progress(T1) == CopyProgress("given_up", 2, 5)
    assert list(await Checkpoints(env.pool).find(CheckpointQuery(T1))) == []


async def test_only_open_copies_that_are_old_enough_are_left(given: Applying, copying: ThreadCopying) -> None:
    asked = draft("t1", ASKED, stream=ON)
    await given(asked)
    late = asked.occurred_at + timedelta(seconds=1)
    assert [one.thread_id for one in await copying.open_copies(late, 9)] == ["t1"]
    assert await copying.open_copies(asked.occurred_at, 9) == []
    await given(draft("t1", ThreadCopyGivenUp(T1, "late"), stream=ON))
    assert await copying.open_copies(late, 9) == []
