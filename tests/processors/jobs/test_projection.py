"""Tests of the retry of quarantined aggregates: an outage is no error of the aggregate, and counts no attempt."""

from collections.abc import AsyncGenerator
from uuid import uuid4

import pytest
from tests.projections.facts import thread_created
from tests.projections.projector_env import TABLES, ProjectorEnv, ask, database_uri, draft, env_in
from tests.stack_fixtures import RunningStack

from agentlog_facts.errors import Unavailable
from agentlog_infra.postgres.migrate import upgrade
from agentlog_processors.jobs.projection import retry_aggregate
from agentlog_projections.queries.health import Parked, parked

FUNCTION = "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$"
TRIGGER = "CREATE TRIGGER fail BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION fail()"
REFUSED = "RAISE EXCEPTION 'refused' USING ERRCODE = 'XX000';"
CONNECTION_ENDS = "PERFORM pg_terminate_backend(pg_backend_pid());"


@pytest.fixture
async def env(stack: RunningStack) -> AsyncGenerator[ProjectorEnv]:
    """Yield a database in which the aggregate `bad` is in quarantine."""
    name = f"retried_{uuid4().hex}"
    uri = database_uri(stack.postgres, name)
    await upgrade(uri, TABLES)
    async with env_in(uri) as made:
        await made.pool.execute(FUNCTION.format(body=REFUSED))
        await made.pool.execute(TRIGGER.format(table="read_v1.threads"))
        made.append(draft("bad", thread_created("bad")))
        async with made.projector():
            await made.folded()
        yield made
    await ask(stack.postgres, f"DROP DATABASE {name} WITH (FORCE)")


async def bad(env: ProjectorEnv) -> Parked:
    [one] = await parked(env.pool)
    return one


async def retried(env: ProjectorEnv) -> str | None:
    return await retry_aggregate(env.uri, env.log, await bad(env))


async def test_an_aggregate_that_fails_again_counts_an_attempt(env: ProjectorEnv) -> None:
    assert "refused" in str(await retried(env))
    assert (await bad(env)).attempts == 1


async def test_a_log_that_is_away_ends_a_retry_and_counts_no_attempt(env: ProjectorEnv) -> None:
    env.log.away = True
    with pytest.raises(Unavailable, match="the log does not answer"):
        await retried(env)
    assert (await bad(env)).attempts == 0


async def test_a_postgresql_that_takes_no_writes_ends_a_retry_and_counts_no_attempt(env: ProjectorEnv) -> None:
    await env.pool.execute(FUNCTION.format(body=CONNECTION_ENDS))
    await env.pool.execute(TRIGGER.format(table="ledger.quarantine"))
    with pytest.raises(Unavailable, match="bad"):
        await retried(env)
    assert (await bad(env)).attempts == 0


async def test_a_record_that_ends_its_connection_is_an_error_of_its_aggregate(env: ProjectorEnv) -> None:
    await env.pool.execute(FUNCTION.format(body=CONNECTION_ENDS))
    assert "Unavailable" in str(await retried(env))
    await env.pool.execute("DROP FUNCTION fail() CASCADE")
    assert await retried(env) is None
    assert await parked(env.pool) == []
