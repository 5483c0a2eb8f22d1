"""The connection pool to PostgreSQL, and what its faults mean to us."""

from collections.abc import Generator
from contextlib import contextmanager

import asyncpg

from agentlog_facts.errors import Unavailable
from agentlog_infra.settings import Settings

COMMAND_TIMEOUT_S = 30.0


async def create_pool(settings: Settings, min_size: int = 1) -> asyncpg.Pool:
    """Connect. Raises: Unavailable."""
    if settings.database_uri is None:
        raise Unavailable("DATABASE_URI: expected the address of PostgreSQL, found nothing")
    with database_faults():
        return await asyncpg.create_pool(
            settings.database_uri,
            min_size=min_size,
            max_size=settings.postgres_pool_max_size,
            command_timeout=COMMAND_TIMEOUT_S,
            max_inactive_connection_lifetime=300,
        )


@contextmanager
def database_faults() -> Generator[None]:
    """Turn faults of PostgreSQL into Unavailable."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise Unavailable(f"database: {type(error).__name__} {error}") from error
