"""Decides what tests of projections get: a world of their own, and folding in which everything is applied twice."""

from collections.abc import AsyncGenerator
from uuid import uuid4

import pytest
from tests.projections.applying import Applying
from tests.projections.world import TABLES, World, ask, database_uri, migrated_database, world_in
from tests.stack_fixtures import RunningStack

from agentlog_infra.migrate import upgrade


@pytest.fixture(scope="session")
def migrated(stack: RunningStack) -> str:
    """Name a database with all tables."""
    return migrated_database(stack.postgres, "projections")


@pytest.fixture
async def world(migrated: str) -> AsyncGenerator[World]:
    """Give all tables, with nothing in them."""
    async with world_in(migrated) as made:
        yield made


@pytest.fixture
async def own_world(stack: RunningStack) -> AsyncGenerator[World]:
    """Give a database that the test may destroy."""
    name = f"world_{uuid4().hex}"
    await upgrade(database_uri(stack.postgres, name), TABLES)
    async with world_in(database_uri(stack.postgres, name)) as made:
        yield made
    await ask(stack.postgres, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(params=["at_once", "one_by_one"])
def given(request: pytest.FixtureRequest, world: World) -> Applying:
    """Fold facts into rows, every batch twice: all commits in one batch, or each in one of its own."""
    return Applying(world, at_once=request.param == "at_once")
