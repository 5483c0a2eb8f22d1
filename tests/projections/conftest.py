"""Fixtures for tests of projections: an environment, and a fold that applies every batch twice."""

from collections.abc import AsyncGenerator
from uuid import uuid4

import pytest
from tests.projections.models.applying import Applying
from tests.projections.projector_env import TABLES, ProjectorEnv, ask, database_uri, env_in, migrated_database
from tests.stack_fixtures import RunningStack

from agentlog_infra.postgres.migrate import upgrade


@pytest.fixture(scope="session")
def migrated(stack: RunningStack) -> str:
    """Return the address of a database with all tables."""
    return migrated_database(stack.postgres, "projections")


@pytest.fixture
async def env(migrated: str) -> AsyncGenerator[ProjectorEnv]:
    """Yield an environment with all tables, empty."""
    async with env_in(migrated) as made:
        yield made


@pytest.fixture
async def own_env(stack: RunningStack) -> AsyncGenerator[ProjectorEnv]:
    """Yield an environment with a database that the test may destroy."""
    name = f"env_{uuid4().hex}"
    await upgrade(database_uri(stack.postgres, name), TABLES)
    async with env_in(database_uri(stack.postgres, name)) as made:
        yield made
    await ask(stack.postgres, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(params=["at_once", "one_by_one"])
def given(request: pytest.FixtureRequest, env: ProjectorEnv) -> Applying:
    """Return a fold that applies every batch twice: all commits in one batch, or each in one of its own."""
    return Applying(env, at_once=request.param == "at_once")
