"""What a gateway asks before it decides: which runs came since, and on what an earlier try of an intent relied."""

from tests.projections.facts import run_created, state_updated, thread_created
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.ids import Stream, ThreadId
from agentlog_projections.queries.command_context import CommandContexts

T1 = ThreadId("t1")
ON_T1 = Stream("thread-t1")


async def test_the_runs_since_a_version_are_those_that_the_log_accepted_after_it(env: ProjectorEnv) -> None:
    places = env.append(
        draft("t1", thread_created(), run_created("r0")),
        draft("t1", run_created("r1")),
        draft("t1", run_created("void"), demands={ON_T1: 0}),
        draft("t1", state_updated({})),
        draft("t1", run_created("r2")),
        draft("t2", thread_created("t2"), run_created("elsewhere", "t2")),
    )
    async with env.projector():
        await env.folded()
    decisions = CommandContexts(env.pool)
    assert await decisions.runs_since(T1, 0) == [places[1], places[4]]
    assert await decisions.runs_since(T1, 1) == [places[4]]
    assert await decisions.runs_since(T1, 3) == []


async def test_an_intent_is_as_old_as_the_first_of_its_tries_that_came_too_late(env: ProjectorEnv) -> None:
    env.append(
        draft("t1", thread_created()),
        draft("t1", run_created("other")),
        draft("t1", run_created("late"), demands={ON_T1: 0}, event_id="late"),
        draft("t1", run_created("another")),
        draft("t1", run_created("late"), demands={ON_T1: 1}, event_id="late"),
        draft("t1", run_created("in time"), demands={ON_T1: 2}, event_id="in time"),
        draft("t2", thread_created("t2"), run_created("late", "t2"), event_id="late"),
    )
    async with env.projector():
        await env.folded()
    decisions = CommandContexts(env.pool)
    assert await decisions.first_tried_at(T1, "late") == 0
    for event_id, thread_id in (("in time", T1), ("late", ThreadId("t2")), ("never", T1)):
        assert await decisions.first_tried_at(thread_id, event_id) is None
