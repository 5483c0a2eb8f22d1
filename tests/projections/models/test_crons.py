"""Read model of crons: given facts, applied twice, then rows and what is due."""

from datetime import timedelta

from tests.projections.models.applying import Applying
from tests.projections.projector_env import START, ProjectorEnv, draft

from agentlog_facts.cron import CronCreated, CronDeleted, CronFired, CronFiringEnded, CronSlotsSkipped
from agentlog_facts.ids import AssistantId, CronId, RunId, ThreadId
from agentlog_projections.models.crons.model import CronFilter, Crons

C1 = CronId("c1")
CREATED = CronCreated(C1, AssistantId("a"), None, "@daily", None, None, {}, {"x": 1}, "delete", True, START)
FIRED = CronFired(C1, START, RunId("r1"), ThreadId("t1"), START + timedelta(days=1))


async def test_a_cron_is_due_until_its_slot_has_its_run(given: Applying, env: ProjectorEnv) -> None:
    crons = Crons(env.pool)
    await given(draft("c1", CREATED, stream="cron-c1"))
    assert await crons.due(START - timedelta(seconds=1), 9) == []
    assert await crons.due(START, 9) == ["c1"]
    await given(draft("c1", FIRED, stream="cron-c1"))
    assert await crons.due(START, 9) == ["c1"]
    row = await crons.get(C1)
    assert row is not None
    assert (row.fired, row.passed, row.next_run_date) == (FIRED, START, START + timedelta(days=1))
    await given(draft("c1", CronFiringEnded(C1, START, RunId("r1"), "thread_busy"), stream="cron-c1"))
    assert await crons.due(START, 9) == []
    row = await crons.get(C1)
    assert row is not None
    assert (row.fired, row.refusal, row.revision) == (None, "thread_busy", 2)
    skipped = CronSlotsSkipped(C1, START + timedelta(days=1), START + timedelta(days=3), None)
    await given(draft("c1", skipped, stream="cron-c1"))
    row = await crons.get(C1)
    assert row is not None
    assert (row.next_run_date, row.passed) == (None, START + timedelta(days=1))
    assert await crons.count(CronFilter(metadata={"x": 1}, enabled=True, assistant_id="a")) == 1
    await given(draft("c1", CronDeleted(C1), stream="cron-c1"))
    assert await crons.get(C1) is None
    assert await crons.count(CronFilter()) == 0


async def test_a_cron_of_a_thread_that_is_not_there_is_hidden_and_left_to_the_housekeeper(
    given: Applying, env: ProjectorEnv
) -> None:
    crons = Crons(env.pool)
    of_thread = CronCreated(C1, AssistantId("a"), ThreadId("t1"), "@daily", None, None, {}, {}, None, True, START)
    await given(draft("c1", of_thread, stream="cron-c1"))
    assert (await crons.get(C1), await crons.due(START, 9), await crons.orphans(9)) == (None, [], ["c1"])
