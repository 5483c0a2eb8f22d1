"""Queries of the start of a stream of a thread: given facts, then the places of the runs."""

import pytest
from tests.projections.facts import run_claimed, run_created, run_finished, run_released, thread_created
from tests.projections.models.applying import Applying
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.ids import RunId, ThreadId
from agentlog_projections.queries.thread_places import PostgresThreadPlaces

T1 = ThreadId("t1")


@pytest.fixture
def places(env: ProjectorEnv) -> PostgresThreadPlaces:
    return PostgresThreadPlaces(env.pool)


async def test_a_thread_that_does_not_exist_has_no_place(places: PostgresThreadPlaces) -> None:
    assert (await places.first_output(T1), await places.last_claim(T1)) == (None, (-1, None))


async def test_the_claimed_run_is_told_with_its_epoch(given: Applying, places: PostgresThreadPlaces) -> None:
    await given(draft("t1", thread_created(), run_created()))
    assert (await places.first_output(T1), await places.last_claim(T1)) == (None, (0, None))
    claimed = run_claimed()
    await given(draft("t1", claimed))
    assert (await places.first_output(T1), await places.last_claim(T1)) == (claimed.outputs_from, (1, RunId("r1")))


async def test_without_a_claim_the_version_of_the_thread_is_told(given: Applying, places: PostgresThreadPlaces) -> None:
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", run_released(1), epoch=1),
    )
    assert await places.last_claim(T1) == (2, None)
    await given(draft("t1", run_claimed(attempt=2)), draft("t1", run_finished(), epoch=3))
    assert await places.last_claim(T1) == (4, None)
