"""Decides what must be right before roles start: the log's topics and the database's schema."""

import asyncio
from importlib import import_module

from agentlog_infra.settings import Settings


def load_adapters() -> None:
    """Import what `prepare` needs; slow, so it is done on a thread while the servers start."""
    for name in ("agentlog_infra.kafka_topics", "agentlog_infra.migrations"):
        import_module(name)


async def prepare(settings: Settings) -> None:
    """Make missing topics and bring the schema up. Raises: Unavailable, Misconfigured."""
    topics, migrations = import_module("agentlog_infra.kafka_topics"), import_module("agentlog_infra.migrations")
    await asyncio.gather(topics.apply(settings), migrations.upgrade(settings.database_uri))
